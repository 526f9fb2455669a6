// What an assignor is given, gathered from the group table: the members of a group, what they subscribe to
// and what they have, and the topics there are.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "log/attachment.h"
#include "ringtail/assignor.h"

namespace ringtail::groups {

struct AssignmentInput {
  std::vector<GroupMember> members;
  std::vector<std::uint32_t> slots;  // as members
  std::vector<GroupTopic> topics;
  std::map<TopicPartition, std::uint32_t> entries;  // of the group's partitions that have one
};

// The names among `topics` that a member's subscription means. Internal topics (those that begin with
// "__") are meant only by their full name. Errors: invalid_argument, when the expression is malformed.
Result<std::vector<std::string>> resolve_subscription(const std::string& subscription, bool by_pattern,
                                                      const std::vector<log::TopicEntry>& topics);

// Thread and process safety: reads what the coordinator writes; a mixture of old and new is possible, and
// leads to a proposal that the coordinator refuses or asks for again. Blocks on the catalog.
// Errors: of the catalog.
Result<AssignmentInput> load_assignment_input(const log::Attachment& attachment, std::uint32_t group);
// Of the coordinator, who knows the group's members by himself: their slots. Others may have written that they are.
AssignmentInput load_assignment_input(const shm::Control& control, std::uint32_t group,
                                      const std::vector<log::TopicEntry>& topics,
                                      const std::set<std::uint32_t>* members = nullptr);

}  // namespace ringtail::groups

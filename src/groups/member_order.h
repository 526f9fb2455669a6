// What all assignors ask of members and topics.
//
// Thread and process safety: pure functions.
#pragma once

#include <algorithm>
#include <numeric>
#include <span>
#include <string_view>
#include <vector>

#include "ringtail/assignor.h"

namespace ringtail::groups {

// The members' indices, ranked by their ids.
inline std::vector<std::size_t> by_id(std::span<const GroupMember> members) {
  std::vector<std::size_t> order(members.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return members[a].id < members[b].id; });
  return order;
}

inline bool subscribes(const GroupMember& member, std::string_view topic) {
  return std::binary_search(member.topics.begin(), member.topics.end(), topic);
}

// The topic of that name, or null.
inline const GroupTopic* find_topic(std::span<const GroupTopic> topics, std::string_view name) {
  const auto found = std::lower_bound(topics.begin(), topics.end(), name,
                                      [](const GroupTopic& t, std::string_view n) { return t.name < n; });
  return found != topics.end() && found->name == name ? &*found : nullptr;
}

}  // namespace ringtail::groups

// Assignors: which member of a consumer group reads which partition.
//
// An assignor is a name and a pure function; those below are Kafka's by name and by what they promise, and
// a user's own looks the same. The members of a group agree on one by its name.
//
// Thread and process safety: pure functions. The same members and topics give the same assignment in
// every process, in whatever order the members come: they are ranked by their ids, which differ.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ringtail/error.h"
#include "ringtail/record.h"

namespace ringtail {

// A member of a group, as an assignor sees it.
struct GroupMember {
  std::string id;
  std::string client_id;
  std::vector<std::string> topics;    // sorted; what it subscribes to, expressions resolved
  std::vector<TopicPartition> owned;  // sorted; what it has now
};

// A topic that somebody in the group subscribes to.
struct GroupTopic {
  std::string name;
  std::uint32_t partitions = 0;
};

// What each member gets: one entry per member, in the members' order, each sorted.
using Assignment = std::vector<std::vector<TopicPartition>>;

// The topics are sorted by name. Those that a member subscribes to and that are not among them do not
// exist; what it owns of such topics, or of topics it does not subscribe to, is void.
using AssignFunction = std::function<Assignment(std::span<const GroupMember>, std::span<const GroupTopic>)>;

struct Assignor {
  std::string name;
  AssignFunction assign;
};

// "range": topic by topic, each subscriber gets neighbouring partitions, the first ones one more where it
// does not divide evenly. Topics with as many partitions and the same subscribers are divided alike, so
// that a member gets the same keys of each.
Assignor range_assignor();

// "roundrobin": the partitions of all topics in order are dealt to the members in turn; a member that does
// not subscribe to a topic is passed over.
Assignor round_robin_assignor();

// "cooperative-sticky": as even as the subscriptions permit (the sum of the squares of the members' counts
// is the least possible; with equal subscriptions, counts differ by at most one), and of all assignments
// that are so even, one in which the fewest partitions change hands. A few hundred microseconds for 1,000
// partitions and 64 members with equal subscriptions.
Assignor sticky_assignor();

// The assignor of that name among the three.
std::optional<Assignor> find_assignor(std::string_view name);

// Checks what an assignor returned: an entry for every member; every partition exists, and is given once at
// most, and to a member that subscribes to its topic. Partitions may be left out.
// Errors: invalid_argument, naming what is wrong.
Status check_assignment(std::span<const GroupMember> members, std::span<const GroupTopic> topics,
                        const Assignment& assignment);

}  // namespace ringtail

// The records in which positions outlive the machine: one for each group, topic and partition; the latest
// counts. Keys and values are JSON, so that `ringtail consume __consumer_offsets` can be read; a group or
// metadata that is no UTF-8 stands there as {"hex":"<digits>"}.
//
//   {"group":"g","topic":"t","partition":0}  ->  {"offset":42,"topic_id":"<16 digits>","metadata":"",
//                                                 "committed_ns":1763740800000000000,"revision":7}
//   a null value: the position was deleted
//
// There is no field `version`: that is version 1. A release that has to change what a field means adds it, and
// this one then refuses to restore positions (InternalTopic::restore).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "groups/internal_topic.h"
#include "ringtail/record.h"

namespace ringtail::groups {

inline constexpr std::string_view kOffsetsTopic = "__consumer_offsets";

// Thread and process safety: pure functions on values.
struct StoredOffset {
  std::string group;
  std::string topic;
  std::uint64_t topic_id = 0;
  PartitionId partition{0};
  std::optional<std::uint64_t> offset;  // none: deleted
  std::string metadata;
  std::int64_t committed_ns = 0;
  // Rises with everything that is written about positions, here and in the decisions of transactions: of two
  // records about one position, that of the higher revision counts.
  std::uint64_t revision = 0;
};

KeyValue encode_offset(const StoredOffset& stored);
// Nothing when the record is not one of these. Fields that are not known are passed over.
std::optional<StoredOffset> decode_offset(const Record& record);

}  // namespace ringtail::groups

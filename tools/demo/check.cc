// Reads everything again and compares it with what the victim was told.
#include <fmt/format.h>

#include <chrono>
#include <fstream>
#include <optional>

#include "base/parse.h"
#include "tools/demo/demo.h"
#include "tools/output.h"

namespace ringtail::demo {
namespace {

// What a walk through the topic found.
struct Findings {
  std::uint64_t records = 0;
  std::uint64_t victims = 0;  // records of the victim: numbered 0 to victims - 1
  std::uint64_t holes = 0;    // offsets that no record has: claimed, never committed
  std::optional<Offset> last_hole;
};

Status examine(const Record& record, Offset& expected, Findings& found) {
  if (record.offset < expected) {
    return fail(Code::corrupt, fmt::format("offset {} came twice", record.offset.value()));
  }
  if (record.offset > expected) {
    found.holes += record.offset - expected;
    found.last_hole = record.offset - 1;
  }
  expected = record.offset + 1;
  ++found.records;
  if (record.key != kVictimKey) return {};
  const auto number = parse_integer(record.value.substr(0, record.value.find(' ')));
  if (!number) return std::unexpected(number.error());
  if (static_cast<std::uint64_t>(*number) != found.victims) {
    return fail(Code::corrupt,
                fmt::format("the victim's record {} came where {} was due", *number, found.victims));
  }
  ++found.victims;
  return {};
}

Result<Findings> walk(const Log& log, const std::string& topic) {
  auto consumer = Consumer::open(log);
  if (!consumer) return std::unexpected(consumer.error());
  const TopicPartition partition{topic, PartitionId(0)};
  if (auto assigned = consumer->assign({&partition, 1}); !assigned) return std::unexpected(assigned.error());
  const auto end = consumer->end_offset(partition);
  if (!end) return std::unexpected(end.error());

  Findings found;
  Offset expected{0};
  for (auto at = consumer->position(partition); at && *at < *end; at = consumer->position(partition)) {
    const auto records = consumer->poll(std::chrono::seconds(1));
    if (!records) return std::unexpected(records.error());
    for (const Record& record : *records) {
      if (auto examined = examine(record, expected, found); !examined) {
        return std::unexpected(examined.error());
      }
    }
  }
  return found;
}

}  // namespace

Status run_check(const Log& log, const CheckOptions& options) {
  std::uint64_t acknowledged = 0;
  std::ifstream file(options.acknowledged, std::ios::binary);
  if (!file.read(reinterpret_cast<char*>(&acknowledged), sizeof acknowledged)) {
    return fail(Code::not_found, fmt::format("{} holds no count", options.acknowledged.string()));
  }
  const auto found = walk(log, options.topic);
  if (!found) return std::unexpected(found.error());
  if (found->victims < acknowledged) {
    return fail(Code::corrupt, fmt::format("{} of the {} records that the victim was told of are gone",
                                           acknowledged - found->victims, acknowledged));
  }
  fmt::print("  {:>9} records read back, in order, no offset twice\n", tools::grouped(found->records));
  fmt::print("  {:>9} of the victim were acknowledged; {} are there\n", tools::grouped(acknowledged),
             tools::grouped(found->victims));
  if (found->last_hole) {
    fmt::print("  {:>9} offset claimed and never committed: {}, now an aborted record that readers skip\n",
               found->holes, tools::grouped(found->last_hole->value()));
  } else {
    fmt::print("  {:>9} offsets left open: it died between two records\n", 0);
  }
  return {};
}

}  // namespace ringtail::demo

#include "log/sent_records.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <thread>

#include "base/clock.h"
#include "log/partition_reader.h"

namespace ringtail::log {

namespace {

constexpr std::size_t kReadAheadBytes = 4 << 20;

// An offset about kRecalledBytes before `end`, going by the mean size of a record.
Offset some_way_back(const PartitionReader& reader, const Ring::End& end) {
  const std::uint64_t start = reader.partition().entry().log_start_position.load(std::memory_order_relaxed);
  const Offset first = reader.log_start();
  if (end.position.value() <= start || end.offset <= first) return first;
  const auto bytes = static_cast<double>(end.position.value() - start);
  const auto records = static_cast<double>(end.offset - first);
  const double back = records * static_cast<double>(SentRecords::kRecalledBytes) / bytes;
  return back < records ? Offset(end.offset.value() - static_cast<std::uint64_t>(back)) : first;
}

// What a memory topic's ring or retention takes away meanwhile is not sought: then it reads from what there is.
Status seek_back(PartitionReader& reader, const Ring::End& end) {
  auto sought = reader.seek(some_way_back(reader, end));
  if (!sought && sought.error().code == Code::offset_out_of_range) return {};
  return sought;
}

}  // namespace

Result<std::optional<std::uint64_t>> SentRecords::recall(const PartitionRef& partition, std::uint32_t slot,
                                                         std::uint64_t producer_id,
                                                         std::chrono::milliseconds patience) {
  records_.clear();
  auto reader = PartitionReader::open_for_shipping(partition, slot, kReadAheadBytes);
  if (!reader) return std::unexpected(reader.error());
  std::optional<std::uint64_t> next;
  (*reader)->set_on_stamped([&](const format::Extension& of, const RecordMetadata& metadata) {
    if (of.producer_id != producer_id) return;
    note(of.sequence, metadata);
    next = std::max(next.value_or(0), of.sequence + 1);
  });
  const auto end = (*reader)->log_end();
  if (!end) return std::unexpected(end.error());
  if (auto sought = seek_back(**reader, *end); !sought) return std::unexpected(sought.error());
  const std::int64_t deadline_ns = monotonic_ns() + std::chrono::nanoseconds(patience).count();
  std::array<Record, 256> records;
  while ((*reader)->offset() < end->offset) {
    const auto polled = (*reader)->poll(records);
    if (!polled) return std::unexpected(polled.error());
    if (*polled > 0 || (*reader)->offset() >= end->offset) continue;
    if (monotonic_ns() >= deadline_ns)
      return fail(
          Code::timed_out,
          fmt::format("topic '{}' partition {}: offset {} is claimed, and nobody ends the claim; is a "
                      "keeper attached?",
                      partition.topic, partition.partition.value(), (*reader)->offset().value()));
    partition.control->wake_keeper();
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  return next;
}

}  // namespace ringtail::log

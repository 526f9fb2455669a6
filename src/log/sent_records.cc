#include "log/sent_records.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <thread>

#include "base/bounded_time.h"
#include "base/clock.h"
#include "format/frame.h"
#include "log/partition_reader.h"

namespace ringtail::log {

namespace {

constexpr std::size_t kReadAheadBytes = 4 << 20;

// An offset about kRecalledBytes before `end`, and before `known_until`, going by the mean size of a record. What was
// known up to there may have been cut off since, but hardly so much of it.
Offset some_way_back(const PartitionReader& reader, const Ring::End& end, Offset known_until) {
  const std::uint64_t start = reader.partition().entry().log_start_position.load(std::memory_order_relaxed);
  const Offset first = reader.log_start();
  if (end.position.value() <= start || end.offset <= first) return first;
  const auto bytes = static_cast<double>(end.position.value() - start);
  const auto records = static_cast<double>(end.offset - first);
  const double back = records * static_cast<double>(SentRecords::kRecalledBytes) / bytes;
  const std::uint64_t from = std::min(known_until, end.offset).value();
  const auto available = static_cast<double>(from) - static_cast<double>(first.value());
  return back < available ? Offset(from - static_cast<std::uint64_t>(back)) : first;
}

// What a memory topic's ring or retention takes away meanwhile is not sought: then it reads from what there is.
Status seek_back(PartitionReader& reader, Offset begin) {
  auto sought = reader.seek(begin);
  if (!sought && sought.error().code == Code::offset_out_of_range) return {};
  return sought;
}

// Bytes that the record takes in a log, with its extension.
std::uint64_t stamped_bytes(const ProducerRecord& record) {
  const std::uint64_t plain = format::data_frame_bytes(record.key.size(), record.value.size(),
                                                       format::encoded_headers_bytes(record.headers));
  return format::align_frame(static_cast<std::uint32_t>(plain) + format::kExtensionBytes);
}

}  // namespace

// Backwards from the one whose place is known: they stand in a row.
void SentRecords::note_batch(std::uint64_t first, std::span<const ProducerRecord> records,
                             const RecordMetadata& last, bool append_time) {
  const std::size_t forgotten = records.size() - std::min(records.size(), kRemembered);
  RecordMetadata at = last;
  for (std::size_t i = records.size(); i > forgotten; --i) {
    const ProducerRecord& record = records[i - 1];
    at.timestamp_ns = append_time ? last.timestamp_ns : record.timestamp_ns.value_or(last.timestamp_ns);
    note(first + (i - 1), at);
    at.offset = at.offset - 1;
    at.end = at.end - stamped_bytes(record);
  }
}

void SentRecords::forget_all(Offset begin) {
  for (const Sent& sent : records_)
    if (sent.sequence != Sent{}.sequence && sent.metadata.offset < begin)
      next_farther_back_ = std::max(next_farther_back_.value_or(0), sent.sequence + 1);
  records_.clear();
}

void SentRecords::forget_from(std::uint64_t first) {
  for (Sent& sent : records_)
    if (sent.sequence >= first) sent = {};
  if (next_farther_back_) next_farther_back_ = std::min(*next_farther_back_, first);
}

Result<SentRecords::Recalled> SentRecords::recall(const PartitionRef& partition, std::uint32_t slot,
                                                  const Stamp& stamp, std::uint64_t first,
                                                  std::chrono::milliseconds patience, Offset known_until) {
  auto reader = PartitionReader::open_for_shipping(partition, slot, kReadAheadBytes);
  if (!reader) return std::unexpected(reader.error());
  const auto end = (*reader)->log_end();
  if (!end) return std::unexpected(end.error());
  const Offset begin = some_way_back(**reader, *end, known_until);
  forget_all(begin);
  std::optional<std::uint64_t> next = next_farther_back_;
  (*reader)->set_on_stamped([&](const format::Extension& of, const RecordMetadata& metadata) {
    if (of.producer_id != stamp.producer_id || of.producer_epoch != stamp.producer_epoch) return;
    if (of.transaction != stamp.transaction && of.sequence >= first) return;
    note(of.sequence, metadata);
    next = std::max(next.value_or(0), of.sequence + 1);
  });
  if (auto sought = seek_back(**reader, begin); !sought) return std::unexpected(sought.error());
  const std::int64_t deadline_ns = monotonic_ns() + bounded_time(patience).count();
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
  return Recalled{next, end->offset};
}

}  // namespace ringtail::log

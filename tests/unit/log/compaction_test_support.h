// A log of keyed records, and a model of what compaction may leave of it.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "log/compaction.h"
#include "log/transaction_outcomes.h"
#include "log/verify.h"
#include "unit/log/segment_test_support.h"

namespace ringtail::log {

// A record as it was appended; without a value it is a tombstone.
struct KeyedRecord {
  Offset offset{0};
  std::int64_t timestamp_ns = 0;
  std::optional<std::string> key;
  std::optional<std::string> value;
  format::Extension of{};  // without a producer id: it has none

  friend bool operator==(const KeyedRecord&, const KeyedRecord&) = default;
};

class CompactionTest : public SegmentTest {
 protected:
  CompactionTest() {
    config_.cleanup_policy = CleanupPolicy::compact;
    config_.min_cleanable_dirty_billionths = 0;
    config_.delete_retention_ms = 1000;
  }

  // Appends one record, and makes it durable with those before it where a run ends.
  void append(std::optional<std::string> key, std::optional<std::string> value,
              const format::Extension& of = {}) {
    const KeyedRecord record{ring_.next_offset(), 1000 + static_cast<std::int64_t>(appended_.size()),
                             std::move(key), std::move(value), of};
    ring_.add_keyed(record.timestamp_ns, record.key, record.value, of);
    appended_.push_back(record);
    if (++unflushed_ < 20) return;
    unflushed_ = 0;
    flush(ring_);
  }
  // Records of keys that no other has, until another segment has begun.
  void fill_segment() {
    if (writer_->segments().empty()) append(std::nullopt, "first");
    flush(ring_);
    const std::size_t before = writer_->segments().size();
    while (writer_->segments().size() == before) {
      append("filler " + std::to_string(appended_.size()), std::string(10'000, 'f'));
      if (HasFatalFailure()) return;
    }
  }
  void reopen() {
    if (writer_) flush(ring_);
    open_writer(ring_);
  }

  std::optional<CompactionJob> plan() {
    auto job = plan_compaction(writer_->segments(), load_first_dirty(dir()), config_, now_ns_);
    if (!job) return job;
    job->dir = dir();
    job->identity = kTestIdentity;
    return job;
  }
  // A round as the keeper makes it.
  void compact_now() {
    flush(ring_);
    const auto job = plan();
    ASSERT_TRUE(job);
    const CompactionOutcome outcome = compact(*backend_, *job);
    ASSERT_FALSE(outcome.failure) << outcome.failure->message;
    finish(*job, outcome);
  }
  void finish(const CompactionJob& job, const CompactionOutcome& outcome) {
    ASSERT_TRUE(store_first_dirty(dir(), outcome.first_dirty));
    writer_->replace_finished(job.segments.size(), outcome.segments);
    outcome_ = outcome;
  }

  // All records that a reader gives from `from` on.
  std::vector<KeyedRecord> read_all(Offset from = Offset(0)) {
    auto reader = SegmentReader::open(dir(), kTestIdentity, {.read_ahead_bytes = 64 * 1024});
    EXPECT_TRUE(reader);
    const auto start = (*reader)->locate(from, ring_.end());
    EXPECT_TRUE(start) << start.error().message;
    std::vector<KeyedRecord> records;
    markers_ = {};
    if (start) read_on(**reader, *start, from, records);
    return records;
  }
  // Reads as a consumer does, which knows position and offset of what comes next.
  void read_on(SegmentReader& reader, Position at, Offset next, std::vector<KeyedRecord>& records) {
    while (at < ring_.end()) {
      if (!read_some(reader, at, next, records)) return;
    }
    EXPECT_EQ(at, ring_.end());
  }
  bool read_some(SegmentReader& reader, Position& at, Offset& next, std::vector<KeyedRecord>& records) {
    const auto frames = reader.read(at, ring_.end(), next);
    EXPECT_TRUE(frames) << frames.error().message;
    if (!frames) return false;
    at = frames->position;
    for (std::size_t i = 0; i < frames->bytes.size();) {
      const std::byte* const frame = frames->bytes.data() + i;
      const auto header = format::load_header(frame);
      if (header.type == format::FrameType::data && header.offset >= next.value())
        records.push_back(record_at(frame));
      if (header.type == format::FrameType::control)
        markers_.add(format::marker_kind(frame), *format::extension_of(frame), Offset(header.offset));
      next = std::max(next, Offset(header.offset + format::frame_records(header)));
      i += format::align_frame(static_cast<std::uint32_t>(header.length));
    }
    at += frames->bytes.size();
    return true;
  }

  // What the last round was to leave: the latest record of each key, and all that have none; behind it,
  // everything. Tombstones of `dropped` keys are gone.
  std::vector<KeyedRecord> latest(const std::set<std::string>& dropped = {}) const {
    std::map<std::string, Offset> last;
    for (const KeyedRecord& record : appended_)
      if (record.key && record.offset < outcome_.first_dirty) last[*record.key] = record.offset;
    std::vector<KeyedRecord> records;
    for (const KeyedRecord& record : appended_) {
      const bool settled = record.key && record.offset < outcome_.first_dirty;
      if (settled && last.at(*record.key) != record.offset) continue;
      if (settled && !record.value && dropped.contains(*record.key)) continue;
      records.push_back(record);
    }
    return records;
  }
  std::vector<KeyedRecord> latest_from(Offset from) const {
    std::vector<KeyedRecord> records = latest();
    std::erase_if(records, [&](const KeyedRecord& record) { return record.offset < from; });
    return records;
  }

  void expect_sound() {
    const auto verified = verify_partition(dir(), {.identity = kTestIdentity});
    ASSERT_TRUE(verified) << verified.error().message;
    for (const VerifyFault& fault : verified->faults) ADD_FAILURE() << fault.path << ": " << fault.message;
  }

  FakeRing ring_{8 << 20};
  std::vector<KeyedRecord> appended_;
  TransactionOutcomes markers_;  // that the last read_all met
  CompactionOutcome outcome_;
  std::int64_t now_ns_ = 1'000'000'000'000;

 private:
  static KeyedRecord record_at(const std::byte* frame) {
    const Record record = format::decode_record(frame, nullptr);
    KeyedRecord result{record.offset, record.timestamp_ns, {}, {}, {}};
    result.of = format::extension_of(frame).value_or(format::Extension{});
    if (record.key.data() != nullptr) result.key = std::string(record.key);
    if (record.value.data() != nullptr) result.value = std::string(record.value);
    return result;
  }

  int unflushed_ = 0;
};

}  // namespace ringtail::log

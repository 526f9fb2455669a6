// What the tests of rings share: a log's shared memory without a keeper, producers that stop between any
// two instructions, and a look at the frames that came of it.
#pragma once

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/clock.h"
#include "base/topic_config.h"
#include "log/appender.h"
#include "log/partition_ref.h"
#include "log/ring.h"
#include "log/ring_keeper.h"
#include "shm/byte_lock.h"
#include "shm/slots.h"
#include "unit/shm/shm_test_support.h"

namespace ringtail::log {

inline constexpr std::uint64_t kTestTerm = 64 << 10;
inline constexpr std::uint32_t kEighth = kTestTerm / 8;
inline constexpr std::array<std::uint64_t, 2> kTestLogId{0x0123456789abcdef, 0xfedcba9876543210};

// One frame as a reader would find it.
struct SeenFrame {
  std::uint64_t at;  // within its term
  format::FrameType type;
  std::uint32_t extent;
  std::uint64_t offset;
  std::uint64_t records;

  friend bool operator==(const SeenFrame&, const SeenFrame&) = default;
  friend std::ostream& operator<<(std::ostream& out, const SeenFrame& f) {
    static constexpr const char* kNames[] = {"none", "data", "pad", "aborted", "control", "compressed"};
    return out << '{' << f.at << ' ' << kNames[static_cast<std::size_t>(f.type)] << " extent " << f.extent
               << " offset " << f.offset << " records " << f.records << '}';
  }
};

inline SeenFrame data_at(std::uint64_t at, std::uint32_t extent, std::uint64_t offset) {
  return {at, format::FrameType::data, extent, offset, 1};
}
inline SeenFrame aborted_at(std::uint64_t at, std::uint32_t extent, std::uint64_t offset,
                            std::uint64_t records) {
  return {at, format::FrameType::aborted, extent, offset, records};
}
inline SeenFrame pad_at(std::uint64_t at, std::uint32_t extent, std::uint64_t offset) {
  return {at, format::FrameType::pad, extent, offset, 0};
}

// The resolved frames of a term from its start, up to the first that is not.
inline std::vector<SeenFrame> frames_of(const Ring& ring, std::uint64_t term) {
  std::vector<SeenFrame> frames;
  for (std::uint64_t at = 0; at < ring.term_bytes();) {
    const std::byte* frame = ring.term_data(term) + at;
    const std::uint64_t word = format::load_state_word(frame, std::memory_order_acquire);
    if (!format::word_is_resolved(word)) break;
    const format::FrameHeader header = format::load_header(frame);
    frames.push_back({at, format::word_type(word), format::word_extent(word), header.offset,
                      format::frame_records(header)});
    at += format::word_extent(word);
  }
  return frames;
}

class RingScene : public ::testing::Test {
 protected:
  RingScene()
      : control_(shm::Control::open_or_create(dir_.path(), kTestLogId, dir_.path()).value()),
        locks_(shm::ByteLockFile::open(dir_ / "slots.lock").value()),
        monitor_(control_, locks_) {
    ref_ = {.control = &control_,
            .index = 0,
            .topic_id = 7,
            .log_id = kTestLogId,
            .topic = "topic",
            .partition = PartitionId(0),
            .shm_dir = dir_.path(),
            .disk_dir = dir_ / "disk"};
    shm::Partition& e = entry();
    e.topic_id.store(ref_.topic_id);
    e.max_message_bytes.store(kTestTerm / 8);
    e.min_insync_replicas.store(1);
    e.claim_timeout_ms.store(10'000);
    e.storage.store(static_cast<std::uint8_t>(Storage::memory));
    e.high_watermark.store(shm::kNoWatermark);
    e.state.store(static_cast<std::uint32_t>(shm::PartitionState::active));
  }

  shm::Partition& entry() { return ref_.entry(); }

  // Makes and publishes the partition's ring, of small terms.
  Ring make_ring(std::uint32_t terms = 4, Position base = Position(0), Offset offset = Offset(0),
                 std::uint64_t generation = 1) {
    auto ring = Ring::create(ring_path(dir_.path(), ref_.topic, ref_.partition), {.log_id = kTestLogId,
                                                                                  .topic_id = ref_.topic_id,
                                                                                  .term_bytes = kTestTerm,
                                                                                  .term_count = terms,
                                                                                  .generation = generation});
    ring->set_base(base, offset, 0);
    EXPECT_TRUE(ring->publish_replacing());
    entry().ring_generation.store(generation);
    return std::move(*ring);
  }
  // Another mapping of it.
  Ring open_ring() { return Ring::open(ring_path(dir_.path(), ref_.topic, ref_.partition), false).value(); }
  RingKeeper keeper_of(Ring ring) {
    const Position first = ring.first_position();
    const Offset offset(ring.header().first_offset);
    return {std::move(ring), control_, ref_.index, first, offset};
  }

  shm::OwnedSlot new_slot() {
    return shm::OwnedSlot::acquire(control_, locks_, shm::SlotRole::producer).value();
  }

  struct Producer {
    shm::OwnedSlot slot;
    WallClock clock;
    std::optional<Appender> appender;

    Appender* operator->() { return &*appender; }
  };
  std::unique_ptr<Producer> new_producer(
      std::chrono::milliseconds max_block = std::chrono::milliseconds(10'000)) {
    auto producer = std::make_unique<Producer>();
    producer->slot = new_slot();
    producer->appender = Appender::open(ref_, producer->slot, producer->clock, max_block).value();
    return producer;
  }

  static Record record_at(const Ring& ring, std::uint64_t at) {
    return format::decode_record(ring.data() + at, nullptr);
  }
  // Of a record that takes an eighth of a term.
  static std::string_view value_of_eighth() {
    static const std::string value(kEighth - format::kFrameHeaderBytes, 'e');
    return value;
  }

  void set_on_full(OnFull on_full) { entry().on_full.store(static_cast<std::uint8_t>(on_full)); }

  shm::TempDir dir_;
  shm::Control control_;
  shm::ByteLockFile locks_;
  shm::SlotMonitor monitor_;
  PartitionRef ref_;
};

// An append taken apart: each member is one step of it. It dies with the object, wherever it is.
class HandClaim {
 public:
  HandClaim(const Ring& ring, shm::OwnedSlot slot, std::uint32_t bytes, std::uint32_t records = 1)
      : ring_(&ring), slot_(std::move(slot)), bytes_(bytes) {
    slot_.announce(shm::Phase::claiming, 0);
    const std::uint64_t term = ring.header().active_term.load();
    tail_ = ring.line(term).tail.fetch_add(make_tail(0, records, bytes));
    term_ = term;
    frame_ = ring.term_data(term) + tail_bytes(tail_);
    offset_ = ring.line(term).base_offset.load() + tail_records(tail_);
  }

  bool tripped() const { return tail_bytes(tail_) + bytes_ > ring_->usable_term_bytes(); }
  HandClaim& publish_end() {
    EXPECT_TRUE(ring_->publish_end(term_, tail_));
    return *this;
  }
  HandClaim& write_length() {
    std::atomic_ref<std::int32_t>(*reinterpret_cast<std::int32_t*>(frame_))
        .store(-static_cast<std::int32_t>(bytes_));
    return *this;
  }
  HandClaim& write_header(std::uint32_t key_length = 0) {
    write_length();
    const std::uint64_t rest[3] = {offset_, 1000 + offset_,
                                   std::uint64_t{key_length} | std::uint64_t{slot_.owner()} << 32};
    std::memcpy(frame_ + 8, rest, sizeof rest);
    return *this;
  }
  HandClaim& write_body() {
    std::memset(frame_ + format::kFrameHeaderBytes, 'x', bytes_ - format::kFrameHeaderBytes);
    return *this;
  }
  // Like try_claim: the header stands, the owner takes his time.
  HandClaim& open() {
    write_header();
    slot_.announce_open(0, ring_->term_start(term_).value() + tail_bytes(tail_));
    return *this;
  }
  bool commit() {
    write_body();
    std::uint64_t expected = format::claimed_word(bytes_);
    const bool committed = format::state_word(frame_).compare_exchange_strong(
        expected, format::committed_word(bytes_, format::FrameType::data, 0));
    return committed;
  }
  HandClaim& finish() {
    slot_.finish();
    return *this;
  }

  std::byte* frame() const { return frame_; }
  std::uint64_t offset() const { return offset_; }
  std::uint64_t tail() const { return tail_; }
  shm::OwnedSlot& slot() { return slot_; }

 private:
  const Ring* ring_;
  shm::OwnedSlot slot_;
  std::uint32_t bytes_;
  std::uint64_t term_ = 0;
  std::uint64_t tail_ = 0;
  std::byte* frame_ = nullptr;
  std::uint64_t offset_ = 0;
};

}  // namespace ringtail::log

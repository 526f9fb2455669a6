// A ring as its processes leave it when all of them are killed, and a control segment with something in every
// field.
#include <gtest/gtest.h>

#include <cstring>

#include "control_fields.h"
#include "golden.h"
#include "log/appender.h"
#include "log/ring.h"
#include "shm/byte_lock.h"
#include "shm/slots.h"
#include "tape.h"
#include "unit/base/scratch_dir.h"
#include "unit/shm/shm_test_support.h"

namespace ringtail::golden {

namespace {

constexpr std::array<std::uint64_t, 2> kBoot{0x0b007, 0x1d};

void write_control(const std::filesystem::path& dir) {
  const auto control = shm::Control::open_or_create(dir, kLogId, "/some/log");
  ASSERT_TRUE(control) << to_string(control.error());
  control->header().boot_id = kBoot;
  const auto number = [](const char*, auto& field, std::uint64_t value) {
    field.store(static_cast<std::remove_reference_t<decltype(field.load())>>(value));
  };
  const auto text = [](const char*, auto& field, const char* value) { field.store(value); };
  ControlFields(*control, number, text).visit();
}

// Claims a record, writes its header, and goes no further. Its owner is in no slot that anybody has.
void leave_claim(const log::Ring& ring) {
  constexpr std::uint32_t kBytes = 64;
  const std::uint64_t tail = ring.line(0).tail.fetch_add(log::make_tail(0, 1, kBytes));
  std::byte* const frame = ring.term_data(0) + log::tail_bytes(tail);
  const format::FrameHeader header{.length = -static_cast<std::int32_t>(kBytes),
                                   .type = format::FrameType::none,
                                   .attributes = 0,
                                   .reserved = 0,
                                   .offset = ring.line(0).base_offset.load() + log::tail_records(tail),
                                   .timestamp_ns = kTime,
                                   .key_length = 0,
                                   .crc32c = shm::frame_owner(500, 77)};
  std::memcpy(frame, &header, sizeof header);
}

void write_ring(const std::filesystem::path& dir) {
  const auto control = shm::Control::open_or_create(dir, kLogId, "/some/log");
  ASSERT_TRUE(control) << to_string(control.error());
  auto locks = shm::ByteLockFile::open(dir / "slots.lock");
  ASSERT_TRUE(locks) << to_string(locks.error());
  const log::PartitionRef ref{.control = &*control,
                              .index = 0,
                              .topic_id = kTicks.id,
                              .log_id = kLogId,
                              .topic = std::string(kTicks.name),
                              .partition = PartitionId(0),
                              .shm_dir = dir,
                              .disk_dir = dir};
  shm::Partition& entry = ref.entry();
  entry.topic_id.store(kTicks.id);
  entry.max_message_bytes.store(8192);
  entry.min_insync_replicas.store(1);
  entry.claim_timeout_ms.store(10'000);
  entry.high_watermark.store(shm::kNoWatermark);
  entry.ring_generation.store(1);
  entry.state.store(static_cast<std::uint32_t>(shm::PartitionState::active));
  auto ring =
      log::Ring::create(log::ring_path(dir, kTicks.name, PartitionId(0)), {.log_id = kLogId,
                                                                           .topic_id = kTicks.id,
                                                                           .partition = PartitionId(0),
                                                                           .term_bytes = 64 << 10,
                                                                           .term_count = 4,
                                                                           .generation = 1});
  ASSERT_TRUE(ring) << to_string(ring.error());
  ASSERT_TRUE(ring->publish_new());

  auto slot = shm::OwnedSlot::acquire(*control, *locks, shm::SlotRole::producer);
  ASSERT_TRUE(slot) << to_string(slot.error());
  WallClock clock;
  auto appender = log::Appender::open(ref, *slot, clock, std::chrono::milliseconds(0));
  ASSERT_TRUE(appender) << to_string(appender.error());
  const std::array headers{Header{"h", "v"}};
  ASSERT_TRUE(appender->append({.value = "first", .timestamp_ns = time_of(0)}));
  ASSERT_TRUE(appender->append({.key = "k", .value = "second", .timestamp_ns = time_of(1)}));
  leave_claim(*ring);
  ASSERT_TRUE(appender->append({.value = "behind the hole", .timestamp_ns = time_of(3)}));
  const auto given_up = appender->claim({}, 16);
  ASSERT_TRUE(given_up);
  appender->abort(*given_up);
  ASSERT_TRUE(appender->append({.value = "last", .headers = headers, .timestamp_ns = time_of(5)}));
}

}  // namespace

void write_shared_memory(Tree& tree) {
  const shm::TempDir control;
  write_control(control.path());
  tree["shm/control"] = testing::get_file(control / "control");
  const shm::TempDir ring;
  write_ring(ring.path());
  tree["shm/ticks-0.ring"] = testing::get_file(ring / "ticks-0.ring");
}

}  // namespace ringtail::golden

#include "regression/hand_keeper.h"

#include <fmt/format.h>

#include <chrono>
#include <thread>

#include "log/io_operation.h"
#include "support/temporary_log.h"

namespace ringtail::bench {
namespace {

constexpr std::array<std::uint64_t, 2> kLogId{1, 1};
constexpr std::chrono::seconds kMaxBlock{10};
constexpr std::int64_t kRoundNs = 1'000'000;

std::filesystem::path make(const std::filesystem::path& dir) {
  std::filesystem::create_directories(dir / "disk");
  return dir;
}

TopicConfig config() {
  TopicConfig config;
  config.term_bytes = 1 << 20;
  config.max_message_bytes = config.term_bytes / 8;
  config.segment_bytes = 16 << 20;
  config.flush_interval_ms = 1;
  return config;
}

std::unique_ptr<io::Backend> backend() { return value_or_die(io::make_backend(IoBackend::pwrite, 16)); }

}  // namespace

HandKeeper::HandKeeper(const std::filesystem::path& dir)
    : control_(value_or_die(shm::Control::open_or_create(make(dir), kLogId, dir))),
      locks_(value_or_die(shm::ByteLockFile::open(dir / "slots.lock"))),
      monitor_(control_, locks_),
      ref_{.control = &control_,
           .index = 0,
           .topic_id = 1,
           .log_id = kLogId,
           .topic = "topic",
           .partition = PartitionId(0),
           .shm_dir = dir,
           .disk_dir = dir / "disk"},
      backend_(backend()),
      workshop_(backend()),
      cleaner_(backend()) {
  shm::Partition& entry = ref_.entry();
  entry.topic_id.store(ref_.topic_id);
  entry.high_watermark.store(shm::kNoWatermark);
  entry.state.store(static_cast<std::uint32_t>(shm::PartitionState::opening));
  keeper_ = log::PartitionKeeper::open({&control_, &monitor_, backend_.get(), &workshop_, &cleaner_}, ref_,
                                       config());
  slot_ = value_or_die(shm::OwnedSlot::acquire(control_, locks_, shm::SlotRole::producer));
  appender_.emplace(value_or_die(log::Appender::open(ref_, slot_, clock_, kMaxBlock)));
}

Position HandKeeper::append(std::string_view value, std::size_t count) {
  Position end{0};
  for (std::size_t i = 0; i < count; ++i) {
    auto sent = appender_->append({.value = value});
    if (!sent) die(appender_->describe(sent.error()));
    end = sent->end;
  }
  return end;
}

void HandKeeper::turn() {
  log::reap_and_dispatch(*backend_, false);
  workshop_.deliver();
  cleaner_.deliver();
  now_ns_ += kRoundNs;
  keeper_->tick(now_ns_);
}

void HandKeeper::warm_up(Position end) {
  // The next segment is prepared on another thread, when the first has begun.
  for (int rounds = 0; rounds < 50 || durable() < end; ++rounds) {
    turn();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

}  // namespace ringtail::bench

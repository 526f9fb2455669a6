// A host with one replicated partition, and the way of frames from one such host to another, without a network.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/logger.h"
#include "log/attachment.h"
#include "log/partition_keeper.h"
#include "log/partition_reader.h"
#include "support/faulty_backend.h"
#include "unit/log/ring_test_support.h"

namespace ringtail::log {

using shm::ReplicaRole;

class ReplicaHost {
 public:
  explicit ReplicaHost(Storage storage = Storage::disk)
      : control_(shm::Control::open_or_create(dir_.path(), kTestLogId, dir_.path()).value()),
        locks_(shm::ByteLockFile::open(dir_ / "slots.lock").value()),
        monitor_(control_, locks_),
        backend_(new_disk(16)),
        workshop_(new_disk(4)),
        cleaner_(io::make_backend(IoBackend::pwrite, 4).value()),
        ref_{.control = &control_,
             .index = 0,
             .topic_id = 7,
             .log_id = kTestLogId,
             .topic = "topic",
             .partition = PartitionId(0),
             .shm_dir = dir_.path(),
             .disk_dir = dir_ / "disk"} {
    logger().set_level(spdlog::level::off);
    std::filesystem::create_directories(ref_.disk_dir);
    config_.storage = storage;
    config_.term_bytes = kTestTerm;
    config_.ring_terms = 4;
    config_.max_message_bytes = kTestTerm / 8;
    config_.segment_bytes = 1 << 20;
    config_.flush_interval_ms = 1;
    config_.index_interval_bytes = 4 << 10;
    config_.retention_ms = -1;
    config_.reader_pin_ms = 1;
    entry().topic_id.store(ref_.topic_id);
    forget_entry();
    open();
  }

  shm::Partition& entry() { return ref_.entry(); }
  const PartitionRef& ref() const { return ref_; }
  TopicConfig& config() { return config_; }

  void open() {
    entry().state.store(static_cast<std::uint32_t>(shm::PartitionState::opening));
    keeper_ = PartitionKeeper::open(
        {.control = &control_,
         .slots = &monitor_,
         .backend = backend_.get(),
         .workshop = &workshop_,
         .cleaner = &cleaner_,
         .on_progress = [this](std::uint32_t) { told_generation_ = entry().ring_generation.load(); }},
        ref_, config_, true);
  }
  // The keeper's process dies; another one takes over.
  void restart_keeper() {
    keeper_.reset();
    outcome_ = {};
    open();
  }
  // The host crashes: what was in memory is gone.
  void reboot() {
    keeper_.reset();
    outcome_ = {};
    for (const auto& file : std::filesystem::directory_iterator(dir_.path()))
      if (file.path().filename().string().find(".ring") != std::string::npos)
        std::filesystem::remove(file.path());
    forget_entry();
    open();
  }

  void turn() {
    reap_and_dispatch(*backend_, false);
    workshop_.deliver();
    cleaner_.deliver();
    for (const std::uint32_t slot : monitor_.find_deaths()) keeper_->on_slot_dead(slot);
    keeper_->tick(monotonic_ns());
  }
  void turn_until(const std::function<bool()>& reached) {
    while (!reached()) {
      turn();
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
  }

  RoleOutcome take(RoleRequest request) {
    std::optional<Result<RoleOutcome>> result;
    request.done = [&](Result<RoleOutcome> outcome) { result = std::move(outcome); };
    keeper_->request_role(std::move(request));
    turn_until([&] { return result.has_value(); });
    EXPECT_TRUE(*result) << (*result ? "" : to_string(result->error()));
    return outcome_ = *result ? std::move(**result) : RoleOutcome{};
  }
  RoleOutcome lead(std::uint32_t epoch) {
    return take({.role = ReplicaRole::leader,
                 .epoch = LeaderEpoch(epoch),
                 .leader_node = 1,
                 .lease_deadline_ns = boottime_ns() + 3'600'000'000'000});
  }
  RoleOutcome fence() { return take({.role = ReplicaRole::fenced}); }
  // Follows `leader`, which leads in `epoch`, from the last place that both have.
  RoleOutcome follow(ReplicaHost& leader, std::uint32_t epoch) { return take(to_follow(leader, epoch)); }
  RoleRequest to_follow(ReplicaHost& leader, std::uint32_t epoch) {
    const RoleOutcome mine = fence();
    const RoleOutcome& theirs = leader.outcome_;
    const LogPoint their_end = leader.end();
    LogPoint from = common_end(theirs.epochs, their_end, mine.epochs, mine.end);
    // What has left the ring of a memory topic is nowhere: then this log begins where that one does.
    const Ring ring = Ring::open(ring_path(leader.ref_.shm_dir, "topic", PartitionId(0)), true).value();
    const Position head(ring.header().head.load());
    const bool restart = config_.storage == Storage::memory && from.position < head;
    if (restart) from = {head, *ring.offset_at(head)};
    return {.role = ReplicaRole::follower,
            .epoch = LeaderEpoch(epoch),
            .leader_node = 1,
            .epochs = theirs.epochs,
            .cut = from,
            .restart = restart};
  }
  // Everything that `leader` has and this host has not, in pieces of about `bytes`.
  void fetch_from(ReplicaHost& leader, std::size_t bytes = 8 << 10) {
    auto from = PartitionReader::open_for_shipping(leader.ref(), 401, 256 << 10, outcome_.writer->end());
    ASSERT_TRUE(from) << to_string(from.error());
    const LeaderEpoch epoch(entry().leader_epoch.load());
    for (;;) {
      leader.turn();
      auto frames = (*from)->poll_frames(bytes, true);
      ASSERT_TRUE(frames) << to_string(frames.error());
      if (frames->bytes.empty() && outcome_.writer->end().position >= leader.end().position) break;
      auto rest = frames->bytes;
      for (Position at = frames->at.position; !rest.empty();) {
        auto taken = outcome_.writer->append(epoch, at, rest);
        ASSERT_TRUE(taken) << to_string(taken.error());
        at += *taken;
        rest = rest.subspan(*taken);
        turn();
      }
      ASSERT_EQ(outcome_.writer->end(), frames->end);
    }
  }
  Ring ring() { return Ring::open(ring_path(ref_.shm_dir, ref_.topic, ref_.partition), false).value(); }
  LogPoint end() {
    const auto ring = Ring::open(ring_path(ref_.shm_dir, ref_.topic, ref_.partition), true);
    const Ring::End end = ring->claimed_end();
    return {end.position, end.offset};
  }
  void set_watermark(const LogPoint& at) {
    shm::set_high_watermark(entry(), at.position.value(), at.offset.value());
  }

  struct Producer {
    shm::OwnedSlot slot;
    WallClock clock;
    std::optional<Appender> appender;
    Appender* operator->() { return &*appender; }
  };
  std::unique_ptr<Producer> new_producer(std::chrono::milliseconds max_block = std::chrono::milliseconds(1),
                                         bool exclusive = false) {
    auto producer = std::make_unique<Producer>();
    producer->slot = shm::OwnedSlot::acquire(control_, locks_, shm::SlotRole::producer).value();
    producer->appender = Appender::open(ref_, producer->slot, producer->clock, max_block, exclusive).value();
    return producer;
  }
  // Appends `count` records with values of their own, while the keeper makes its rounds.
  void append(Producer& producer, const std::string& prefix, std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) {
      std::string value = prefix + std::to_string(i) + ' ';
      value.append(i * 37 % 700, static_cast<char>('a' + i % 26));
      for (;;) {
        auto sent = producer->append({.value = value});
        if (sent) break;
        ASSERT_EQ(sent.error(), SendError::timed_out);
        turn();
      }
      if (i % 16 == 0) turn();
    }
  }
  std::unique_ptr<PartitionReader> new_reader() {
    auto reader = PartitionReader::open(ref_, 400, 256 << 10);
    EXPECT_TRUE(reader) << reader.error().message;
    return std::move(*reader);
  }
  // What a reader finds up to the high watermark.
  std::vector<std::pair<std::uint64_t, std::string>> records() { return records_of(*new_reader()); }
  std::vector<std::pair<std::uint64_t, std::string>> records_of(PartitionReader& reader) {
    std::vector<std::pair<std::uint64_t, std::string>> all;
    std::array<Record, 64> some;
    for (int empty = 0; empty < 3;) {
      auto polled = reader.poll(some);
      EXPECT_TRUE(polled) << to_string(polled.error());
      if (!polled) break;
      for (const Record& r : std::span(some).first(*polled)) all.emplace_back(r.offset.value(), r.value);
      empty = *polled == 0 ? empty + 1 : 0;
      if (*polled == 0) turn();
    }
    return all;
  }
  // Whether the partition refuses to work; says why.
  bool failed() {
    const auto failure = Attachment::failure_of(entry());
    if (failure) ADD_FAILURE() << to_string(*failure);
    return failure.has_value();
  }
  void turn_until_durable() {
    turn_until([&] { return failed() || entry().durable_position.load() >= end().position.value(); });
    ASSERT_FALSE(failed());
  }
  // No file can be given more room.
  void set_disk_full(bool full) {
    for (testing::FaultyBackend* disk : disks_) disk->set_disk_full(full);
  }
  // Of the ring, when the replicator was last told of progress.
  std::uint64_t told_generation() const { return told_generation_; }
  RoleOutcome& outcome() { return outcome_; }
  PartitionKeeper& keeper() { return *keeper_; }

 private:
  std::unique_ptr<io::Backend> new_disk(unsigned depth) {
    auto disk = std::make_unique<testing::FaultyBackend>(io::make_backend(IoBackend::pwrite, depth).value());
    disks_.push_back(disk.get());
    return disk;
  }
  void forget_entry() {
    entry().high_watermark.store(shm::kNoWatermark);
    entry().role.store(0);
    entry().leader_epoch.store(0);
    entry().ring_generation.store(0);
    entry().durable_position.store(0);
    entry().durable_offset.store(0);
  }

  shm::TempDir dir_;
  shm::Control control_;
  shm::ByteLockFile locks_;
  shm::SlotMonitor monitor_;
  std::vector<testing::FaultyBackend*> disks_;
  std::unique_ptr<io::Backend> backend_;
  Workshop workshop_;
  Workshop cleaner_;
  PartitionRef ref_;
  TopicConfig config_;
  RoleOutcome outcome_;
  std::uint64_t told_generation_ = 0;
  std::unique_ptr<PartitionKeeper> keeper_;
};

// Two hosts with the same partition, of either storage.
class ReplicaPairTest : public ::testing::TestWithParam<Storage> {
 protected:
  ReplicaPairTest() : a_(GetParam()), b_(GetParam()) {}
  // b has all that a has, and may be read to its end.
  void expect_same(ReplicaHost& a, ReplicaHost& b) {
    ASSERT_EQ(a.end(), b.end());
    a.set_watermark(a.end());
    b.set_watermark(b.end());
    const auto of_a = a.records();
    const auto of_b = b.records();
    ASSERT_FALSE(a.failed());
    ASSERT_FALSE(b.failed());
    // A memory topic's readers may begin later in one ring than in the other.
    const std::size_t common = std::min(of_a.size(), of_b.size());
    if (GetParam() == Storage::disk) {
      ASSERT_EQ(of_a.size(), of_b.size());
    }
    ASSERT_TRUE(std::equal(of_a.end() - static_cast<std::ptrdiff_t>(common), of_a.end(),
                           of_b.end() - static_cast<std::ptrdiff_t>(common)));
  }
  void follow_and_expect_same(ReplicaHost& follower, ReplicaHost& leader, std::uint32_t epoch) {
    follower.follow(leader, epoch);
    follower.fetch_from(leader);
    expect_same(leader, follower);
  }

  ReplicaHost a_;
  ReplicaHost b_;
};
inline std::string storage_name(const ::testing::TestParamInfo<Storage>& info) {
  return info.param == Storage::disk ? "Disk" : "Memory";
}

}  // namespace ringtail::log

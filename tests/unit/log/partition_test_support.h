// A partition with its keeper, turned by hand: one round at a time, and dead whenever a test wants it.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/logger.h"
#include "io/backend.h"
#include "log/io_operation.h"
#include "log/partition_keeper.h"
#include "log/partition_reader.h"
#include "unit/log/ring_test_support.h"

namespace ringtail::log {

class PartitionScene : public RingScene {
 protected:
  PartitionScene() {
    logger().set_level(spdlog::level::off);  // tests look at what happens, not at what is said
    std::filesystem::create_directories(ref_.disk_dir);
    entry().state.store(static_cast<std::uint32_t>(shm::PartitionState::opening));
    config_.term_bytes = kTestTerm;
    config_.ring_terms = 4;
    config_.max_message_bytes = kTestTerm / 8;
    config_.segment_bytes = 1 << 20;
    config_.flush_interval_ms = 1;
    config_.index_interval_bytes = 4 << 10;
    config_.retention_ms = -1;
    backend_ = io::make_backend(IoBackend::pwrite, 16).value();
    workshop_ = std::make_unique<Workshop>(io::make_backend(IoBackend::pwrite, 4).value());
    cleaner_ = std::make_unique<Workshop>(io::make_backend(IoBackend::pwrite, 4).value());
  }
  ~PartitionScene() override { kill_keeper(); }

  void open_keeper() {
    context_ = {&control_, &monitor_, backend_.get(), workshop_.get(), cleaner_.get()};
    keeper_ = PartitionKeeper::open(context_, ref_, config_);
  }
  // As a process that was killed: nothing is flushed, nothing said.
  void kill_keeper() { keeper_.reset(); }

  // One round, as Keeper makes it.
  void turn() {
    reap_and_dispatch(*backend_, false);
    workshop_->deliver();
    cleaner_->deliver();
    for (const std::uint32_t slot : monitor_.find_deaths()) keeper_->on_slot_dead(slot);
    keeper_->tick(monotonic_ns());
  }
  // Rounds until `reached`; a test that waits in vain is ended by ctest.
  void turn_until(const std::function<bool()>& reached) {
    while (!reached()) {
      turn();
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }
  bool failed() { return entry().state.load() == static_cast<std::uint32_t>(shm::PartitionState::failed); }
  void turn_until_durable(Offset offset) {
    turn_until([&] { return failed() || entry().durable_offset.load() >= offset.value(); });
    ASSERT_FALSE(failed());
  }
  std::uint64_t generation() { return entry().ring_generation.load(); }

  std::unique_ptr<PartitionReader> new_reader() {
    auto reader = PartitionReader::open(ref_, 400, 256 << 10);
    EXPECT_TRUE(reader) << reader.error().message;
    return std::move(*reader);
  }

  // A value that tells its record's number, of a size that depends on it.
  static std::string value_of(std::uint64_t number) {
    std::string value = std::to_string(number) + ' ';
    value.append(number * 37 % 300, static_cast<char>('a' + number % 26));
    return value;
  }
  // Appends `count` such records; each is numbered by its offset.
  void append(Producer& producer, std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::uint64_t next = next_number_++;
      const auto sent = producer->append({.value = value_of(next), .timestamp_ns = time_of(next)});
      ASSERT_TRUE(sent) << static_cast<int>(sent.error());
      numbers_.emplace_back(sent->offset, next);
    }
  }
  // The same on a thread of its own, while the keeper makes its rounds.
  void append_while_turning(Producer& producer, std::uint64_t count) {
    std::atomic<bool> done{false};
    std::thread appending([&] {
      append(producer, count);
      done.store(true);
    });
    turn_until([&] { return done.load(); });
    appending.join();
  }
  static std::int64_t time_of(std::uint64_t number) {
    return 1'000'000 + static_cast<std::int64_t>(number) * 10;
  }

  // Polls `reader` until it has given all records that were appended from `from` on, each once, in order.
  void expect_rest(PartitionReader& reader, Offset from) {
    std::vector<Record> records(64);
    auto expected = std::lower_bound(numbers_.begin(), numbers_.end(), from,
                                     [](const auto& item, Offset offset) { return item.first < offset; });
    while (expected != numbers_.end()) {
      auto polled = reader.poll(records);
      ASSERT_TRUE(polled) << polled.error().message;
      if (*polled == 0) turn();
      for (const Record& record : std::span(records).first(*polled)) {
        ASSERT_NE(expected, numbers_.end());
        ASSERT_EQ(record.offset, expected->first);
        ASSERT_EQ(record.value, value_of(expected->second));
        ASSERT_EQ(record.timestamp_ns, time_of(expected->second));
        ++expected;
      }
    }
    auto polled = reader.poll(records);
    ASSERT_TRUE(polled) << polled.error().message;
    ASSERT_EQ(*polled, 0u);
  }

  TopicConfig config_;
  std::unique_ptr<io::Backend> backend_;
  std::unique_ptr<Workshop> workshop_;
  std::unique_ptr<Workshop> cleaner_;
  KeeperContext context_;
  std::unique_ptr<PartitionKeeper> keeper_;
  std::uint64_t next_number_ = 0;
  std::vector<std::pair<Offset, std::uint64_t>> numbers_;  // offset and number of what was appended
};

}  // namespace ringtail::log

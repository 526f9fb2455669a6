// A topic that one producer may have for itself, with the keeper's rounds made by the test's thread.
#pragma once

#include <future>

#include "unit/log/partition_test_support.h"

namespace ringtail::log {

class ExclusiveTest : public PartitionScene, public ::testing::WithParamInterface<Storage> {
 protected:
  void SetUp() override {
    config_.storage = GetParam();
    open_keeper();
  }
  bool is_disk() const { return config_.storage == Storage::disk; }
  Ring ring() { return open_ring(); }

  // Opens one while the keeper makes its rounds.
  std::unique_ptr<Producer> new_owner(std::chrono::milliseconds max_block = std::chrono::seconds(10)) {
    auto producer = std::make_unique<Producer>();
    producer->slot = new_slot();
    auto opening = std::async(std::launch::async, [&] {
      return Appender::open(ref_, producer->slot, producer->clock, max_block, true);
    });
    turn_until([&] { return opening.wait_for(std::chrono::seconds(0)) == std::future_status::ready; });
    auto opened = opening.get();
    EXPECT_TRUE(opened) << opened.error().message;
    if (!opened) return nullptr;
    producer->appender.emplace(std::move(*opened));
    return producer;
  }
  void release(std::unique_ptr<Producer> owner) {
    (*owner)->release_exclusive();
    turn_until([&] { return !ring().is_owned(); });
  }
  // As a process that is killed: its lock is gone, and nothing is given back.
  void kill(std::unique_ptr<Producer> owner) {
    owner.reset();
    turn_until([&] { return !ring().is_owned(); });
  }
  // While the keeper makes its rounds.
  template <class Work>
  auto meanwhile(Work work) {
    auto working = std::async(std::launch::async, work);
    turn_until([&] { return working.wait_for(std::chrono::seconds(0)) == std::future_status::ready; });
    return working.get();
  }
};

}  // namespace ringtail::log

// What the tests of RingKeeper share: a ring whose claims die, live on or are given up, and its repair.
#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "log/ring_keeper.h"
#include "unit/log/ring_test_support.h"

namespace ringtail::log {

class RingKeeperTest : public RingScene {
 protected:
  // A record of `bytes` in all, committed by somebody who goes on living.
  static void commit(const Ring& ring, shm::OwnedSlot slot, std::uint32_t bytes) {
    HandClaim claim(ring, std::move(slot), bytes);
    claim.write_header().commit();
    claim.finish();
  }
  void commit(const Ring& ring, std::uint32_t bytes) { commit(ring, new_slot(), bytes); }

  // As PartitionKeeper::on_slot_stuck.
  void give_up(const Ring& ring, std::uint32_t slot) {
    ring.header().scribbled.store(1);
    control_.slot(slot).given_up.store(control_.slot(slot).op.load());
  }

  // Repairs until done, which must not take more than two steps once nobody is waited for.
  void repair(RingKeeper& keeper) {
    for (const std::uint32_t slot : monitor_.find_deaths()) dead_.push_back(slot);
    keeper.begin_inquiry();
    auto complete = keeper.step_inquiry(monitor_);
    ASSERT_TRUE(complete) << complete.error().message;
    ASSERT_TRUE(*complete);
    for (const std::uint32_t slot : dead_) monitor_.release_dead(slot);
    dead_.clear();
  }

  std::vector<std::uint32_t> dead_;
};

}  // namespace ringtail::log

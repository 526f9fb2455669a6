// A log with its keeper and its coordinator on threads of the test, which may end and begin as they like,
// and members without consumers around them.
#pragma once

#include <pthread.h>

#include <chrono>
#include <ctime>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/clock.h"
#include "base/logger.h"
#include "base/random.h"
#include "groups/coordinator.h"
#include "groups/membership.h"
#include "groups/tenure.h"
#include "log/keeper.h"
#include "log/ring.h"
#include "unit/base/scratch_dir.h"
#include "unit/shm/shm_test_support.h"

namespace ringtail::groups {

using std::chrono::milliseconds;
using std::chrono::seconds;

class GroupsTest : public ::testing::Test {
 protected:
  GroupsTest() {
    logger().set_level(spdlog::level::off);  // tests look at what happens, not at what is said
    attach();
    start();
  }
  ~GroupsTest() override { stop(); }

  void attach() {
    auto catalog = log::Catalog::open(dir_ / "log", true).value();
    const std::string id = catalog.identity().id;
    const std::array<std::uint64_t, 2> log_id{parse_hex(id.substr(0, 16)).value(),
                                              parse_hex(id.substr(16)).value()};
    shm_dir_ = shm::make_shared_directory(shm_.path(), id, Folder::open(catalog.dir())->access()).value();
    auto control = shm::Control::open_or_create(shm_dir_, log_id, dir_ / "log").value();
    auto locks = shm::ByteLockFile::open(shm_dir_ / "slots.lock").value();
    attachment_ = std::make_unique<log::Attachment>(std::move(catalog), log::LogPlace{log_id, shm_dir_},
                                                    std::move(control), std::move(locks));
  }
  // The keeper and the coordinator. Ends as LogCore does: what is committed is on disk then.
  void start(CoordinatorOptions options = {}) {
    start_keeper();
    start_coordinator(options);
  }
  void stop() {
    stop_coordinator();
    stop_keeper();
  }
  void start_keeper() {
    keeper_.emplace(control(), attachment_->locks(), attachment_->catalog(), attachment_->place(),
                    log::KeeperOptions{.io = IoBackend::pwrite});
    keeper_thread_ = std::thread([this] { EXPECT_TRUE(keeper_->run()); });
  }
  void stop_keeper() {
    if (!keeper_) return;
    keeper_->stop();
    keeper_thread_.join();
    keeper_.reset();
  }
  void start_coordinator(CoordinatorOptions options = {}) {
    coordinator_.emplace(*attachment_, options);
    coordinator_thread_ = std::thread([this] { coordinator_->run(); });
  }
  void stop_coordinator() {
    if (!coordinator_) return;
    coordinator_->stop();
    coordinator_thread_.join();
    coordinator_.reset();
  }
  // How long the coordinator has been at work on a CPU.
  std::chrono::nanoseconds cpu_of_coordinator() {
    clockid_t clock{};
    timespec used{};
    EXPECT_EQ(::pthread_getcpuclockid(coordinator_thread_.native_handle(), &clock), 0);
    EXPECT_EQ(::clock_gettime(clock, &used), 0);
    return seconds(used.tv_sec) + std::chrono::nanoseconds(used.tv_nsec);
  }
  // As after a reboot: shared memory is empty.
  void reboot(CoordinatorOptions options = {}) {
    stop();
    attachment_.reset();
    std::filesystem::remove_all(shm_dir_);
    attach();
    start(options);
    ASSERT_TRUE(wait_until_ready(*attachment_));
  }

  const shm::Control& control() const { return attachment_->control(); }
  shm::GroupTableLayout& table() const { return control().groups(); }

  void create(const std::string& topic, std::uint32_t partitions = 1) {
    auto created = attachment_->catalog().create_topic(
        {.name = topic, .partitions = partitions, .configs = {{"term.bytes", "64KiB"}}});
    ASSERT_TRUE(created) << to_string(created.error());
    ASSERT_TRUE(attachment_->apply_catalog());
  }
  std::uint64_t topic_id(const std::string& topic) const {
    return attachment_->catalog().load_topic(topic).value().topic_id;
  }

  // A topic's first partition.
  log::PartitionRef ref(std::string_view topic) const {
    return attachment_->find_partition(attachment_->catalog().load_topic(topic).value(), PartitionId(0))
        .value();
  }
  // Its ring, as another process may write to it.
  log::Ring ring_of(std::string_view topic) const {
    const log::PartitionRef at = ref(topic);
    return log::Ring::open(log::ring_path(at.shm_dir, at.topic, at.partition), false).value();
  }

  // A slot with a membership on it.
  struct Seat {
    shm::OwnedSlot slot;
    std::unique_ptr<Membership> membership;

    Membership* operator->() const { return membership.get(); }
  };
  std::unique_ptr<Seat> sit(const std::string& group) {
    auto seat = std::make_unique<Seat>();
    seat->slot = shm::OwnedSlot::acquire(control(), attachment_->locks(), shm::SlotRole::consumer).value();
    seat->membership = Membership::open(*attachment_, seat->slot,
                                        {.group_id = group, .client_id = {}, .assignor = sticky_assignor()})
                           .value();
    return seat;
  }
  std::unique_ptr<Seat> join(const std::string& group, const std::string& topic) {
    auto seat = sit(group);
    const Status joined = (*seat)->join({.topics = {topic}, .pattern = {}});
    EXPECT_TRUE(joined) << to_string(joined.error());
    return seat;
  }
  // All look, and give up what they are to, until each holds so many.
  static void settle(const std::vector<Seat*>& seats, const std::vector<std::size_t>& counts) {
    wait([&] {
      bool settled = true;
      for (std::size_t i = 0; i < seats.size(); ++i) {
        (*seats[i])->beat();
        auto changes = (*seats[i])->look();
        EXPECT_TRUE(changes) << to_string(changes.error());
        for (Tenancy* tenancy : changes->to_give_up) (*seats[i])->release(tenancy);
        settled = settled && (*seats[i])->held().size() == counts[i];
      }
      return settled;
    });
  }
  // The test fails when it takes a minute.
  static void wait(const std::function<bool()>& done) {
    const auto give_up = std::chrono::steady_clock::now() + seconds(60);
    while (!done()) {
      ASSERT_LT(std::chrono::steady_clock::now(), give_up) << "it did not come to pass";
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
  }
  // What a group has committed, as "offset metadata"; "none".
  std::string committed(const std::string& group, const std::string& topic, std::uint32_t partition = 0) {
    auto found = find_committed(control(), group, topic_id(topic), PartitionId(partition));
    if (!found) return "none";
    return std::to_string(found->offset.value()) + (found->metadata.empty() ? "" : " " + found->metadata);
  }
  // The entry of a group's partition; its index is of no meaning.
  std::optional<std::uint32_t> entry_of(const std::string& group, std::uint64_t topic_id,
                                        std::uint32_t partition = 0) const {
    const auto index = find_group(control(), group);
    for (std::uint32_t i = 0; index && i < table().entries_used.load(); ++i) {
      const std::uint32_t word = table().assignments[i].load();
      if (word != 0 && shm::assignment_group(word) == *index &&
          table().partitions[i].topic_id.load() == topic_id &&
          table().partitions[i].partition.load() == partition)
        return i;
    }
    return std::nullopt;
  }
  Status ask(shm::GroupRequest kind, const std::string& group, const std::string& topic = {}) {
    auto slot = shm::OwnedSlot::acquire(control(), attachment_->locks(), shm::SlotRole::admin).value();
    return ask_coordinator(*attachment_, slot, kind, group, topic);
  }

  testing::ScratchDir dir_;
  shm::TempDir shm_;
  std::filesystem::path shm_dir_;
  std::unique_ptr<log::Attachment> attachment_;
  std::optional<log::Keeper> keeper_;
  std::thread keeper_thread_;
  std::optional<Coordinator> coordinator_;
  std::thread coordinator_thread_;
};

}  // namespace ringtail::groups

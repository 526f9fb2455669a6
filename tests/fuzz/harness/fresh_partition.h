// A partition that begins anew with each input, in one place: a control segment of its own for each would take
// longer than what is done with it.
#pragma once

#include <cstddef>
#include <cstring>
#include <filesystem>
#include <thread>
#include <vector>

#include "fuzz/harness/scene.h"
#include "unit/log/partition_test_support.h"

namespace ringtail::log {

class FreshPartition : public PartitionScene {
 protected:
  FreshPartition() : base_config_(config_) {
    const auto* begin = reinterpret_cast<const std::byte*>(&control_.header());
    pristine_.assign(begin, begin + kUsedControl);
  }

  // Nothing is left of what was; the keeper is for the caller to open.
  void begin_anew() {
    kill_keeper();
    finish_jobs();
    remove_rings();
    std::filesystem::remove_all(ref_.disk_dir);
    std::filesystem::create_directories(ref_.disk_dir);
    std::memcpy(static_cast<void*>(&control_.header()), pristine_.data(), pristine_.size());
    config_ = base_config_;
  }
  // Another process takes the keeper's role: of deaths that the one before had seen, it hears as well.
  void replace_keeper() {
    kill_keeper();
    open_keeper();
    for (std::uint32_t slot = 0; slot < shm::kMaxSlots; ++slot)
      if (monitor_.state(slot) == shm::SlotState::dead) keeper_->on_slot_dead(slot);
  }
  void remove_rings() {
    for (const auto& file : std::filesystem::directory_iterator(dir_.path()))
      if (file.path().filename().string().find(".ring") != std::string::npos)
        std::filesystem::remove(file.path());
  }
  // What a keeper has asked of its workshop is done and delivered: so that it does not depend on threads when.
  void finish_jobs() {
    reap_and_dispatch(*backend_, false);
    for (Workshop* workshop : {workshop_.get(), cleaner_.get()}) {
      bool done = false;
      workshop->submit([&done](io::Backend&) -> Workshop::Delivery { return [&done] { done = true; }; });
      while (!done) {
        workshop->deliver();
        std::this_thread::yield();
      }
    }
  }

 private:
  // All that one partition and few users change: up to behind its entry.
  static constexpr std::size_t kUsedControl =
      offsetof(shm::ControlLayout, partitions) + 2 * sizeof(shm::Partition);

  TopicConfig base_config_;
  std::vector<std::byte> pristine_;
};

}  // namespace ringtail::log

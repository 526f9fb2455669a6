// A control segment whose tables another process writes over: slots, readers' pins, the partition's entry and the
// header, while appenders, readers and the keeper are at work.
#include "fuzz/harness/scribble_scene.h"
#include "log/attachment.h"

namespace ringtail::log {
namespace {

class ControlFuzz final : public ScribbleScene {
  static constexpr std::uint64_t kEntries = 6;

  shm::Shared<std::uint64_t>& pick_word() override {
    static_cast<void>(Attachment::failure_of(entry()));
    switch (pick(4)) {
      case 0: return word_in(&control_.header(), sizeof(shm::ControlHeader));
      case 1: return word_in(&control_.slot(0), kEntries * sizeof(shm::Slot));
      case 2: return word_in(&control_.reader(0), kEntries * sizeof(shm::Reader));
      default: return word_in(&entry(), 2 * sizeof(shm::Partition));
    }
  }
  shm::Shared<std::uint64_t>& word_in(void* memory, std::uint64_t bytes) {
    return *reinterpret_cast<shm::Shared<std::uint64_t>*>(static_cast<std::byte*>(memory) +
                                                          pick(bytes / 8) * 8);
  }
};

}  // namespace
}  // namespace ringtail::log

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ringtail::fuzz::fail_at_once();
  static ringtail::log::ControlFuzz target;
  target.run({data, size});
  return 0;
}

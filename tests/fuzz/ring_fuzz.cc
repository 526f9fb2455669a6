// A ring whose header and frames another process writes over while appenders, readers and the keeper are at work.
#include "fuzz/harness/scribble_scene.h"

namespace ringtail::log {
namespace {

class RingFuzz final : public ScribbleScene {
  shm::Shared<std::uint64_t>& pick_word() override {
    auto* const begin = reinterpret_cast<std::byte*>(&ring().header());
    switch (pick(4)) {
      case 0: return word_at(begin + pick(offsetof(RingHeader, terms) / 8) * 8);
      case 1: return word_at(begin + offsetof(RingHeader, terms) + pick(4 * sizeof(TermLine) / 8) * 8);
      case 2: return word_at(ring().data() + frame_start());
      default: return word_at(ring().data() + pick(ring().ring_bytes() / 8) * 8);
    }
  }
  // Where one of the frames of a term begins, or one of the words behind that.
  std::uint64_t frame_start() {
    const std::uint64_t term = pick(4) * kTestTerm;
    std::uint64_t at = 0;
    for (std::uint64_t frames = pick(64); frames > 0; --frames) {
      const std::uint64_t word = word_at(ring().data() + term + at).load();
      const std::uint64_t extent = format::word_extent(word);
      if (!format::word_is_resolved(word) || extent == 0 || at + extent >= kTestTerm) break;
      at += extent;
    }
    return term + std::min(at + pick(8) * 8, kTestTerm - 8);
  }
  static shm::Shared<std::uint64_t>& word_at(std::byte* at) {
    return *reinterpret_cast<shm::Shared<std::uint64_t>*>(at);
  }
};

}  // namespace
}  // namespace ringtail::log

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ringtail::fuzz::fail_at_once();
  static ringtail::log::RingFuzz target;
  target.run({data, size});
  return 0;
}

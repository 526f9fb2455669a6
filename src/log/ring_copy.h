// Memory for a copy of a ring to which somebody may still write: its frames are flushed from there.
//
// Which rings those are is told by words in shared memory that other processes can write to, so all copies of a keeper
// together have a limit, and no memory for one is no failure: the caller tries again.
//
// Thread safety: one thread, that of the keeper. Process safety: none needed. Lifetime: what reads from it must be done
// with it before it goes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "log/segment_files.h"

namespace ringtail::log {

class RingCopy {
 public:
  // Of all copies together; a single one may be larger.
  static constexpr std::uint64_t kMostBytes = 256 << 20;

  // `all`: the bytes of all copies that there are. Nothing where that would be too many, or there is no memory now.
  static std::unique_ptr<RingCopy> make(std::shared_ptr<std::uint64_t> all, std::uint64_t bytes) {
    if (*all > 0 && *all + bytes > kMostBytes) return nullptr;
    auto memory = AlignedBuffer::try_make(bytes);
    if (!memory) return nullptr;
    return std::unique_ptr<RingCopy>(new RingCopy(std::move(all), std::move(*memory)));
  }
  ~RingCopy() { *all_ -= memory_.size(); }
  RingCopy(const RingCopy&) = delete;
  RingCopy& operator=(const RingCopy&) = delete;

  std::byte* data() const { return memory_.data(); }

 private:
  RingCopy(std::shared_ptr<std::uint64_t> all, AlignedBuffer memory)
      : all_(std::move(all)), memory_(std::move(memory)) {
    *all_ += memory_.size();
  }

  std::shared_ptr<std::uint64_t> all_;
  AlignedBuffer memory_;
};

}  // namespace ringtail::log

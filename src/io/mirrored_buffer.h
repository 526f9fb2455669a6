// Memory mapped twice, back to back, so that any stretch of up to size() bytes of a circular buffer is
// contiguous: byte i is also byte i + size().
//
// Thread and process safety: as plain memory; a fork()ed child shares it. Lifetime: owns the mapping.
#pragma once

#include <cstddef>

#include "ringtail/error.h"

namespace ringtail::io {

class MirroredBuffer {
 public:
  // `bytes`: a multiple of the page size. No page is taken before it is used. Errors: system.
  static Result<MirroredBuffer> make(std::size_t bytes);

  MirroredBuffer() = default;
  MirroredBuffer(MirroredBuffer&& other) noexcept;
  MirroredBuffer& operator=(MirroredBuffer&& other) noexcept;
  ~MirroredBuffer();

  std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  MirroredBuffer(std::byte* data, std::size_t size) : data_(data), size_(size) {}

  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace ringtail::io

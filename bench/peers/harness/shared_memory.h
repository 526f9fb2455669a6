// A file in the run's folder that the processes of the floor map together. Whoever comes first makes it; the
// memory is zero at first. Unmapped on destruction; the runner removes the folder.
#pragma once

#include <cstddef>
#include <string>

#include "ringtail/error.h"

namespace ringtail::peers {

class SharedFile {
 public:
  // Errors: system, no_space.
  static Result<SharedFile> open(const std::string& path, std::size_t bytes);
  SharedFile(SharedFile&& other) noexcept;
  SharedFile& operator=(SharedFile&&) = delete;
  ~SharedFile();

  template <class T>
  T* at(std::size_t offset = 0) const {
    return reinterpret_cast<T*>(static_cast<std::byte*>(memory_) + offset);
  }

 private:
  SharedFile(void* memory, std::size_t bytes) : memory_(memory), bytes_(bytes) {}

  void* memory_;
  std::size_t bytes_;
};

}  // namespace ringtail::peers

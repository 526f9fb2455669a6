// The part of a Backend that every implementation shares: metadata operations as plain system calls.
//
// Thread and process safety, lifetime: as Backend.
#pragma once

#include "io/backend.h"

namespace ringtail::io {

class PosixBackend : public Backend {
 public:
  Result<File> open(const std::filesystem::path& path, OpenMode mode) final;
  Status preallocate(const File& file, std::uint64_t bytes) final;
  Status truncate(const File& file, std::uint64_t bytes) final;
  Status sync_file(const File& file) final;
  Status rename(const std::filesystem::path& from, const std::filesystem::path& to) final;
  Status unlink(const std::filesystem::path& path) final;
  Status sync_directory(const std::filesystem::path& dir) final;
};

}  // namespace ringtail::io

// The I/O seam over pwrite, pread and fdatasync, for kernels and containers without io_uring. An
// operation runs, and blocks, while it is submitted; its completion waits for reap.
//
// Thread and process safety, lifetime: as Backend.
#pragma once

#include <deque>

#include "io/posix_backend.h"

namespace ringtail::io {

class PwriteBackend final : public PosixBackend {
 public:
  std::string_view name() const override { return "pwrite"; }

  void register_buffer(std::span<const std::byte>) override {}
  void unregister_buffer(std::span<const std::byte>) override {}

  void submit_write(const File& file, std::span<const std::byte> bytes, std::uint64_t file_offset,
                    std::uint64_t token) override;
  void submit_write_and_sync(const File& file, std::span<const std::byte> bytes, std::uint64_t file_offset,
                             std::uint64_t token) override;
  void submit_sync(const File& file, std::uint64_t token) override;
  void submit_read(const File& file, std::span<std::byte> bytes, std::uint64_t file_offset,
                   std::uint64_t token) override;

  std::size_t reap(std::span<Completion> out, bool wait) override;
  std::size_t in_flight() const override { return finished_.size(); }

 private:
  std::deque<Completion> finished_;
};

}  // namespace ringtail::io

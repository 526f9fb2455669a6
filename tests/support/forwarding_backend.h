// A Backend that does what another one does: the base of those that differ from it in a few operations.
//
// Thread safety: that of the other. Lifetime: owns it.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

#include "io/backend.h"

namespace ringtail::testing {

class ForwardingBackend : public io::Backend {
 public:
  explicit ForwardingBackend(std::unique_ptr<io::Backend> inner) : inner_(std::move(inner)) {}

  std::string_view name() const override { return inner_->name(); }
  Result<io::File> open(const std::filesystem::path& path, io::OpenMode mode) override {
    return inner_->open(path, mode);
  }
  Status preallocate(const io::File& file, std::uint64_t bytes) override {
    return inner_->preallocate(file, bytes);
  }
  Status truncate(const io::File& file, std::uint64_t bytes) override {
    return inner_->truncate(file, bytes);
  }
  Status sync_file(const io::File& file) override { return inner_->sync_file(file); }
  Status rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
    return inner_->rename(from, to);
  }
  Status unlink(const std::filesystem::path& path) override { return inner_->unlink(path); }
  Status sync_directory(const std::filesystem::path& dir) override { return inner_->sync_directory(dir); }
  void register_buffer(std::span<const std::byte> memory) override { inner_->register_buffer(memory); }
  void unregister_buffer(std::span<const std::byte> memory) override { inner_->unregister_buffer(memory); }
  void submit_write(const io::File& file, std::span<const std::byte> bytes, std::uint64_t file_offset,
                    std::uint64_t token) override {
    inner_->submit_write(file, bytes, file_offset, token);
  }
  void submit_write_and_sync(const io::File& file, std::span<const std::byte> bytes,
                             std::uint64_t file_offset, std::uint64_t token) override {
    inner_->submit_write_and_sync(file, bytes, file_offset, token);
  }
  void submit_sync(const io::File& file, std::uint64_t token) override { inner_->submit_sync(file, token); }
  void submit_read(const io::File& file, std::span<std::byte> bytes, std::uint64_t file_offset,
                   std::uint64_t token) override {
    inner_->submit_read(file, bytes, file_offset, token);
  }
  std::size_t reap(std::span<io::Completion> out, bool wait) override { return inner_->reap(out, wait); }
  std::size_t in_flight() const override { return inner_->in_flight(); }

 protected:
  io::Backend& inner() { return *inner_; }

 private:
  const std::unique_ptr<io::Backend> inner_;
};

}  // namespace ringtail::testing

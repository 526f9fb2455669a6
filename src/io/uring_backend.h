// The I/O seam over io_uring.
//
// Operations live in a fixed table, one entry each; an entry stays until its data and its sync are
// done, through short transfers and interruptions, and gives one completion. The submission queue has
// room for two entries per operation (write and linked sync), so it never overflows.
//
// Thread and process safety, lifetime: as Backend.
#pragma once

#include <liburing.h>
#include <sys/types.h>

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "io/posix_backend.h"

namespace ringtail::io {

class UringBackend final : public PosixBackend {
 public:
  // Errors: unsupported, with the errno and what to change, where the kernel refuses.
  static Result<std::unique_ptr<UringBackend>> make(unsigned depth);

  UringBackend(const UringBackend&) = delete;
  UringBackend& operator=(const UringBackend&) = delete;
  ~UringBackend() override;

  std::string_view name() const override { return "io_uring"; }

  void register_buffer(std::span<const std::byte> memory) override;
  void unregister_buffer(std::span<const std::byte> memory) override;

  void submit_write(const File& file, std::span<const std::byte> bytes, std::uint64_t file_offset,
                    std::uint64_t token) override;
  void submit_write_and_sync(const File& file, std::span<const std::byte> bytes, std::uint64_t file_offset,
                             std::uint64_t token) override;
  void submit_sync(const File& file, std::uint64_t token) override;
  void submit_read(const File& file, std::span<std::byte> bytes, std::uint64_t file_offset,
                   std::uint64_t token) override;

  std::size_t reap(std::span<Completion> out, bool wait) override;
  std::size_t in_flight() const override { return in_kernel() + finished_.size(); }

  // Whether all of `bytes` lies in one registered buffer.
  bool is_registered(std::span<const std::byte> bytes) const {
    return find_slot(bytes.data(), bytes.size()).has_value();
  }

 private:
  struct Operation {
    std::uint64_t token = 0;
    std::uint64_t file_offset = 0;
    std::byte* data = nullptr;
    std::size_t bytes = 0;
    std::size_t done = 0;
    std::int64_t error = 0;
    int fd = -1;
    unsigned completions_due = 0;  // queue entries given to the kernel and not heard of again
    bool is_read = false;
    bool data_due = false;
    bool sync_due = false;
    bool faulted = false;
    bool is_parted = false;  // the kernel took its sync apart from its data
  };
  struct Registered {
    std::size_t bytes;
    unsigned slot;
  };

  UringBackend(io_uring ring, unsigned depth);

  void part_last();

  std::size_t in_kernel() const { return operations_.size() - free_.size(); }
  void start(const Operation& operation);
  void queue(std::size_t index);
  void queue_data(std::size_t index);
  void queue_sync(std::size_t index);
  void take(const io_uring_cqe& cqe);
  void enter(bool wait);
  void collect();
  void wait_for_one();

  bool register_chunk(const std::byte* begin, std::size_t bytes);
  int make_buffer_table();
  int update_slot(unsigned slot, const std::byte* begin, std::size_t bytes);
  std::optional<unsigned> find_slot(const std::byte* begin, std::size_t bytes) const;

  io_uring ring_;
  pid_t owner_;
  std::vector<Operation> operations_;
  std::vector<std::size_t> free_;
  std::deque<Completion> finished_;
  std::map<const std::byte*, Registered> registered_;  // by begin; ranges do not overlap
  std::vector<unsigned> free_slots_;
  bool has_buffer_table_ = false;
  bool told_unregistered_ = false;
};

}  // namespace ringtail::io

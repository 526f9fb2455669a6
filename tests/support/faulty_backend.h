// A Backend that does what another one does, except for the faults it was told of.
//
// Operations are matched by kind and by a part of the file's present path ("" matches every file;
// a rename is matched by its target).
// Faults are counted down per script entry, so that "the third write to a .log file" can be named. A
// linked write and sync counts as one write and, if that is not failed, as one sync.
//
// Thread safety: the Backend members as every Backend; everything else (the script, the log) may be
// called from any thread at any time. Lifetime: owns the wrapped Backend.
#pragma once

#include <climits>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/backend.h"

namespace ringtail::testing {

enum class Op { open, preallocate, truncate, sync_file, rename, unlink, sync_directory, write, sync, read };
std::string_view to_string(Op op);

// One operation as it was asked for.
struct Event {
  Op op;
  std::string path;
  std::uint64_t file_offset = 0;  // of writes and reads
  std::uint64_t bytes = 0;        // of writes, reads, preallocate, truncate
  int injected_errno = 0;         // 0: passed on
};

class FaultyBackend final : public io::Backend {
 public:
  static constexpr unsigned kForever = UINT_MAX;

  explicit FaultyBackend(std::unique_ptr<io::Backend> inner) : inner_(std::move(inner)) {}

  // --- The script ---
  // From the `nth` matching operation on (1: the next), `times` of them fail with `error_number` and
  // are not passed on.
  void fail(Op op, std::string path_part, int error_number, unsigned nth = 1, unsigned times = 1);
  // The `nth` matching write puts its first `bytes` bytes into the file and completes with -EIO.
  void tear_write(std::string path_part, std::size_t bytes, unsigned nth = 1);
  // Completions of matching operations (write, sync, read) that are submitted from now on are withheld.
  void hold(Op op, std::string path_part);
  // Ends all holds and hands out what they withheld.
  void release();
  // While set, preallocate fails with ENOSPC, as on a full disk; writes to reserved space succeed.
  void set_disk_full(bool full);
  // Forgets all faults that were not met yet, and the full disk; holds stay.
  void clear_faults();

  // --- What happened ---
  std::vector<Event> events() const;
  std::size_t count(Op op, std::string_view path_part = "") const;
  std::size_t held() const;
  void clear_events();

  // --- Backend ---
  std::string_view name() const override { return inner_->name(); }
  Result<io::File> open(const std::filesystem::path& path, io::OpenMode mode) override;
  Status preallocate(const io::File& file, std::uint64_t bytes) override;
  Status truncate(const io::File& file, std::uint64_t bytes) override;
  Status sync_file(const io::File& file) override;
  Status rename(const std::filesystem::path& from, const std::filesystem::path& to) override;
  Status unlink(const std::filesystem::path& path) override;
  Status sync_directory(const std::filesystem::path& dir) override;
  void register_buffer(std::span<const std::byte> memory) override { inner_->register_buffer(memory); }
  void unregister_buffer(std::span<const std::byte> memory) override { inner_->unregister_buffer(memory); }
  void submit_write(const io::File& file, std::span<const std::byte> bytes, std::uint64_t file_offset,
                    std::uint64_t token) override;
  void submit_write_and_sync(const io::File& file, std::span<const std::byte> bytes,
                             std::uint64_t file_offset, std::uint64_t token) override;
  void submit_sync(const io::File& file, std::uint64_t token) override;
  void submit_read(const io::File& file, std::span<std::byte> bytes, std::uint64_t file_offset,
                   std::uint64_t token) override;
  std::size_t reap(std::span<io::Completion> out, bool wait) override;
  std::size_t in_flight() const override;

 private:
  struct Fault {
    Op op;
    std::string path_part;
    int error_number;
    unsigned skip;   // matching operations that still pass
    unsigned times;  // then as many fail
    std::optional<std::size_t> torn_bytes;
  };
  struct Hold {
    Op op;
    std::string path_part;
  };
  struct Pending {  // an operation of the wrapped Backend, by the token it got from us
    std::uint64_t token;
    bool held;
    int error_number;  // reported in place of the result
  };

  // Logs the operation; the fault that it meets, if any. Requires mutex_.
  std::optional<Fault> note(Event event);
  Status note_metadata(Event event);
  bool is_held(Op op, std::string_view path) const;
  std::uint64_t pass_on(std::uint64_t token, bool held, int error_number = 0);
  void finish(io::Completion completion, bool held);
  void take_finished(bool wait);

  const std::unique_ptr<io::Backend> inner_;
  mutable std::mutex mutex_;
  std::condition_variable released_;
  std::vector<Fault> faults_;
  std::vector<Hold> holds_;
  std::vector<Event> events_;
  bool disk_full_ = false;
  std::uint64_t next_id_ = 0;
  std::map<std::uint64_t, Pending> pending_;
  std::deque<io::Completion> ready_;
  std::deque<io::Completion> held_;
};

}  // namespace ringtail::testing

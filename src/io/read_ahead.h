// Sequential reading of a file that somebody else may still be writing: what consumers behind the ring
// read segment files with.
//
// Whole blocks are read ahead into a circular buffer through a Backend of its own, past the page cache
// when the file was opened with OpenMode::read_direct. That costs a tenth of the CPU time of buffered
// reads, which the decoding of the records has use for, and leaves no cached pages in the way of the
// keeper, which writes the same file past the cache.
//
// Thread safety: one thread at a time. Process safety: none needed. Lifetime: waits for its reads when it
// is destroyed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "io/backend.h"
#include "io/mirrored_buffer.h"

namespace ringtail::io {

class ReadAhead {
 public:
  static constexpr std::size_t kDefaultBytes = 4 * 1024 * 1024;

  // `bytes` of buffer, rounded up to a power of two of at least 64 KiB; a quarter of it is one read at most.
  // Nothing is allocated before the first start, and no page of it taken before it is read into.
  explicit ReadAhead(std::size_t bytes = kDefaultBytes, IoBackend io = IoBackend::automatic);

  // From now on reads `file` from `offset` on, by a descriptor of its own, so that `file` may be closed
  // and its name deleted; `path` names it in errors. What was read before is dropped, the memory is
  // kept. The first read is a small one, and each is twice as large as the one before, as in Linux' own
  // readahead: whoever only looks at a place waits neither for a disk that reads on nor for what it brings.
  // Blocks for reads in flight. Errors: system.
  Status start(const File& file, std::string path, std::uint64_t offset);

  // The bytes from offset() on that are there, contiguous: at least `at_least`, or fewer only when
  // `limit` or the end of the file comes first (empty when offset() has reached one of them); more than
  // that as far as they are there, but at most a quarter of the buffer, so that reading goes on while
  // the caller works. `limit` is the file offset behind the last byte that is final; nothing behind it
  // is handed out, nor kept for a later call with a larger one. `at_least` may exceed the buffer, which
  // then grows. The bytes stay valid and unchanged until the next peek or start.
  // Requires a successful start. Blocks while the disk reads. Errors: storage_failed, system.
  Result<std::span<const std::byte>> peek(std::size_t at_least, std::uint64_t limit);

  // Steps over the first `bytes` bytes of the last peek; they stay valid.
  void consume(std::size_t bytes) { begin_ += bytes; }

  // Where in the file the next peek begins.
  std::uint64_t offset() const { return begin_; }

 private:
  struct Read {
    std::uint64_t from;    // at a block
    std::uint64_t wanted;  // the end of what is final in it
    std::optional<std::int64_t> result;
  };

  Status reserve(std::size_t bytes);
  void submit_ahead(std::uint64_t needed, std::uint64_t limit);
  void reap(bool wait);
  void take_in_order();
  void drop_reads();
  std::size_t read_bytes() const { return buffer_.size() / kReadsPerBuffer; }

  static constexpr std::size_t kReadsPerBuffer = 4;

  std::size_t bytes_;
  IoBackend io_;
  MirroredBuffer buffer_;  // the byte at file offset x stands at x % size
  File file_;
  std::unique_ptr<Backend> backend_;  // last, so that it goes first, and waits for its reads
  std::string path_;

  std::size_t next_read_bytes_ = 0;
  // Offsets in the file: begin_ <= ready_ <= asked_.
  std::uint64_t begin_ = 0;
  std::uint64_t ready_ = 0;
  std::uint64_t asked_ = 0;
  std::deque<Read> reads_;         // in flight or done, in the order of the file
  std::uint64_t first_token_ = 0;  // of reads_.front()
  // Why reading stopped at ready_: 0 at the end of the file, or a negative errno.
  std::optional<std::int64_t> stopped_by_;
};

}  // namespace ringtail::io

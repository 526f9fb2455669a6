// Reads a file or a pipe in large blocks.
//
// Thread safety: none. Lifetime: text handed out by `rest` is valid until the next call of `fill`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ringtail/error.h"

namespace ringtail::tools {

class BlockReader {
 public:
  // `name` is what error messages call the input. Does not own `fd`.
  BlockReader(int fd, std::string name);

  // What was read and not yet consumed.
  std::string_view rest() const { return {buffer_.data() + begin_, end_ - begin_}; }
  void consume(std::size_t bytes) { begin_ += bytes; }

  // Reads more behind `rest`. False at the end of the input. Blocks.
  // Errors: closed when a signal came; limit_exceeded when `rest` holds 64 MiB already: whatever is
  // looked for in it does not end; system.
  Result<bool> fill();

  std::uint64_t bytes_read() const { return bytes_read_; }
  const std::string& name() const { return name_; }

 private:
  static constexpr std::size_t kBlock = 1 << 20;
  static constexpr std::size_t kMaxRest = 64 << 20;

  int fd_;
  std::string name_;
  std::vector<char> buffer_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  std::uint64_t bytes_read_ = 0;
  bool at_end_ = false;
};

// The next line among what was read already, without its '\n'. False when no whole line is left.
bool take_line(BlockReader& reader, std::string_view& line);

// The next line of `reader`, without its '\n'; a last line without one counts. False at the end.
// Blocks and fails as BlockReader::fill does.
Result<bool> next_line(BlockReader& reader, std::string_view& line);

}  // namespace ringtail::tools

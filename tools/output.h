// Text for people and JSON for programs.
//
// Thread safety: none needed; a command writes from one thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ringtail/error.h"

namespace ringtail::tools {

// 1234567 -> "1,234,567".
std::string grouped(std::uint64_t number);
// 3355443 -> "3.2 MiB".
std::string human_bytes(std::uint64_t bytes);
// 1534 -> "1.53 us"; three digits.
std::string human_nanoseconds(std::uint64_t ns);

// Columns as wide as their widest cell. Columns whose cells are all numbers are aligned to the right.
class Table {
 public:
  explicit Table(std::vector<std::string> header) { rows_.push_back(std::move(header)); }
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  // The table with a line end after each row, `indent` spaces before it.
  std::string text(std::size_t indent = 0) const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

// Appends a JSON string with its quotes. Requires UTF-8.
void append_json_string(std::string& out, std::string_view text);
void append_base64(std::string& out, std::string_view bytes);
void append_number(std::string& out, std::int64_t number);
void append_number(std::string& out, std::uint64_t number);

// Standard output in large blocks.
class BlockWriter {
 public:
  // Where to append; call flush_if_large from time to time.
  std::string& buffer() { return buffer_; }
  // Writes everything. Blocks as the reader pleases. On failure the rest is dropped.
  // Errors: closed when the reader went away or a signal came; no_space and system, with the cause.
  Status flush();
  Status flush_if_large() { return buffer_.size() < kLarge ? Status() : flush(); }

 private:
  static constexpr std::size_t kLarge = 256 * 1024;
  std::string buffer_;
};

// Prints `text` to standard output at once. Returns the exit code that this leads to.
Status print(std::string_view text);

}  // namespace ringtail::tools

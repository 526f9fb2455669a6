// The small TOML files of a log directory, read as plain values that know their line: integers and
// strings at the top level and in tables one level deep. Nothing else occurs in them.
//
// Thread and process safety: an immutable value once read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "ringtail/error.h"

namespace ringtail {

class TomlFile {
 public:
  // Errors: as read_small_file; corrupt, naming file and line. Blocks on the disk.
  static Result<TomlFile> read(const std::filesystem::path& path);

  bool has(std::string_view key) const { return find(key) != nullptr; }
  // Top-level values. Errors: corrupt, naming the file, the line where there is one, and the key.
  Result<std::int64_t> integer(std::string_view key) const;
  Result<std::string> text(std::string_view key) const;
  // All strings of a table; empty when there is no such table. Errors: corrupt.
  Result<std::map<std::string, std::string, std::less<>>> texts(std::string_view table) const;

  // A corrupt error about the value of a key, at the top level unless a table is named; it names file and
  // line.
  std::unexpected<Error> refuse(std::string_view key, std::string_view problem,
                                std::string_view table = {}) const;
  const std::filesystem::path& path() const { return path_; }

 private:
  struct Entry {
    std::string table;
    std::string key;
    std::variant<std::int64_t, std::string> value;
    std::uint32_t line;
  };

  const Entry* find(std::string_view key, std::string_view table = {}) const;

  std::filesystem::path path_;
  std::vector<Entry> entries_;
};

}  // namespace ringtail

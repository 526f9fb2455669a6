// The values of a TOML file as a flat list that knows each one's line: of the top level and of tables one
// level deep. What they must be is for the caller to say.
//
// Thread and process safety: a value once read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <variant>
#include <vector>

#include "base/files.h"
#include "ringtail/error.h"

namespace ringtail {

struct TomlValue {
  // Anything else: a float, a date, an array of other things, a table within a table.
  struct Other {};

  std::string table;  // empty: the top level
  std::string key;    // empty: the table itself, which has no values
  std::variant<Other, std::int64_t, bool, std::string, std::vector<std::string>> value;
  std::uint32_t line = 0;
};

// In the order of their lines. Errors: as read_small_file; corrupt, naming file and line, where the file is
// no TOML. Blocks on the disk.
Result<std::vector<TomlValue>> read_toml_values(const std::filesystem::path& path,
                                                FileOf whose = FileOf::user);

}  // namespace ringtail

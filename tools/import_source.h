// Files that `import` reads: each turns its rows into records, in place.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "ringtail/error.h"
#include "tools/block_reader.h"
#include "tools/timestamp.h"

namespace ringtail::tools {

// A row as it is to be sent. `value` is the row's own bytes; valid until the next call of `next`.
struct SourceRow {
  std::string_view value;
  std::optional<std::string> key;
  std::optional<std::int64_t> timestamp_ns;
};

class ImportSource {
 public:
  virtual ~ImportSource() = default;
  // Reads the next row. False at the end. Blocks for input.
  // Errors: corrupt, naming the line and what is wrong with it; those of BlockReader::fill.
  virtual Result<bool> next(SourceRow& row) = 0;
  // The line of the file, from 1, at which the row that was read last begins.
  virtual std::uint64_t line() const = 0;
};

struct SourceOptions {
  std::string key_column;        // empty: no keys
  std::string timestamp_column;  // empty: no timestamps
  TimestampFormat timestamp_format;
  bool header = true;  // csv: the first row names the columns; otherwise columns are numbers from 1
};

// `reader` must outlive the source. Errors: invalid_argument; for csv also those of `next`, for the
// header row is read here.
Result<std::unique_ptr<ImportSource>> open_csv(BlockReader& reader, SourceOptions options);
Result<std::unique_ptr<ImportSource>> open_jsonl(BlockReader& reader, SourceOptions options);
Result<std::unique_ptr<ImportSource>> open_lines(BlockReader& reader, const SourceOptions& options);

}  // namespace ringtail::tools

// Rows of CSV as RFC 4180 defines them, in place.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace ringtail::tools {

// One field of a row: its bytes in the file, with the quotes if it has any.
struct CsvField {
  std::string_view raw;
  bool quoted() const { return raw.starts_with('"'); }
  // What the field says: without quotes, with doubled quotes as one.
  std::string text() const;
};

struct CsvRow {
  enum class State { complete, incomplete, malformed } state = State::incomplete;
  std::vector<CsvField> fields;
  std::string_view raw;      // the row's bytes up to its '\n'; a '\r' before that belongs to them
  std::size_t consumed = 0;  // bytes of the row with its line end
  std::size_t lines = 0;     // lines of the file that the row takes
  std::string fault;         // malformed: what is wrong
};

// Reads the first row of `text` into `row`. Incomplete: the row goes on behind `text`; never so when
// `last` says that nothing follows. Requires text that is not empty.
void read_csv_row(std::string_view text, bool last, CsvRow& row);

}  // namespace ringtail::tools

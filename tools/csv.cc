#include "tools/csv.h"

#include <fmt/format.h>

#include <algorithm>

namespace ringtail::tools {
namespace {

void complete(std::string_view text, std::size_t row_bytes, bool has_line_end, CsvRow& row) {
  row.state = CsvRow::State::complete;
  row.raw = text.substr(0, row_bytes);
  row.consumed = row_bytes + (has_line_end ? 1 : 0);
  row.lines = 1 + static_cast<std::size_t>(std::count(row.raw.begin(), row.raw.end(), '\n'));
}

void malformed(CsvRow& row, std::string fault) {
  row.state = CsvRow::State::malformed;
  row.fault = std::move(fault);
}

// The position behind the closing quote of the field that starts at `begin`, or npos.
std::size_t end_of_quoted(std::string_view text, std::size_t begin) {
  std::size_t at = begin + 1;
  while (true) {
    at = text.find('"', at);
    if (at == std::string_view::npos) return at;
    if (at + 1 == text.size() || text[at + 1] != '"') return at + 1;
    at += 2;
  }
}

std::size_t end_of_plain(std::string_view text, std::size_t begin) {
  const std::size_t end = text.find_first_of(",\n\"", begin);
  return end == std::string_view::npos ? text.size() : end;
}

}  // namespace

std::string CsvField::text() const {
  if (!quoted()) return std::string(raw);
  std::string out;
  for (std::size_t i = 1; i + 1 < raw.size(); ++i) {
    out += raw[i];
    if (raw[i] == '"') ++i;
  }
  return out;
}

void read_csv_row(std::string_view text, bool last, CsvRow& row) {
  row.fields.clear();
  row.state = CsvRow::State::incomplete;
  std::size_t begin = 0;
  while (true) {
    const bool quoted = begin < text.size() && text[begin] == '"';
    std::size_t end = quoted ? end_of_quoted(text, begin) : end_of_plain(text, begin);
    // A quote at the very end of the text may be the first half of a doubled one.
    if (end >= text.size() && !last) return;
    if (end == std::string_view::npos) {
      return malformed(row,
                       fmt::format("the quote that opens column {} is never closed", row.fields.size() + 1));
    }
    if (!quoted && end < text.size() && text[end] == '"') {
      return malformed(row, fmt::format("column {} has a quote but does not start with one; write the whole "
                                        "field in quotes and the quote twice",
                                        row.fields.size() + 1));
    }
    std::size_t field_end = end;
    if (quoted && end < text.size() && text[end] == '\r') ++end;
    if (end == text.size() && !last) return;
    const bool row_ends = end == text.size() || text[end] == '\n';
    if (!quoted && row_ends && field_end > begin && text[field_end - 1] == '\r') --field_end;
    row.fields.push_back({text.substr(begin, field_end - begin)});
    if (row_ends) return complete(text, end, end < text.size(), row);
    if (text[end] != ',') {
      return malformed(row, fmt::format("column {} goes on behind its closing quote", row.fields.size()));
    }
    begin = end + 1;
  }
}

}  // namespace ringtail::tools

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <limits>

#include "base/parse.h"
#include "tools/csv.h"
#include "tools/import_source.h"

namespace ringtail::tools {
namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
constexpr std::size_t kNoColumn = std::numeric_limits<std::size_t>::max();

class CsvSource : public ImportSource {
 public:
  CsvSource(BlockReader& reader, SourceOptions options) : reader_(reader), options_(std::move(options)) {}

  // Reads the header row, if there is one, and finds the columns.
  Status start() {
    if (!options_.header) return find_columns({});
    const Result<bool> found = next_row();
    if (!found) return std::unexpected(found.error());
    if (!*found)
      return fail(Code::corrupt, fmt::format("{}: no header row; the file is empty", reader_.name()));
    std::vector<std::string> names;
    for (const CsvField& field : row_.fields) names.push_back(field.text());
    return find_columns(names);
  }

  Result<bool> next(SourceRow& out) override {
    const Result<bool> found = next_row();
    if (!found || !*found) return found;
    out.value = row_.raw;
    if (key_column_ != kNoColumn) {
      const Result<const CsvField*> field = column(key_column_, "key");
      if (!field) return std::unexpected(field.error());
      // As in PostgreSQL's COPY: nothing at all is null, "" is the empty text.
      out.key.reset();
      if (!(*field)->raw.empty()) out.key = (*field)->text();
    }
    if (timestamp_column_ == kNoColumn) return true;
    const Result<const CsvField*> field = column(timestamp_column_, "timestamp");
    if (!field) return std::unexpected(field.error());
    const Result<std::int64_t> time = options_.timestamp_format.parse((*field)->text());
    if (!time)
      return at_line(fmt::format("column '{}': {}", options_.timestamp_column, time.error().message));
    out.timestamp_ns = *time;
    return true;
  }

  std::uint64_t line() const override { return line_; }

 private:
  std::unexpected<Error> at_line(std::string_view what) const {
    return fail(Code::corrupt, fmt::format("{}, line {}: {}", reader_.name(), line_, what));
  }

  // Reads the next row that is not blank, and checks that it has as many columns as the first.
  Result<bool> next_row() {
    do {
      const Result<bool> found = read_row();
      if (!found || !*found) return found;
    } while (is_blank());
    if (columns_ == 0) columns_ = row_.fields.size();
    if (row_.fields.size() == columns_) return true;
    return at_line(fmt::format("{} columns where the first row has {}", row_.fields.size(), columns_));
  }

  bool is_blank() const { return columns_ > 1 && row_.fields.size() == 1 && row_.fields.front().raw.empty(); }

  Result<bool> read_row() {
    reader_.consume(row_.consumed);
    line_ += row_.lines;
    row_.consumed = row_.lines = 0;
    while (true) {
      if (!reader_.rest().empty()) {
        skip_byte_order_mark();
        read_csv_row(reader_.rest(), last_, row_);
        if (row_.state == CsvRow::State::complete) return true;
        if (row_.state == CsvRow::State::malformed) return at_line(row_.fault);
      }
      if (last_) return false;
      const Result<bool> more = reader_.fill();
      if (!more) return std::unexpected(more.error());
      last_ = !*more;
    }
  }

  void skip_byte_order_mark() {
    if (line_ == 1 && reader_.rest().starts_with(kByteOrderMark)) reader_.consume(kByteOrderMark.size());
  }

  Result<const CsvField*> column(std::size_t index, std::string_view what) const {
    if (index < row_.fields.size()) return &row_.fields[index];
    return at_line(
        fmt::format("no column {} for the {}; the row has {}", index + 1, what, row_.fields.size()));
  }

  Status find_columns(const std::vector<std::string>& names) {
    for (const auto& [wanted, index] : {std::pair(&options_.key_column, &key_column_),
                                        std::pair(&options_.timestamp_column, &timestamp_column_)}) {
      if (wanted->empty()) continue;
      const Result<std::size_t> found = find_column(names, *wanted);
      if (!found) return std::unexpected(found.error());
      *index = *found;
    }
    return {};
  }

  Result<std::size_t> find_column(const std::vector<std::string>& names, const std::string& wanted) const {
    if (!options_.header) {
      const Result<std::int64_t> number = parse_integer(wanted);
      if (number && *number > 0) return static_cast<std::size_t>(*number - 1);
      return fail(Code::invalid_argument,
                  fmt::format("column '{}': with --no-header, columns are numbers from 1", wanted));
    }
    const auto found = std::find(names.begin(), names.end(), wanted);
    if (found != names.end()) return static_cast<std::size_t>(found - names.begin());
    return fail(Code::invalid_argument, fmt::format("{} has no column '{}'; its columns are: {}",
                                                    reader_.name(), wanted, fmt::join(names, ", ")));
  }

  BlockReader& reader_;
  SourceOptions options_;
  CsvRow row_;
  std::uint64_t line_ = 1;
  std::size_t columns_ = 0;  // of the first row; 0: not read yet
  std::size_t key_column_ = kNoColumn;
  std::size_t timestamp_column_ = kNoColumn;
  bool last_ = false;
};

}  // namespace

Result<std::unique_ptr<ImportSource>> open_csv(BlockReader& reader, SourceOptions options) {
  auto source = std::make_unique<CsvSource>(reader, std::move(options));
  if (const Status started = source->start(); !started) return std::unexpected(started.error());
  return source;
}

}  // namespace ringtail::tools

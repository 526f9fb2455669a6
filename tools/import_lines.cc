// Lines as they are, and lines that are JSON.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tools/import_source.h"

namespace ringtail::tools {
namespace {

class LinesSource : public ImportSource {
 public:
  explicit LinesSource(BlockReader& reader) : reader_(reader) {}
  Result<bool> next(SourceRow& out) override {
    ++line_;
    return next_line(reader_, out.value);
  }
  std::uint64_t line() const override { return line_; }

 private:
  BlockReader& reader_;
  std::uint64_t line_ = 0;
};

// A member's name as a token of a JSON pointer (RFC 6901).
std::string pointer_token(std::string_view name) {
  std::string token = "/";
  for (const char c : name) {
    if (c == '~') {
      token += "~0";
    } else if (c == '/') {
      token += "~1";
    } else {
      token += c;
    }
  }
  return token;
}

// A column is a JSON pointer, or simply a member's name.
std::string to_pointer(const std::string& column) {
  return column.starts_with('/') ? column : pointer_token(column);
}

// Walks a document and keeps the scalars at the wanted pointers, numbers as they are written: a
// double would lose the nanoseconds of "1752739503.360842448". Of members with one name, the last counts.
class ScalarFinder : public nlohmann::json_sax<nlohmann::json> {
 public:
  struct Wanted {
    std::optional<std::string> pointer;  // none: nothing is wanted ("" is the whole document)
    std::optional<std::string> found;
  };
  explicit ScalarFinder(std::vector<Wanted>& wanted) : wanted_(wanted) {}

  const std::string& fault() const { return fault_; }

  bool null() override { return keep(std::nullopt); }
  bool boolean(bool value) override { return keep(value ? "true" : "false"); }
  bool number_integer(number_integer_t value) override { return keep(std::to_string(value)); }
  bool number_unsigned(number_unsigned_t value) override { return keep(std::to_string(value)); }
  bool number_float(number_float_t, const string_t& text) override { return keep(text); }
  bool string(string_t& text) override { return keep(text); }
  bool binary(binary_t&) override { return step(); }
  bool start_object(std::size_t) override { return enter(false); }
  bool start_array(std::size_t) override { return enter(true); }
  bool end_object() override { return leave(); }
  bool end_array() override { return leave(); }
  bool key(string_t& name) override {
    levels_.back().name = pointer_token(name);
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::json::exception& error) override {
    fault_ = error.what();
    // "[json.exception.parse_error.101] parse error at line 1, column 5: ..." -> "column 5: ..."
    if (const std::size_t at = fault_.find("column "); at != std::string::npos) fault_.erase(0, at);
    return false;
  }

 private:
  struct Level {
    bool is_array;
    std::size_t index;
    std::string name;
  };

  bool step() {
    if (!levels_.empty() && levels_.back().is_array) ++levels_.back().index;
    return true;
  }
  bool enter(bool is_array) {
    find(std::nullopt);
    levels_.push_back({is_array, 0, {}});
    return true;
  }
  bool leave() {
    levels_.pop_back();
    return step();
  }
  bool keep(std::optional<std::string_view> text) {
    find(text);
    return step();
  }
  // What stands here, or nothing where that is no scalar. What was found below is of an earlier member of this name.
  void find(std::optional<std::string_view> text) {
    const std::string here = pointer();
    for (Wanted& wanted : wanted_) {
      if (!wanted.pointer || !wanted.pointer->starts_with(here)) continue;
      const char next = wanted.pointer->c_str()[here.size()];
      if (next == '\0' || next == '/') wanted.found.reset();
      if (text && wanted.pointer == here) wanted.found.emplace(*text);
    }
  }
  std::string pointer() const {
    std::string path;
    for (const Level& level : levels_)
      path += level.is_array ? "/" + std::to_string(level.index) : level.name;
    return path;
  }

  std::vector<Wanted>& wanted_;
  std::vector<Level> levels_;
  std::string fault_;
};

class JsonlSource : public ImportSource {
 public:
  JsonlSource(BlockReader& reader, SourceOptions options) : reader_(reader), options_(std::move(options)) {
    for (const std::string* column : {&options_.key_column, &options_.timestamp_column}) {
      ScalarFinder::Wanted& wanted = wanted_.emplace_back();
      if (!column->empty()) wanted.pointer = to_pointer(*column);
    }
  }

  Result<bool> next(SourceRow& out) override {
    do {
      const Result<bool> found = next_line(reader_, out.value);
      if (!found || !*found) return found;
      ++line_;
    } while (out.value.find_first_not_of(" \t\r") == std::string_view::npos);
    for (ScalarFinder::Wanted& wanted : wanted_) wanted.found.reset();
    ScalarFinder finder(wanted_);
    if (!nlohmann::json::sax_parse(out.value.begin(), out.value.end(), &finder))
      return at_line(finder.fault());
    out.key = wanted_[0].found;
    if (options_.timestamp_column.empty()) return true;
    if (!wanted_[1].found)
      return at_line(fmt::format("no text or number at '{}'", options_.timestamp_column));
    const Result<std::int64_t> time = options_.timestamp_format.parse(*wanted_[1].found);
    if (!time) return at_line(fmt::format("'{}': {}", options_.timestamp_column, time.error().message));
    out.timestamp_ns = *time;
    return true;
  }
  std::uint64_t line() const override { return line_; }

 private:
  std::unexpected<Error> at_line(std::string_view what) const {
    return fail(Code::corrupt, fmt::format("{}, line {}: {}", reader_.name(), line_, what));
  }

  BlockReader& reader_;
  SourceOptions options_;
  std::vector<ScalarFinder::Wanted> wanted_;  // key, timestamp
  std::uint64_t line_ = 0;
};

}  // namespace

Result<std::unique_ptr<ImportSource>> open_lines(BlockReader& reader, const SourceOptions& options) {
  if (!options.key_column.empty() || !options.timestamp_column.empty()) {
    return fail(Code::invalid_argument,
                "lines have no columns; use csv or jsonl, or leave the column options out");
  }
  return std::make_unique<LinesSource>(reader);
}

Result<std::unique_ptr<ImportSource>> open_jsonl(BlockReader& reader, SourceOptions options) {
  return std::make_unique<JsonlSource>(reader, std::move(options));
}

}  // namespace ringtail::tools

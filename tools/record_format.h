// How `consume` writes a record: in Kafka's console form, by a format in kcat's manner, or as JSON.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ringtail/error.h"
#include "ringtail/record.h"

namespace ringtail::tools {

// What stands before the value, tab separated, in the order of Kafka's console consumer.
struct PrintOptions {
  bool key = false;
  bool offset = false;
  bool timestamp = false;
  bool headers = false;
};

// A compiled format. Immutable.
class RecordFormat {
 public:
  // Kafka's console form, with a line end after each record; missing keys and values are "null".
  // `append_time`: the topic's timestamps are the log's own ("LogAppendTime:...").
  static RecordFormat console(const PrintOptions& print, bool append_time);
  // One object a line.
  static RecordFormat json();
  // Text with % and backslash escapes; see kFormatHelp. Errors: invalid_argument, naming the escape.
  static Result<RecordFormat> parse(std::string_view format);

  void append(std::string& out, const Record& record) const;

 private:
  enum class Field : std::uint8_t {
    literal,
    topic,
    partition,
    offset,
    timestamp_ns,
    timestamp_text,
    key,
    value,
    headers,
    value_length,
    key_length,
    console_key,
    console_value,
    console_headers,
    json,
  };
  struct Piece {
    Field field;
    std::string literal;
  };

  RecordFormat& add(Field field, std::string literal = {});
  static void append_piece(std::string& out, const Piece& piece, const Record& record);

  std::vector<Piece> pieces_;
};

inline constexpr std::string_view kFormatHelp =
    "%t topic     %p partition  %o offset        %T timestamp in ns  %I timestamp as RFC 3339\n"
    "%k key       %s value      %h headers       %K key length       %S value length (-1: none)\n"
    "%% percent   \\n line end   \\t tab           nothing is added after a record";

}  // namespace ringtail::tools

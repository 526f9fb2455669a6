#include "tools/record_format.h"

#include <fmt/format.h>

#include "base/parse.h"
#include "base/utf8.h"
#include "tools/output.h"
#include "tools/session.h"

namespace ringtail::tools {
namespace {

void append_headers(std::string& out, const Headers& headers, char separator) {
  bool first = true;
  for (const Header& header : headers) {
    if (!first) out += ',';
    first = false;
    out += header.key;
    out += separator;
    out += header.value.data() == nullptr ? std::string_view("null") : header.value;
  }
}

std::int64_t length_or_minus_one(std::string_view text) {
  return text.data() == nullptr ? -1 : static_cast<std::int64_t>(text.size());
}

// "name": text, or "name_base64": text where it is not UTF-8, or "name": null.
void append_json_member(std::string& out, std::string_view name, std::string_view text) {
  out += '"';
  out += name;
  if (text.data() == nullptr) {
    out += "\":null";
  } else if (is_utf8(text)) {
    out += "\":";
    append_json_string(out, text);
  } else {
    out += "_base64\":\"";
    append_base64(out, text);
    out += '"';
  }
}

void append_json(std::string& out, const Record& record) {
  out += "{\"topic\":";
  append_json_string(out, record.source->topic);
  out += ",\"partition\":";
  append_number(out, std::uint64_t{record.source->partition.value()});
  out += ",\"offset\":";
  append_number(out, record.offset.value());
  out += ",\"timestamp_ns\":";
  append_number(out, record.timestamp_ns);
  out += ',';
  append_json_member(out, "key", record.key);
  out += ',';
  append_json_member(out, "value", record.value);
  out += ",\"headers\":[";
  bool first = true;
  for (const Header& header : record.headers) {
    out += first ? "{" : ",{";
    first = false;
    append_json_member(out, "key", header.key);
    out += ',';
    append_json_member(out, "value", header.value);
    out += '}';
  }
  out += "]}\n";
}

}  // namespace

RecordFormat& RecordFormat::add(Field field, std::string literal) {
  pieces_.push_back({field, std::move(literal)});
  return *this;
}

RecordFormat RecordFormat::console(const PrintOptions& print, bool append_time) {
  RecordFormat format;
  if (print.timestamp) {
    format.add(Field::literal, append_time ? "LogAppendTime:" : "CreateTime:").add(Field::timestamp_ns);
    format.add(Field::literal, "\t");
  }
  if (print.offset) format.add(Field::literal, "Offset:").add(Field::offset).add(Field::literal, "\t");
  if (print.headers) format.add(Field::console_headers).add(Field::literal, "\t");
  if (print.key) format.add(Field::console_key).add(Field::literal, "\t");
  format.add(Field::console_value).add(Field::literal, "\n");
  return format;
}

RecordFormat RecordFormat::json() {
  RecordFormat format;
  format.add(Field::json);
  return format;
}

Result<RecordFormat> RecordFormat::parse(std::string_view text) {
  static constexpr std::string_view kLetters = "tpoTIkshSK";
  static constexpr Field kFields[] = {
      Field::topic, Field::partition, Field::offset,  Field::timestamp_ns, Field::timestamp_text,
      Field::key,   Field::value,     Field::headers, Field::value_length, Field::key_length};
  static_assert(std::size(kFields) == kLetters.size());
  RecordFormat format;
  while (!text.empty()) {
    const std::size_t percent = text.find('%');
    if (percent != 0) {
      format.add(Field::literal, unescape(text.substr(0, percent)));
      text.remove_prefix(std::min(percent, text.size()));
      continue;
    }
    const std::size_t which = text.size() > 1 ? kLetters.find(text[1]) : std::string_view::npos;
    if (which != std::string_view::npos) {
      format.add(kFields[which]);
    } else if (text.starts_with("%%")) {
      format.add(Field::literal, "%");
    } else {
      return fail(Code::invalid_argument, fmt::format("--format: unknown escape '{}'; known are:\n{}",
                                                      text.substr(0, 2), kFormatHelp));
    }
    text.remove_prefix(2);
  }
  return format;
}

void RecordFormat::append(std::string& out, const Record& record) const {
  for (const Piece& piece : pieces_) append_piece(out, piece, record);
}

void RecordFormat::append_piece(std::string& out, const Piece& piece, const Record& record) {
  switch (piece.field) {
    case Field::literal: out += piece.literal; return;
    case Field::topic: out += record.source->topic; return;
    case Field::partition: append_number(out, std::uint64_t{record.source->partition.value()}); return;
    case Field::offset: append_number(out, record.offset.value()); return;
    case Field::timestamp_ns: append_number(out, record.timestamp_ns); return;
    case Field::timestamp_text: out += format_time(record.timestamp_ns); return;
    case Field::key: out += record.key; return;
    case Field::value: out += record.value; return;
    case Field::headers: append_headers(out, record.headers, '='); return;
    case Field::value_length: append_number(out, length_or_minus_one(record.value)); return;
    case Field::key_length: append_number(out, length_or_minus_one(record.key)); return;
    case Field::console_key: out += record.has_key() ? record.key : "null"; return;
    case Field::console_value: out += record.is_tombstone() ? "null" : record.value; return;
    case Field::console_headers:
      if (record.headers.empty()) out += "NO_HEADERS";
      append_headers(out, record.headers, ':');
      return;
    case Field::json: append_json(out, record); return;
  }
}

}  // namespace ringtail::tools

// Fields of a stored JSON object, read one after the other; the first that is missing or malformed is kept as
// the error of the whole.
//
// Thread safety: none; an instance serves one value.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "ringtail/admin.h"
#include "ringtail/error.h"

namespace ringtail::replication {

using Json = nlohmann::json;

class RecordFields {
 public:
  // Parses the value of `key`, which every error names.
  RecordFields(std::string_view key, std::string_view value);

  std::uint64_t number(const char* name, std::uint64_t least, std::uint64_t most);
  std::int64_t signed_number(const char* name);
  bool flag(const char* name);
  std::string text(const char* name, std::size_t most);
  // A number of 16 hexadecimal digits.
  std::uint64_t hex(const char* name);
  // An even number of hexadecimal digits, `least` to `most`.
  std::string hex_text(const char* name, std::size_t least, std::size_t most);
  std::vector<std::uint64_t> numbers(const char* name, std::uint64_t least, std::uint64_t most);
  std::map<std::string, std::string, std::less<>> texts(const char* name);
  // An object, or the objects of an array, to be read in the same way and then joined.
  RecordFields inner(const char* name);
  std::vector<RecordFields> inner_array(const char* name);
  bool has(const char* name) const;

  void refuse(std::string_view why);
  // Takes over the error of a part.
  void join(const RecordFields& part);
  bool good() const { return error_.empty(); }
  // corrupt, or incompatible_layout when the value is of another version.
  std::unexpected<Error> failure() const { return fail(code_, error_); }

 private:
  RecordFields(std::string key, std::string path, Json object)
      : key_(std::move(key)), path_(std::move(path)), object_(std::move(object)) {}
  void check_version();
  const Json* find(const char* name);
  void refuse_field(const char* name, std::string_view why);

  std::string key_;
  std::string path_;  // of the object within the record: empty, or a name and a dot
  Json object_;
  std::string error_;
  Code code_ = Code::corrupt;  // of the error
};

}  // namespace ringtail::replication

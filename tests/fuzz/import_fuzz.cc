// Files that `ringtail import` reads, and formats that the tools are given: rows of CSV, lines of JSON, plain lines,
// timestamps, how a record is to be printed. Rows are found alike however a file arrives.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "fuzz/harness/input.h"
#include "tools/csv.h"
#include "tools/import_source.h"
#include "tools/record_format.h"

namespace ringtail::tools {
namespace {

using fuzz::demand;
using fuzz::Input;
using fuzz::touch;

// A file in memory with that content, to be read from its begin.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view content) : fd_(::memfd_create("import", MFD_CLOEXEC)) {
    demand(fd_ >= 0, "there is a file");
    demand(::write(fd_, content.data(), content.size()) == static_cast<ssize_t>(content.size()),
           "it has content");
    ::lseek(fd_, 0, SEEK_SET);
  }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  ~MemoryFile() { ::close(fd_); }
  int fd() const { return fd_; }

 private:
  int fd_;
};

void import_file(Input& input) {
  const std::uint64_t kind = input.pick(3);
  SourceOptions options;
  options.header = !input.one_of(2);
  if (input.one_of(2)) options.key_column = options.header ? input.text(8) : "1";
  if (input.one_of(2)) options.timestamp_column = options.header ? input.text(8) : "2";
  const auto format = TimestampFormat::make(input.one_of(2) ? std::string_view("auto") : input.text(16));
  if (format) options.timestamp_format = *format;
  const std::string_view content = input.rest();
  const MemoryFile file(content);
  BlockReader reader(file.fd(), "a file");
  auto source = kind == 0   ? open_csv(reader, options)
                : kind == 1 ? open_jsonl(reader, options)
                            : open_lines(reader, options);
  if (!source) return demand(!source.error().message.empty(), "a refusal says why");
  SourceRow row;
  std::uint64_t line = 0;
  std::size_t bytes = 0;
  for (;;) {
    const auto found = (*source)->next(row);
    if (!found) return demand(!found.error().message.empty(), "a refusal says why");
    if (!*found) break;
    touch(row.value);
    if (row.key) touch(*row.key);
    bytes += row.value.size();
    demand((*source)->line() > line, "lines ascend");
    line = (*source)->line();
  }
  demand(bytes <= content.size(), "rows are parts of the file");
}

// The rows of a text that is there as a whole are those of one that comes byte by byte.
void read_rows(std::string_view text) {
  CsvRow row;
  while (!text.empty()) {
    read_csv_row(text, true, row);
    if (row.state == CsvRow::State::malformed) return demand(!row.fault.empty(), "a fault says what it is");
    demand(row.state == CsvRow::State::complete && row.consumed > 0 && row.consumed <= text.size(),
           "the last row is complete or malformed");
    std::size_t bytes = 0;
    for (const CsvField& field : row.fields) {
      bytes += field.raw.size();
      demand(field.text().size() <= field.raw.size(), "a field's text is no longer than the field");
    }
    demand(bytes <= row.raw.size(), "fields are parts of their row");
    const CsvRow whole = row;
    for (std::size_t end = std::max<std::size_t>(1, row.consumed > 40 ? row.consumed - 40 : 1);
         end < row.consumed; ++end) {
      read_csv_row(text.substr(0, end), false, row);
      demand(row.state != CsvRow::State::malformed, "a part of a good row is not malformed");
      demand(row.state == CsvRow::State::incomplete, "nor is it a row");
    }
    text.remove_prefix(whole.consumed);
  }
}

void print_record(Input& input) {
  const auto format = RecordFormat::parse(input.text(60));
  if (!format) return demand(!format.error().message.empty(), "a refusal says why");
  const TopicPartition source{"topic", PartitionId(1)};
  Record record;
  record.source = &source;
  record.offset = Offset(input.take<std::uint32_t>());
  record.timestamp_ns = static_cast<std::int64_t>(input.take<std::uint64_t>());
  record.key = input.text(20);
  record.value = input.rest();
  std::string text;
  format->append(text, record);
  RecordFormat::json().append(text, record);
  RecordFormat::console({.key = true, .offset = true, .timestamp = true, .headers = true}, true)
      .append(text, record);
  demand(!text.empty(), "something is printed");
}

void read_time(Input& input) {
  const auto format = TimestampFormat::make(input.text(24));
  if (!format) return demand(!format.error().message.empty(), "a refusal says why");
  const auto time = format->parse(input.rest());
  demand(time.has_value() || !time.error().message.empty(), "a refusal says why");
}

}  // namespace
}  // namespace ringtail::tools

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ringtail::tools;
  Input input(data, size);
  switch (input.pick(6)) {
    case 0: read_rows(input.rest()); break;
    case 1: print_record(input); break;
    case 2: read_time(input); break;
    default: import_file(input);
  }
  return 0;
}

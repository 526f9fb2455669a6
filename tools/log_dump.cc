// ringtail log dump: the frames of segment files, a line each.
#include <fmt/format.h>

#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "log/verify.h"
#include "tools/commands.h"
#include "tools/log_files.h"
#include "tools/option_checks.h"
#include "tools/output.h"
#include "tools/session.h"

namespace ringtail::tools {
namespace {

struct DumpArguments {
  std::string path;
  std::uint64_t from_position = 0;
  std::uint64_t limit = std::numeric_limits<std::uint64_t>::max();
};

// Who appended it, and what a marker says.
void add_extension(nlohmann::json& object, const std::byte* frame, format::FrameType type) {
  const std::optional<format::Extension> extension = format::extension_of(frame);
  if (!extension) return;
  object["producer_id"] = extension->producer_id;
  object["producer_epoch"] = extension->producer_epoch;
  object["transaction"] = extension->transaction;
  object["sequence"] = extension->sequence;
  if (type == format::FrameType::control) object["marker"] = format::to_string(format::marker_kind(frame));
}

std::string to_json_line(const log::DumpedFrame& dumped) {
  nlohmann::json object = {{"position", dumped.position.value()}};
  if (dumped.fault != format::FrameFault::none) {
    object["fault"] = format::to_string(dumped.fault);
    return object.dump() + "\n";
  }
  const format::FrameHeader header = format::load_header(dumped.frame.data());
  object["type"] = static_cast<int>(header.type);
  object["length"] = header.length;
  object["offset"] = header.offset;
  object["records"] = format::frame_records(header);
  object["timestamp_ns"] = header.timestamp_ns;
  object["crc32c"] = header.crc32c;
  if (header.type != format::FrameType::pad && header.type != format::FrameType::aborted)
    add_extension(object, dumped.frame.data(), header.type);
  object["text"] = format::describe_frame(dumped.frame);
  return object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

std::string to_text_line(const log::DumpedFrame& dumped) {
  const bool valid = dumped.fault == format::FrameFault::none;
  return fmt::format("position={} {}\n", dumped.position.value(),
                     valid ? format::describe_frame(dumped.frame)
                           : fmt::format("FAULT {}", format::to_string(dumped.fault)));
}

// Prints the frames of one file, at most `left` of them. Errors: those of dump_segment and of writing.
Status dump_file(const GlobalOptions& options, const std::filesystem::path& path, Position from,
                 std::uint64_t& left, BlockWriter& out) {
  Status written;
  const auto print_frame = [&](const log::DumpedFrame& frame) {
    if (left == 0 || interrupt::pending()) return false;
    --left;
    out.buffer() += options.json ? to_json_line(frame) : to_text_line(frame);
    written = out.flush_if_large();
    return written.has_value();
  };
  log::DumpOptions dump_options;
  dump_options.from = from;
  const auto header = log::dump_segment(path, dump_options, print_frame);
  if (!header) return std::unexpected(header.error());
  return written;
}

int log_dump(const GlobalOptions& options, const DumpArguments& arguments) {
  const Result<std::vector<PartitionFiles>> partitions = find_partitions(arguments.path);
  if (!partitions) return report(options, partitions.error());
  if (partitions->size() != 1) {
    return report_usage(options, fmt::format("'{}' has {} partitions; name one, or a segment file",
                                             arguments.path, partitions->size()));
  }
  const Result<std::vector<std::filesystem::path>> files = segment_files(partitions->front());
  if (!files) return report(options, files.error());
  BlockWriter out;
  std::uint64_t left = arguments.limit;
  Status status;
  for (const std::filesystem::path& file : *files) {
    if (left == 0 || !status || interrupt::pending()) break;
    status = dump_file(options, file, Position(arguments.from_position), left, out);
  }
  if (const Status flushed = out.flush(); status) status = flushed;
  if (interrupt::pending()) return interrupt::exit_code();
  const bool reader_left = !status && status.error().os_errno == EPIPE;
  return status || reader_left ? kDone : report(options, status.error());
}

}  // namespace

void add_log_dump(CLI::App& log, GlobalOptions& options, int& exit_code) {
  auto arguments = std::make_shared<DumpArguments>();
  CLI::App* command = log.add_subcommand("dump", "Print the frames of a partition or segment, a line each");
  command->add_option("PATH", arguments->path, "A segment file or a partition's directory")
      ->required()
      ->type_name("");
  command->add_option("--from-position", arguments->from_position, "Pass over frames that start before")
      ->check(whole_number())
      ->type_name("POSITION");
  command->add_option("--limit", arguments->limit, "Print at most N frames")
      ->check(whole_number())
      ->type_name("N");
  command->footer(
      "Prints what is there, faults included; `ringtail log verify` judges it.\n\n"
      "Example:\n  ringtail log dump /var/lib/ringtail/topics/orders/0/00000000000000000000.log --limit 10");
  command->callback([&options, &exit_code, arguments] { exit_code = log_dump(options, *arguments); });
}

}  // namespace ringtail::tools

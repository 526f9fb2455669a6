// ringtail log verify: checks every byte of segment files.
#include "log/verify.h"

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "tools/commands.h"
#include "tools/log_files.h"
#include "tools/output.h"
#include "tools/session.h"

namespace ringtail::tools {
namespace {

using log::PartitionVerification;
using log::SegmentVerification;
using nlohmann::json;

struct Verified {
  PartitionFiles files;
  PartitionVerification result;
};

// Verifies one partition; of one segment that was named alone, only what concerns it is kept. Its
// neighbours are read all the same, for it has to join on to them.
Result<Verified> verify(const PartitionFiles& files) {
  Result<PartitionVerification> result = log::verify_partition(files.dir);
  if (!result) return std::unexpected(result.error());
  if (!files.segment.empty()) {
    const std::filesystem::path name = files.segment.stem();
    std::erase_if(result->segments, [&](const SegmentVerification& s) { return s.path.stem() != name; });
    std::erase_if(result->faults, [&](const log::VerifyFault& f) { return f.path.stem() != name; });
  }
  return Verified{files, std::move(*result)};
}

// The first record behind a fault that can be read; nothing where the file has none, or no header.
std::optional<std::uint64_t> offset_behind(const log::VerifyFault& fault) {
  std::optional<std::uint64_t> offset;
  const auto look = [&](const log::DumpedFrame& frame) {
    if (frame.fault != format::FrameFault::none || frame.position <= fault.position) return true;
    const format::FrameHeader header = format::load_header(frame.frame.data());
    if (header.type == format::FrameType::pad) return true;
    offset = header.offset;
    return false;
  };
  if (!log::dump_segment(fault.path, {.from = fault.position}, look)) return std::nullopt;
  return offset;
}

std::string remedy_for(const PartitionFiles& files, const log::VerifyFault& fault) {
  const std::filesystem::path name = files.name;
  const auto offset = offset_behind(fault);
  return fmt::format("restore the file from a backup or replica{}",
                     offset
                         ? fmt::format("; or read on behind the damage: ringtail consume {} --partition {} "
                                       "--offset {}",
                                       name.parent_path().string(), name.filename().string(), *offset)
                         : std::string());
}

json to_json(const SegmentVerification& segment) {
  return {{"path", segment.path.string()},
          {"log_start_offset", segment.base_offset.value()},
          {"next_offset", segment.next_offset.value()},
          {"start_position", segment.base_position.value()},
          {"end_position", segment.end_position.value()},
          {"frames", segment.frames},
          {"records", segment.records},
          {"markers", segment.markers},
          {"aborted_frames", segment.aborted_frames},
          {"aborted_records", segment.aborted_records},
          {"pad_frames", segment.pad_frames},
          {"pad_bytes", segment.pad_bytes},
          {"bytes", segment.bytes},
          {"index_entries", segment.index_entries}};
}

json to_json(const std::vector<Verified>& partitions) {
  json object = {{"partitions", json::array()}};
  std::uint64_t records = 0;
  std::uint64_t faults = 0;
  for (const Verified& partition : partitions) {
    json entry = to_json(partition.result.total());
    entry["partition"] = partition.files.name;
    entry["path"] = partition.files.dir.string();
    entry["unsynced_bytes"] = partition.result.unsynced_bytes;
    entry["segments"] = json::array();
    for (const SegmentVerification& segment : partition.result.segments)
      entry["segments"].push_back(to_json(segment));
    entry["faults"] = json::array();
    for (const log::VerifyFault& fault : partition.result.faults) {
      entry["faults"].push_back({{"path", fault.path.string()},
                                 {"position", fault.position.value()},
                                 {"message", fault.message},
                                 {"remedy", remedy_for(partition.files, fault)}});
    }
    records += partition.result.total().records;
    faults += partition.result.faults.size();
    object["partitions"].push_back(std::move(entry));
  }
  object["records"] = records;
  object["faults"] = faults;
  return object;
}

std::vector<std::string> row(std::string name, std::string segments, const SegmentVerification& what,
                             std::uint64_t unsynced_bytes) {
  return {std::move(name),
          std::move(segments),
          fmt::format("{}..{}", what.base_offset.value(), what.next_offset.value()),
          grouped(what.records),
          grouped(what.aborted_records),
          human_bytes(what.bytes),
          human_bytes(what.pad_bytes),
          human_bytes(unsynced_bytes)};
}

std::string to_text(const std::vector<Verified>& partitions, bool each_segment) {
  Table table({"partition", "segments", "offsets", "records", "aborted", "bytes", "padding", "not synced"});
  std::string faults;
  std::uint64_t records = 0;
  std::uint64_t bytes = 0;
  std::size_t count = 0;
  for (const Verified& partition : partitions) {
    const SegmentVerification total = partition.result.total();
    table.add(row(partition.files.name, grouped(partition.result.segments.size()), total,
                  partition.result.unsynced_bytes));
    for (const SegmentVerification& segment : partition.result.segments) {
      if (each_segment) table.add(row("  " + segment.path.filename().string(), "1", segment, 0));
    }
    for (const log::VerifyFault& fault : partition.result.faults) {
      faults += fmt::format("fault: {}, position {}: {}\n  -> {}\n", fault.path.string(),
                            fault.position.value(), fault.message, remedy_for(partition.files, fault));
    }
    count += partition.result.faults.size();
    records += total.records;
    bytes += total.bytes;
  }
  return table.text() + faults +
         fmt::format("verified {} partition{}, {} records, {}: {}\n", partitions.size(),
                     partitions.size() == 1 ? "" : "s", grouped(records), human_bytes(bytes),
                     count == 0 ? "clean" : fmt::format("{} fault{}", grouped(count), count == 1 ? "" : "s"));
}

int log_verify(const GlobalOptions& options, const std::string& path) {
  if (path.empty() && options.dir.empty()) {
    return report_usage(options, "nothing to verify; give PATH or --dir DIR, or set RINGTAIL_DIR");
  }
  const Result<std::vector<PartitionFiles>> found =
      find_partitions(path.empty() ? options.dir.string() : path);
  if (!found) return report(options, found.error());
  std::vector<Verified> partitions;
  bool clean = true;
  for (const PartitionFiles& files : *found) {
    if (interrupt::pending()) return interrupt::exit_code();
    Result<Verified> verified = verify(files);
    if (!verified) return report(options, verified.error());
    clean = clean && verified->result.faults.empty();
    partitions.push_back(std::move(*verified));
  }
  const Status printed =
      print(options.json ? to_json(partitions).dump(-1, ' ', false, json::error_handler_t::replace) + "\n"
                         : to_text(partitions, options.verbosity > 0));
  if (!printed && printed.error().code != Code::closed) return report(options, printed.error());
  return clean ? kDone : kFailed;
}

}  // namespace

void add_log_verify(CLI::App& log, GlobalOptions& options, int& exit_code) {
  auto path = std::make_shared<std::string>();
  CLI::App* command = log.add_subcommand("verify", "Check every frame, checksum, offset and index entry");
  command->add_option("PATH", *path, "A log directory, topic, partition or segment; default: --dir")
      ->type_name("");
  command->footer(
      "Works on files alone, also while producers append: what was not synced yet is no fault. Exits with\n"
      "1 when there is a fault, and says what to do about it. -v shows each segment.\n\n"
      "Example:\n  ringtail log verify /var/lib/ringtail/topics/orders");
  command->callback([&options, &exit_code, path] { exit_code = log_verify(options, *path); });
}

}  // namespace ringtail::tools

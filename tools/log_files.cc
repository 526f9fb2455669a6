#include "tools/log_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace ringtail::tools {
namespace {

namespace fs = std::filesystem;

bool is_segment(const fs::path& path) { return path.extension() == ".log"; }

bool is_number(const std::string& name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
}

Result<std::vector<fs::path>> list(const fs::path& dir) {
  std::error_code error;
  std::vector<fs::path> paths;
  for (fs::directory_iterator entry(dir, error); !error && entry != fs::directory_iterator();
       entry.increment(error)) {
    paths.push_back(entry->path());
  }
  if (error) {
    const Code code = error == std::errc::permission_denied ? Code::permission_denied : Code::not_found;
    return fail(code, fmt::format("cannot list '{}': {}", dir.string(), error.message()), error.value());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

void add_partition(const fs::path& dir, const fs::path& segment, std::vector<PartitionFiles>& out) {
  fs::path full = fs::absolute(dir).lexically_normal();
  if (!full.has_filename()) full = full.parent_path();  // of "."
  out.push_back({dir, full.parent_path().filename() / full.filename(), segment});
}

// The partitions of one topic, by number.
Status add_topic_dir(const fs::path& dir, std::vector<PartitionFiles>& out) {
  Result<std::vector<fs::path>> entries = list(dir);
  if (!entries) return std::unexpected(entries.error());
  std::erase_if(*entries,
                [](const fs::path& path) { return !is_number(path.filename()) || !fs::is_directory(path); });
  // By number, of as many digits as a stranger's directory may have.
  std::ranges::sort(*entries, {}, [](const fs::path& path) {
    return std::pair(path.filename().native().size(), path.filename().native());
  });
  for (const fs::path& partition : *entries) add_partition(partition, {}, out);
  return {};
}

}  // namespace

Result<std::vector<PartitionFiles>> find_partitions(const fs::path& given) {
  // "orders/0/" names the same directory as "orders/0".
  fs::path path = given.has_filename() ? given : given.parent_path();
  std::vector<PartitionFiles> partitions;
  std::error_code ignored;
  // Links on the way are the user's own, but are not followed once files are opened.
  const fs::path real = fs::canonical(path, ignored);
  if (!ignored && real != fs::absolute(path).lexically_normal()) path = real;
  if (is_segment(path) && fs::is_regular_file(path, ignored)) {
    add_partition(path.has_parent_path() ? path.parent_path() : ".", path, partitions);
    return partitions;
  }
  if (fs::is_directory(path / "topics", ignored)) {
    const Result<std::vector<fs::path>> topics = list(path / "topics");
    if (!topics) return std::unexpected(topics.error());
    for (const fs::path& topic : *topics) {
      // '~' marks topics that are being created or deleted.
      if (topic.filename().string().starts_with('~')) continue;
      if (const Status added = add_topic_dir(topic, partitions); !added)
        return std::unexpected(added.error());
    }
    return partitions;
  }
  const Result<std::vector<fs::path>> entries = list(path);
  if (!entries) return std::unexpected(entries.error());
  if (fs::exists(path / "topic.toml", ignored)) {
    if (const Status added = add_topic_dir(path, partitions); !added) return std::unexpected(added.error());
    return partitions;
  }
  const bool of_topic =
      fs::exists(fs::absolute(path).lexically_normal().parent_path() / "topic.toml", ignored);
  if (of_topic || std::any_of(entries->begin(), entries->end(), is_segment)) {
    add_partition(path, {}, partitions);
    return partitions;
  }
  return fail(Code::not_found,
              fmt::format("'{}' is no log directory, topic, partition or segment file", given.string()));
}

Result<std::vector<fs::path>> segment_files(const PartitionFiles& partition) {
  if (!partition.segment.empty()) return std::vector{partition.segment};
  Result<std::vector<fs::path>> paths = list(partition.dir);
  if (paths) std::erase_if(*paths, [](const fs::path& path) { return !is_segment(path); });
  return paths;
}

}  // namespace ringtail::tools

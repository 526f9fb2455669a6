#include "log/catalog.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/access.h"
#include "base/clock.h"
#include "base/files.h"
#include "base/parse.h"
#include "base/random.h"
#include "base/result.h"
#include "base/toml_file.h"
#include "base/topic_config.h"

namespace ringtail::log {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kIdentityFile = "ringtail.toml";
constexpr std::string_view kTopicFile = "topic.toml";
constexpr std::string_view kLockFile = "catalog.lock";
constexpr std::string_view kTopicsDir = "topics";
constexpr std::string_view kNewPrefix = "~new-";
constexpr std::string_view kDeletedPrefix = "~deleted-";
constexpr std::size_t kLogIdDigits = 32;

// The right to change the catalog, held until destruction or the death of the process.
class CatalogLock {
 public:
  // Waits until nobody else has it, or, unless it is to wait, fails with would_block.
  static Result<CatalogLock> acquire(const fs::path& dir, bool wait = true) {
    const fs::path path = dir / kLockFile;
    auto file = open_or_create_file_of_log(path, O_RDWR);
    if (!file) {
      file.error().message =
          fmt::format("cannot change the log in '{}': {}", dir.native(), file.error().message);
      return std::unexpected(file.error());
    }
    CatalogLock lock(std::move(*file));
    while (!lock.set(F_WRLCK, wait ? F_OFD_SETLKW : F_OFD_SETLK)) {
      const int os_errno = errno;
      if (os_errno == EAGAIN || os_errno == EACCES)
        return fail(Code::would_block, fmt::format("another process has locked '{}'", path.native()));
      if (os_errno != EINTR) return fail_errno(os_errno, fmt::format("cannot lock '{}'", path.native()));
    }
    return lock;
  }

  CatalogLock(CatalogLock&&) noexcept = default;
  CatalogLock& operator=(CatalogLock&&) = delete;
  ~CatalogLock() {
    // Not by closing alone: a child forked meanwhile shares the lock, and would keep it.
    if (file_) set(F_UNLCK, F_OFD_SETLK);
  }

 private:
  explicit CatalogLock(Descriptor file) : file_(std::move(file)) {}

  bool set(short type, int command) const {
    struct flock request{};
    request.l_type = type;
    request.l_whence = SEEK_SET;
    return ::fcntl(file_.get(), command, &request) == 0;
  }

  Descriptor file_;
};

Status check_format_version(const TomlFile& file) {
  const auto version = file.integer("format_version");
  if (!version) return std::unexpected(version.error());
  if (*version == kLogFormatVersion) return {};
  return fail(
      Code::incompatible_layout,
      fmt::format("'{}' has format version {}, this build of Ringtail reads version {}; use the version "
                  "that wrote it, or copy its topics over with that",
                  file.path().native(), *version, kLogFormatVersion));
}

Result<std::int64_t> read_created(const TomlFile& file) {
  const auto text = file.text("created");
  if (!text) return std::unexpected(text.error());
  const auto created = parse_time(*text, 0);
  if (!created) return file.refuse("created", created.error().message);
  return *created;
}

Status read_group_settings(const TomlFile& file, LogIdentity& identity) {
  constexpr std::string_view kTable = "groups";
  constexpr std::string_view kRetention = "offsets.retention.ms";
  const auto settings = file.texts(kTable);
  if (!settings) return std::unexpected(settings.error());
  for (const auto& [key, text] : *settings) {
    if (key != kRetention)
      return file.refuse(
          key,
          fmt::format("there is no such setting of groups; remove it, or write \"{}\" = \"7d\"", kRetention),
          kTable);
    const auto retention = parse_duration(text, std::chrono::milliseconds(1));
    if (!retention || *retention < std::chrono::milliseconds(1))
      return file.refuse(key,
                         fmt::format("'{}' is no duration of at least 1ms; write one, for example \"7d\", or "
                                     "remove the line",
                                     text),
                         kTable);
    identity.offsets_retention_ms = std::chrono::duration_cast<std::chrono::milliseconds>(*retention).count();
  }
  return {};
}

Result<LogIdentity> read_identity(const fs::path& dir) {
  const auto file = TomlFile::read(dir / kIdentityFile);
  if (!file) return std::unexpected(file.error());
  if (auto checked = check_format_version(*file); !checked) return std::unexpected(checked.error());
  auto id = file->text("log_id");
  if (!id) return std::unexpected(id.error());
  if (!is_hex(*id, kLogIdDigits)) {
    return file->refuse("log_id", fmt::format("{} lower-case hexadecimal digits are required", kLogIdDigits));
  }
  const auto created = read_created(*file);
  if (!created) return std::unexpected(created.error());
  LogIdentity identity{.id = std::move(*id), .created_ns = *created};
  if (auto read = read_group_settings(*file, identity); !read) return std::unexpected(read.error());
  return identity;
}

Status write_identity(const fs::path& dir) {
  std::array<std::byte, kLogIdDigits / 2> id;
  if (auto filled = fill_random(id); !filled) return filled;
  return write_file_atomically(
      dir / kIdentityFile,
      fmt::format(
          "# A Ringtail log: its identity. The shared memory in use is named after log_id, so a copy of\n"
          "# this directory must not be opened on the same host beside the original.\n"
          "# Positions of consumer groups without members are kept for 7 days, unless lines at the end say\n"
          "# otherwise; they count from the next start of the process that is the keeper:\n"
          "#   [groups]\n"
          "#   \"offsets.retention.ms\" = \"30d\"\n"
          "format_version = {}\n"
          "log_id = \"{}\"\n"
          "created = \"{}\"\n",
          kLogFormatVersion, to_hex(std::span<const std::byte>(id)), format_time(wall_clock_ns())));
}

// Requires the lock to be free. A directory that another process has just given an identity is fine.
Status create_log(const fs::path& dir) {
  const auto lock = CatalogLock::acquire(dir);
  if (!lock) return std::unexpected(lock.error());
  std::error_code error;
  if (fs::exists(dir / kIdentityFile, error)) return {};
  if (fs::is_directory(dir / kTopicsDir, error) && !fs::is_empty(dir / kTopicsDir, error)) {
    return fail(Code::corrupt,
                fmt::format("'{}' has topics, but its '{}' is missing; restore that file, or choose "
                            "another directory",
                            dir.native(), kIdentityFile));
  }
  // The identity comes last, for a directory counts as a log once it has one.
  if (auto made = make_directory(dir / kTopicsDir); !made) return made;
  return write_identity(dir);
}

std::string format_topic(const TopicEntry& entry) {
  std::string text = fmt::format(
      "# A topic of a Ringtail log. Change it with `ringtail topic alter`.\n"
      "format_version = {}\n"
      "topic = \"{}\"\n"
      "topic_id = \"{}\"\n"
      "partitions = {}\n"
      "created = \"{}\"\n",
      kLogFormatVersion, entry.name, to_hex(entry.topic_id), entry.partitions, format_time(entry.created_ns));
  if (entry.replication_factor > 0)
    text += fmt::format("replication_factor = {}\n", entry.replication_factor);
  text += "\n[configs]\n";
  // Neither names nor values of configurations hold a character that TOML would have escaped.
  for (const auto& [name, value] : entry.overrides) text += fmt::format("\"{}\" = \"{}\"\n", name, value);
  return text;
}

Result<TopicEntry> parse_topic(const TomlFile& file, std::string_view name) {
  if (auto checked = check_format_version(file); !checked) return std::unexpected(checked.error());
  TopicEntry entry;
  auto stored_name = file.text("topic");
  if (!stored_name) return std::unexpected(stored_name.error());
  if (*stored_name != name) {
    return file.refuse("topic",
                       fmt::format("it says '{}', but its directory is named '{}'; was the directory "
                                   "renamed or copied?",
                                   *stored_name, name));
  }
  entry.name = std::move(*stored_name);

  const auto id = file.text("topic_id");
  if (!id) return std::unexpected(id.error());
  const auto topic_id = parse_hex(*id);
  if (!topic_id || *topic_id == 0) {
    return file.refuse("topic_id", "16 lower-case hexadecimal digits, not all 0, are required");
  }
  entry.topic_id = *topic_id;

  const auto partitions = file.integer("partitions");
  if (!partitions) return std::unexpected(partitions.error());
  if (*partitions < 1 || *partitions > kMaxTopicPartitions) {
    return file.refuse("partitions", fmt::format("must be 1 to {}", kMaxTopicPartitions));
  }
  entry.partitions = static_cast<std::uint32_t>(*partitions);

  if (constexpr std::string_view kFactor = "replication_factor"; file.has(kFactor)) {
    const auto factor = file.integer(kFactor);
    if (!factor) return std::unexpected(factor.error());
    if (*factor < 1 || *factor > kMaxReplicas)
      return file.refuse(kFactor, fmt::format("must be 1 to {}", kMaxReplicas));
    entry.replication_factor = static_cast<std::uint32_t>(*factor);
  }

  const auto created = read_created(file);
  if (!created) return std::unexpected(created.error());
  entry.created_ns = *created;

  const auto overrides = file.texts("configs");
  if (!overrides) return std::unexpected(overrides.error());
  auto merged = merge_topic_configs({}, *overrides);
  if (!merged) {
    return fail(Code::corrupt, fmt::format("'{}': {}", file.path().native(), merged.error().message));
  }
  entry.overrides = std::move(*merged);
  return entry;
}

std::unexpected<Error> fail_no_topic(std::string_view name) {
  return fail(
      Code::not_found,
      fmt::format("topic '{}' does not exist; create it with `ringtail topic create {}`", name, name));
}

// The names in a directory for which `wanted` holds.
template <class Predicate>
Result<std::vector<std::string>> directory_names(const fs::path& dir, Predicate wanted) {
  std::vector<std::string> names;
  std::error_code error;
  fs::directory_iterator entry(dir, error);
  for (const fs::directory_iterator end; !error && entry != end; entry.increment(error)) {
    std::string name = entry->path().filename();
    if (wanted(name)) names.push_back(std::move(name));
  }
  if (error) return fail_errno(error.value(), fmt::format("cannot list '{}'", dir.native()));
  return names;
}

// What stands there; not_found if nothing does. That it cannot be told is neither. Errors: as system_error.
Result<fs::file_type> type_of(const fs::path& path) {
  std::error_code error;
  const fs::file_type type = fs::status(path, error).type();
  if (type == fs::file_type::not_found || !error) return type;
  return fail_errno(error.value(), fmt::format("cannot look at '{}'", path.native()));
}

bool is_left_behind(const std::string& name) {
  return name.starts_with(kNewPrefix) || name.starts_with(kDeletedPrefix);
}

// Links on the way to the log are the user's; from there on none is followed.
fs::path resolved(const fs::path& dir) {
  std::error_code error;
  const fs::path real = fs::canonical(dir, error);
  return error ? dir : real;
}

}  // namespace

Result<Catalog> Catalog::open(const fs::path& given, bool create_if_missing) {
  fs::path dir = resolved(given);
  auto identity = read_identity(dir);
  if (!identity && identity.error().code == Code::not_found) {
    if (!create_if_missing) {
      return fail(Code::not_found,
                  fmt::format("'{}' is no Ringtail log: it has no '{}'; check the path, or create "
                              "a log there by creating a topic",
                              dir.native(), kIdentityFile));
    }
    if (auto made = make_directories(dir); !made) return std::unexpected(made.error());
    dir = resolved(given);
    if (auto created = create_log(dir); !created) return std::unexpected(created.error());
    identity = read_identity(dir);
  }
  if (!identity) return std::unexpected(identity.error());
  return Catalog(dir, std::move(*identity));
}

fs::path Catalog::topic_dir(std::string_view topic) const { return dir_ / kTopicsDir / topic; }

fs::path Catalog::partition_dir(std::string_view topic, PartitionId partition) const {
  return topic_dir(topic) / std::to_string(partition.value());
}

Result<TopicEntry> Catalog::create_topic(const TopicSpec& spec) const {
  if (auto checked = check_topic_name(spec.name); !checked) return std::unexpected(checked.error());
  if (spec.partitions < 1 || spec.partitions > kMaxTopicPartitions) {
    return fail(Code::invalid_argument,
                fmt::format("topic '{}' cannot have {} partitions; 1 to {} are possible", spec.name,
                            spec.partitions, kMaxTopicPartitions));
  }
  auto overrides = merge_topic_configs({}, spec.configs);
  if (!overrides) return std::unexpected(overrides.error());
  const auto id = random_token();
  if (!id) return std::unexpected(id.error());
  TopicEntry entry{.name = spec.name,
                   .topic_id = *id,
                   .partitions = spec.partitions,
                   .overrides = std::move(*overrides),
                   .created_ns = wall_clock_ns()};
  if (auto adopted = adopt_topic(entry); !adopted) return std::unexpected(adopted.error());
  return entry;
}

Status Catalog::adopt_topic(const TopicEntry& entry) const {
  if (auto checked = check_topic_name(entry.name); !checked) return checked;
  const auto lock = CatalogLock::acquire(dir_);
  if (!lock) return std::unexpected(lock.error());
  std::error_code error;
  if (fs::exists(topic_dir(entry.name), error)) {
    return fail(Code::already_exists, fmt::format("topic '{}' exists already", entry.name));
  }
  const fs::path under_way = topic_dir(fmt::format("{}{}", kNewPrefix, to_hex(entry.topic_id)));
  Status status = build_topic(under_way, entry);
  if (status) status = rename_path(under_way, topic_dir(entry.name));
  if (!status) {
    fs::remove_all(under_way, error);
    return status;
  }
  return sync_directory(dir_ / kTopicsDir);
}

// Everything of a new topic, durable but for the name of its directory.
Status Catalog::build_topic(const fs::path& dir, const TopicEntry& entry) const {
  if (auto made = make_directory(dir); !made) return made;
  for (std::uint32_t partition = 0; partition < entry.partitions; ++partition) {
    if (auto made = make_directory(dir / std::to_string(partition)); !made) return made;
  }
  return write_file_atomically(dir / kTopicFile, format_topic(entry));  // syncs the directory as well
}

Result<TopicEntry> Catalog::load_topic(std::string_view name) const {
  if (auto checked = check_topic_name(name); !checked) return std::unexpected(checked.error());
  const auto file = TomlFile::read(topic_dir(name) / kTopicFile);
  if (file) return parse_topic(*file, name);
  if (file.error().code != Code::not_found) return std::unexpected(file.error());
  const auto type = type_of(topic_dir(name));
  if (!type) return std::unexpected(type.error());
  if (*type == fs::file_type::not_found) return fail_no_topic(name);
  return fail(Code::corrupt, fmt::format("'{}' has no '{}', so it is no topic; move it away",
                                         topic_dir(name).native(), kTopicFile));
}

Result<std::vector<std::string>> Catalog::list_names() const {
  // One that cannot be looked at is not one that was deleted: the keeper would take its ring away.
  std::optional<Error> trouble;
  auto names = directory_names(dir_ / kTopicsDir, [&](const std::string& name) {
    if (!check_topic_name(name)) return false;
    const auto type = type_of(topic_dir(name));
    if (!type) trouble = type.error();
    return type && *type == fs::file_type::directory;
  });
  if (!names) return std::unexpected(names.error());
  if (trouble) return std::unexpected(*trouble);
  std::ranges::sort(*names);
  return names;
}

Result<std::vector<TopicEntry>> Catalog::list_topics() const {
  const auto names = list_names();
  if (!names) return std::unexpected(names.error());
  std::vector<TopicEntry> topics;
  for (const std::string& name : *names) {
    auto topic = load_topic(name);
    if (!topic && topic.error().code == Code::not_found) continue;  // deleted meanwhile
    if (!topic) return std::unexpected(topic.error());
    topics.push_back(std::move(*topic));
  }
  return topics;
}

Result<TopicEntry> Catalog::alter_topic(std::string_view name, const TopicConfigs& changes) const {
  if (auto checked = check_alterable(changes); !checked) return std::unexpected(checked.error());
  if (auto checked = check_topic_name(name); !checked) return std::unexpected(checked.error());
  const auto lock = CatalogLock::acquire(dir_);
  if (!lock) return std::unexpected(lock.error());
  auto entry = load_topic(name);
  if (!entry) return entry;
  auto merged = merge_topic_configs(entry->overrides, changes);
  if (!merged) return std::unexpected(merged.error());
  entry->overrides = std::move(*merged);
  if (auto stored = write_file_atomically(topic_dir(name) / kTopicFile, format_topic(*entry)); !stored) {
    return std::unexpected(stored.error());
  }
  return entry;
}

Result<TopicEntry> Catalog::add_partitions(std::string_view name, std::uint32_t total) const {
  if (auto checked = check_topic_name(name); !checked) return std::unexpected(checked.error());
  const auto lock = CatalogLock::acquire(dir_);
  if (!lock) return std::unexpected(lock.error());
  auto entry = load_topic(name);
  if (!entry || total == entry->partitions) return entry;
  if (total < entry->partitions || total > kMaxTopicPartitions)
    return fail(
        Code::invalid_argument,
        fmt::format("topic '{}' cannot have {} partitions: it has {}, which stay, for records cannot be "
                    "moved; at most {} are possible",
                    name, total, entry->partitions, kMaxTopicPartitions));
  // The topic's file comes last: only what it counts is a partition.
  for (std::uint32_t p = entry->partitions; p < total; ++p)
    if (auto made = make_directory(partition_dir(name, PartitionId(p))); !made)
      return std::unexpected(made.error());
  if (auto synced = sync_directory(topic_dir(name)); !synced) return std::unexpected(synced.error());
  entry->partitions = total;
  if (auto stored = write_file_atomically(topic_dir(name) / kTopicFile, format_topic(*entry)); !stored)
    return std::unexpected(stored.error());
  return entry;
}

Status Catalog::delete_topic(std::string_view name) const {
  if (auto checked = check_topic_name(name); !checked) return checked;
  fs::path remains;
  {
    const auto lock = CatalogLock::acquire(dir_);
    if (!lock) return std::unexpected(lock.error());
    const auto entry = load_topic(name);
    // A topic whose file cannot be understood can still be got rid of.
    if (!entry && entry.error().code != Code::corrupt) return std::unexpected(entry.error());
    const auto id = entry ? Result<std::uint64_t>(entry->topic_id) : random_token();
    if (!id) return std::unexpected(id.error());
    remains = topic_dir(fmt::format("{}{}", kDeletedPrefix, to_hex(*id)));
    if (auto renamed = rename_path(topic_dir(name), remains); !renamed) return renamed;
    if (auto synced = sync_directory(dir_ / kTopicsDir); !synced) return synced;
  }
  std::error_code ignored;  // the topic is gone; purge_deleted comes back for what is left of its files
  fs::remove_all(remains, ignored);
  return {};
}

Status Catalog::purge_deleted() const {
  const fs::path topics = dir_ / kTopicsDir;
  const auto seen = directory_names(topics, is_left_behind);
  if (!seen) return std::unexpected(seen.error());
  if (seen->empty()) return {};
  // Whoever has it may stand still, and a keeper must not: what is left behind waits for the next.
  const auto lock = CatalogLock::acquire(dir_, false);
  if (!lock) return lock.error().code == Code::would_block ? Status{} : std::unexpected(lock.error());
  // Looked up again: with the lock held, no creation is under way.
  const auto names = directory_names(topics, is_left_behind);
  if (!names) return std::unexpected(names.error());
  for (const std::string& name : *names) {
    std::error_code error;
    fs::remove_all(topics / name, error);
    if (error) return fail_errno(error.value(), fmt::format("cannot remove '{}'", (topics / name).native()));
  }
  return {};
}

}  // namespace ringtail::log

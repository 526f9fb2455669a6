// The catalog: what topics a log directory has, as it stands on disk.
//
//   <dir>/ringtail.toml                       the log's identity and format version
//   <dir>/catalog.lock                        locked around every change
//   <dir>/topics/<topic>/topic.toml           id, partitions and configuration of a topic
//   <dir>/topics/<topic>/<partition>/         its segment files
//   <dir>/topics/~new-<id>, ~deleted-<id>     a creation or deletion on its way ('~' cannot begin the
//                                             name of a topic), removed by purge_deleted
//
// Every change is one rename, so a crash leaves the old state or the new. Other processes learn of a
// change through the control segment, not from here.
//
// Thread safety: all members may be called from any thread. Process safety: changes exclude each other
// through an open-file-description lock, which the kernel drops at the death of its holder; readers
// need no lock. Lifetime: holds no descriptor between calls.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "ringtail/admin.h"
#include "ringtail/error.h"
#include "ringtail/types.h"

namespace ringtail::log {

inline constexpr std::int64_t kLogFormatVersion = 1;
inline constexpr std::uint32_t kMaxTopicPartitions = 4096;
inline constexpr std::int64_t kMaxReplicas = 16;

struct LogIdentity {
  std::string id;               // 32 hexadecimal digits, random
  std::int64_t created_ns = 0;  // since the Unix epoch
  // How long positions of groups without members are kept: "offsets.retention.ms" in table "groups".
  std::int64_t offsets_retention_ms = 7LL * 24 * 3600 * 1000;
};

struct TopicEntry {
  std::string name;
  std::uint64_t topic_id = 0;  // random, never 0; tells a topic from a later one of the same name
  std::uint32_t partitions = 0;
  std::uint32_t replication_factor = 0;  // how many hosts are to have it; 0: it is not replicated
  TopicConfigs overrides;                // valid together, in the spelling of format_topic_config
  std::int64_t created_ns = 0;

  friend bool operator==(const TopicEntry&, const TopicEntry&) = default;
};

class Catalog {
 public:
  // Opens the log in `dir`; with `create_if_missing` gives the directory an identity if it has none.
  // Of several processes that do so at once, one creates and the others open. Needs no write access
  // to a log that exists. Durable on return: directory and identity.
  // Errors: not_found, permission_denied, read_only, no_space, corrupt, incompatible_layout, system.
  // Blocks on the disk.
  static Result<Catalog> open(const std::filesystem::path& dir, bool create_if_missing);

  const std::filesystem::path& dir() const { return dir_; }
  const LogIdentity& identity() const { return identity_; }
  std::filesystem::path topic_dir(std::string_view topic) const;
  std::filesystem::path partition_dir(std::string_view topic, PartitionId partition) const;

  // Creates the topic with its partition directories. Durable on return. Nothing is left of it after
  // a failure. Errors: invalid_argument (name, partitions, configuration), already_exists,
  // permission_denied, read_only, no_space, system. Blocks on the disk and on the lock.
  Result<TopicEntry> create_topic(const TopicSpec& spec) const;

  // The same for a topic that other hosts have, too: its id is given. Errors: as create_topic.
  Status adopt_topic(const TopicEntry& entry) const;

  // Errors: invalid_argument (name), not_found, permission_denied, corrupt, incompatible_layout, system.
  // Blocks on the disk.
  Result<TopicEntry> load_topic(std::string_view name) const;
  // Their names in alphabetical order, also of those that cannot be loaded. Errors: permission_denied, system.
  Result<std::vector<std::string>> list_names() const;
  // All topics in alphabetical order. Errors: those of load_topic for any of them but not_found.
  Result<std::vector<TopicEntry>> list_topics() const;

  // Sets the given configurations and leaves the others; an empty value restores the default. Durable
  // on return. Errors: those of load_topic, invalid_argument (also for a configuration that cannot be
  // altered), read_only, no_space. Blocks on the disk and on the lock.
  Result<TopicEntry> alter_topic(std::string_view name, const TopicConfigs& changes) const;

  // Gives the topic so many partitions; as many as it has is no change. Durable on return. A crash before
  // leaves the topic as it was, perhaps with empty directories of partitions that do not count.
  // Errors: those of load_topic, invalid_argument (fewer than it has, or too many), read_only, no_space.
  // Blocks on the disk and on the lock.
  Result<TopicEntry> add_partitions(std::string_view name, std::uint32_t total) const;

  // Deletes the topic with its segments. Durable on return, even where files remain to be removed by
  // purge_deleted. A corrupt topic can be deleted, too. Errors: those of load_topic but corrupt,
  // read_only. Blocks on the disk and on the lock.
  Status delete_topic(std::string_view name) const;

  // Removes what creations and deletions left behind that were cut short. Touches nothing when there is
  // nothing. Errors: permission_denied, read_only, system. Blocks on the disk and on the lock.
  Status purge_deleted() const;

 private:
  Catalog(std::filesystem::path dir, LogIdentity identity)
      : dir_(std::move(dir)), identity_(std::move(identity)) {}

  Status build_topic(const std::filesystem::path& dir, const TopicEntry& entry) const;

  std::filesystem::path dir_;
  LogIdentity identity_;
};

}  // namespace ringtail::log

#include "base/topic_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <span>

#include "base/parse.h"

namespace ringtail {
namespace {

enum class Unit : std::uint8_t { count, bytes, milliseconds, ratio, choice };

// One configuration. Numbers are reached through `number`; choices, whose members have a type each,
// through a pair of functions that deal in the index of the choice.
struct Entry {
  std::string_view name;
  bool alterable = true;
  Unit unit = Unit::count;
  std::string_view description;
  std::int64_t TopicConfig::* number = nullptr;
  std::int64_t min = 0;
  std::int64_t max = 0;
  std::span<const std::string_view> choices = {};
  std::string_view synonym = {};  // of the last choice
  void (*choose)(TopicConfig&, std::size_t) = nullptr;
  std::size_t (*chosen)(const TopicConfig&) = nullptr;
};

template <auto member>
void choose(TopicConfig& config, std::size_t index) {
  using Enum = std::remove_reference_t<decltype(config.*member)>;
  config.*member = static_cast<Enum>(index);
}

template <auto member>
std::size_t chosen(const TopicConfig& config) {
  return static_cast<std::size_t>(config.*member);
}

// In the order of the enumerators.
constexpr std::string_view kStorages[] = {"disk", "memory"};
constexpr std::string_view kReplicaAcks[] = {"durable", "memory"};
constexpr std::string_view kUncleanElections[] = {"false", "true"};
constexpr std::string_view kOnFulls[] = {"block", "fail", "overwrite"};
constexpr std::string_view kTimestampTypes[] = {"CreateTime", "LogAppendTime"};
constexpr std::string_view kCleanupPolicies[] = {"delete", "compact", "compact,delete"};

constexpr std::int64_t kMaxMs = std::numeric_limits<std::int64_t>::max() / 1'000'000;  // as nanoseconds
constexpr std::int64_t kMaxBytes = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kHourMs = 3'600'000;
constexpr std::int64_t kFrameHeader = 32;
constexpr std::int64_t kLargestFramePerTerm = 8;

constexpr Entry kTable[] = {
    {.name = "claim.timeout.ms",
     .unit = Unit::milliseconds,
     .description = "How long a producer that lives may stand between claim and commit before its record is "
                    "given up",
     .number = &TopicConfig::claim_timeout_ms,
     .min = 10,
     .max = kHourMs},
    {.name = "cleanup.policy",
     .unit = Unit::choice,
     .description =
         "What becomes of old records: past retention they are deleted, or (compact) of each key the "
         "latest is kept, or both",
     .choices = kCleanupPolicies,
     .synonym = "delete,compact",
     .choose = choose<&TopicConfig::cleanup_policy>,
     .chosen = chosen<&TopicConfig::cleanup_policy>},
    {.name = "delete.retention.ms",
     .unit = Unit::milliseconds,
     .description =
         "How long a record without value is kept in a compacted topic, once no older record of its "
         "key is there",
     .number = &TopicConfig::delete_retention_ms,
     .min = 0,
     .max = kMaxMs},
    {.name = "flush.ms",
     .unit = Unit::milliseconds,
     .description = "At most how long a record stays unsynced",
     .number = &TopicConfig::flush_interval_ms,
     .min = 1,
     .max = kHourMs},
    {.name = "index.interval.bytes",
     .unit = Unit::bytes,
     .description = "How many bytes of records lie between two entries of a segment's index",
     .number = &TopicConfig::index_interval_bytes,
     .min = 4 << 10,
     .max = 1LL << 30},
    {.name = "max.compaction.lag.ms",
     .unit = Unit::milliseconds,
     .description = "How long a record may stay uncompacted in a compacted topic; -1 leaves that to "
                    "min.cleanable.dirty.ratio",
     .number = &TopicConfig::max_compaction_lag_ms,
     .min = -1,
     .max = kMaxMs},
    {.name = "max.message.bytes",
     .unit = Unit::bytes,
     .description = "Largest record: key, value and headers; at most an eighth of term.bytes",
     .number = &TopicConfig::max_message_bytes,
     .min = 1,
     .max = 8LL << 20},
    {.name = "message.timestamp.type",
     .alterable = false,
     .unit = Unit::choice,
     .description = "Whether a record carries the time its producer gives it or the time of its append",
     .choices = kTimestampTypes,
     .choose = choose<&TopicConfig::timestamp_type>,
     .chosen = chosen<&TopicConfig::timestamp_type>},
    {.name = "min.cleanable.dirty.ratio",
     .unit = Unit::ratio,
     .description = "Which part of a compacted topic's closed segments must be new for them to be compacted",
     .number = &TopicConfig::min_cleanable_dirty_billionths,
     .min = 0,
     .max = kBillionths},
    {.name = "min.compaction.lag.ms",
     .unit = Unit::milliseconds,
     .description = "How long a record stays uncompacted in a compacted topic, at least",
     .number = &TopicConfig::min_compaction_lag_ms,
     .min = 0,
     .max = kMaxMs},
    {.name = "min.insync.replicas",
     .description = "How many in-sync replicas must have a record before acks=all returns",
     .number = &TopicConfig::min_insync_replicas,
     .min = 1,
     .max = 64},
    {.name = "on.full",
     .unit = Unit::choice,
     .description = "What an append does when the ring is full: wait, return would_block, or (only with "
                    "storage=memory) take the place of the oldest records",
     .choices = kOnFulls,
     .choose = choose<&TopicConfig::on_full>,
     .chosen = chosen<&TopicConfig::on_full>},
    {.name = "reader.pin.ms",
     .unit = Unit::milliseconds,
     .description = "How long a reader may hold ring space that is needed before the ring is retired",
     .number = &TopicConfig::reader_pin_ms,
     .min = 1,
     .max = kHourMs},
    {.name = "replica.ack",
     .unit = Unit::choice,
     .description = "When a replica counts as having a record, for acks=all: once it is synced, or once it is "
                    "in the replica's memory. A topic with storage=memory: always memory",
     .choices = kReplicaAcks,
     .choose = choose<&TopicConfig::replica_ack>,
     .chosen = chosen<&TopicConfig::replica_ack>},
    {.name = "retention.bytes",
     .unit = Unit::bytes,
     .description = "Bytes of segments to keep for each partition; -1 keeps all",
     .number = &TopicConfig::retention_bytes,
     .min = -1,
     .max = kMaxBytes},
    {.name = "retention.ms",
     .unit = Unit::milliseconds,
     .description = "How long records are kept; -1 keeps them for ever",
     .number = &TopicConfig::retention_ms,
     .min = -1,
     .max = kMaxMs},
    {.name = "ring.terms",
     .alterable = false,
     .description = "Number of terms in the ring of a partition",
     .number = &TopicConfig::ring_terms,
     .min = 4,
     .max = 64},
    {.name = "segment.bytes",
     .unit = Unit::bytes,
     .description = "Size at which a segment file is closed and the next one begun",
     .number = &TopicConfig::segment_bytes,
     .min = 1 << 20,
     .max = 2LL << 30},
    {.name = "segment.ms",
     .unit = Unit::milliseconds,
     .description = "Age at which a segment file is closed and the next one begun",
     .number = &TopicConfig::segment_ms,
     .min = 1,
     .max = kMaxMs},
    {.name = "storage",
     .alterable = false,
     .unit = Unit::choice,
     .description = "Whether records are written to segment files or live in the ring alone",
     .choices = kStorages,
     .choose = choose<&TopicConfig::storage>,
     .chosen = chosen<&TopicConfig::storage>},
    {.name = "term.bytes",
     .alterable = false,
     .unit = Unit::bytes,
     .description = "Size of a term, one slice of the ring; a power of two",
     .number = &TopicConfig::term_bytes,
     .min = 64 << 10,
     .max = 64 << 20},
    {.name = "unclean.leader.election.enable",
     .unit = Unit::choice,
     .description = "Whether a replica that may lack acknowledged records may lead when no other can; then "
                    "these are lost",
     .choices = kUncleanElections,
     .choose = choose<&TopicConfig::unclean_election>,
     .chosen = chosen<&TopicConfig::unclean_election>},
};
static_assert(std::ranges::is_sorted(kTable, {}, &Entry::name));

const Entry* find_entry(std::string_view name) {
  const auto* entry = std::ranges::find(kTable, name, &Entry::name);
  return entry == std::end(kTable) ? nullptr : entry;
}

std::unexpected<Error> fail_unknown(std::string_view name) {
  std::vector<std::string_view> names;
  for (const Entry& entry : kTable) names.push_back(entry.name);
  return fail(Code::invalid_argument, fmt::format("there is no topic configuration '{}'; there are {}", name,
                                                  fmt::join(names, ", ")));
}

std::string allowed_values(const Entry& entry) {
  if (entry.unit == Unit::choice) return fmt::format("{}", fmt::join(entry.choices, " | "));
  if (entry.unit == Unit::ratio) {
    return fmt::format("{} to {}", format_decimal(entry.min), format_decimal(entry.max));
  }
  return fmt::format("{} to {}", entry.min, entry.max);
}

std::string value_text(const Entry& entry, const TopicConfig& config) {
  if (entry.unit == Unit::choice) return std::string(entry.choices[entry.chosen(config)]);
  if (entry.unit == Unit::ratio) return format_decimal(config.*entry.number);
  return std::to_string(config.*entry.number);
}

Result<std::int64_t> parse_number(const Entry& entry, std::string_view text) {
  if (entry.unit == Unit::bytes) return parse_bytes(text);
  if (entry.unit == Unit::ratio) return parse_decimal(text);
  if (entry.unit == Unit::count || text == "-1") return parse_integer(text);
  const auto duration = parse_duration(text, std::chrono::milliseconds(1));
  if (!duration) return std::unexpected(duration.error());
  const auto whole = std::chrono::duration_cast<std::chrono::milliseconds>(*duration);
  if (whole != *duration) {
    return fail(Code::invalid_argument, fmt::format("'{}' is not a whole number of milliseconds", text));
  }
  return whole.count();
}

Status set_entry(const Entry& entry, std::string_view text, TopicConfig& config) {
  if (entry.unit == Unit::choice) {
    const bool by_synonym = !entry.synonym.empty() && text == entry.synonym;
    const auto choice = std::ranges::find(entry.choices, by_synonym ? entry.choices.back() : text);
    if (choice == entry.choices.end()) {
      return fail(Code::invalid_argument,
                  fmt::format("{}={} is not possible; values: {}", entry.name, text, allowed_values(entry)));
    }
    entry.choose(config, static_cast<std::size_t>(choice - entry.choices.begin()));
    return {};
  }
  const auto number = parse_number(entry, text);
  if (!number) {
    return fail(Code::invalid_argument, fmt::format("{}: {}", entry.name, number.error().message));
  }
  if (*number < entry.min || *number > entry.max) {
    return fail(Code::invalid_argument,
                fmt::format("{}={} is out of range; values: {}", entry.name, text, allowed_values(entry)));
  }
  config.*entry.number = *number;
  return {};
}

Status check_combination(const TopicConfig& config, std::int64_t largest_message) {
  if (!std::has_single_bit(static_cast<std::uint64_t>(config.term_bytes))) {
    const auto up = std::bit_ceil(static_cast<std::uint64_t>(config.term_bytes));
    return fail(Code::invalid_argument,
                fmt::format("term.bytes={} is no power of two; the next one is {}", config.term_bytes, up));
  }
  if (config.max_message_bytes > largest_message) {
    const auto needed = static_cast<std::uint64_t>(config.max_message_bytes);
    return fail(
        Code::invalid_argument,
        fmt::format(
            "max.message.bytes={} is over {}, an eighth of term.bytes={}; raise term.bytes to {} when "
            "creating the topic",
            config.max_message_bytes, largest_message, config.term_bytes,
            std::bit_ceil(needed) * kLargestFramePerTerm));
  }
  if (config.max_message_bytes + kFrameHeader > config.segment_bytes) {
    return fail(Code::invalid_argument,
                fmt::format("a record of max.message.bytes={} does not fit into segment.bytes={}; raise "
                            "segment.bytes",
                            config.max_message_bytes, config.segment_bytes));
  }
  if (config.on_full == OnFull::overwrite && config.storage != Storage::memory) {
    return fail(Code::invalid_argument,
                "on.full=overwrite would lose records on their way to disk; use it with "
                "storage=memory, or choose block or fail");
  }
  if (config.compacts() && config.storage == Storage::memory) {
    return fail(Code::invalid_argument,
                fmt::format("cleanup.policy={} rewrites segment files, and storage=memory has none; use "
                            "storage=disk, or cleanup.policy=delete",
                            kCleanupPolicies[chosen<&TopicConfig::cleanup_policy>(config)]));
  }
  return {};
}

}  // namespace

Result<TopicConfig> parse_topic_config(const TopicConfigs& overrides) {
  TopicConfig config;
  for (const auto& [name, text] : overrides) {
    const Entry* entry = find_entry(name);
    if (entry == nullptr) return fail_unknown(name);
    if (auto set = set_entry(*entry, text, config); !set) return std::unexpected(set.error());
  }
  const std::int64_t largest_message = config.term_bytes / kLargestFramePerTerm;
  if (!overrides.contains("max.message.bytes")) {
    config.max_message_bytes =
        std::min({config.max_message_bytes, largest_message, config.segment_bytes - kFrameHeader});
  }
  if (auto checked = check_combination(config, largest_message); !checked) {
    return std::unexpected(checked.error());
  }
  return config;
}

TopicConfigs format_topic_config(const TopicConfig& config) {
  TopicConfigs texts;
  for (const Entry& entry : kTable) texts.emplace(entry.name, value_text(entry, config));
  return texts;
}

Result<TopicConfigs> merge_topic_configs(const TopicConfigs& overrides, const TopicConfigs& changes) {
  TopicConfigs merged = overrides;
  for (const auto& [name, text] : changes) {
    if (find_entry(name) == nullptr) return fail_unknown(name);
    if (text.empty()) {
      merged.erase(name);
    } else {
      merged.insert_or_assign(name, text);
    }
  }
  const auto config = parse_topic_config(merged);
  if (!config) return std::unexpected(config.error());
  for (auto& [name, text] : merged) text = value_text(*find_entry(name), *config);
  return merged;
}

Status check_alterable(const TopicConfigs& changes) {
  for (const auto& [name, text] : changes) {
    const Entry* entry = find_entry(name);
    if (entry == nullptr) return fail_unknown(name);
    if (!entry->alterable) {
      return fail(Code::invalid_argument,
                  fmt::format("{} is fixed when a topic is created; create another topic with {}={}", name,
                              name, text.empty() ? value_text(*entry, TopicConfig{}) : text));
    }
  }
  return {};
}

std::vector<ConfigReference> topic_config_reference() {
  struct Texts {
    std::string default_value;
    std::string values;
  };
  // ConfigReference only refers to its texts, so they live as long as the process.
  static const std::vector<Texts> texts = [] {
    std::vector<Texts> all;
    for (const Entry& entry : kTable)
      all.push_back({value_text(entry, TopicConfig{}), allowed_values(entry)});
    return all;
  }();
  std::vector<ConfigReference> reference;
  for (std::size_t i = 0; i < std::size(kTable); ++i) {
    reference.push_back({kTable[i].name, texts[i].default_value, texts[i].values, kTable[i].description,
                         kTable[i].alterable});
  }
  return reference;
}

Status check_topic_name(std::string_view name) {
  constexpr std::size_t kMaxLength = 200;
  const auto refuse = [](std::string message) { return fail(Code::invalid_argument, std::move(message)); };
  if (name.empty()) return refuse("a topic name cannot be empty");
  if (name.size() > kMaxLength) {
    return refuse(fmt::format("the topic name '{}...' has {} characters, at most {} are allowed",
                              name.substr(0, 20), name.size(), kMaxLength));
  }
  if (name == "." || name == "..") return refuse(fmt::format("'{}' cannot be the name of a topic", name));
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  };
  const auto bad = std::ranges::find_if_not(name, allowed);
  if (bad == name.end()) return {};
  constexpr std::string_view kRule = "a name is made of letters, digits, '.', '_' and '-'";
  if (*bad >= ' ' && *bad <= '~') {
    return refuse(fmt::format("the topic name '{}' contains '{}'; {}", name, *bad, kRule));
  }
  return refuse(fmt::format("the topic name contains byte 0x{:02x} at {}; {}",
                            static_cast<unsigned char>(*bad), bad - name.begin(), kRule));
}

}  // namespace ringtail

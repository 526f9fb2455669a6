// Stories of topics: records, segments, compaction, the catalog.
#include <fmt/format.h>

#include <map>
#include <optional>
#include <set>

#include "crash/story.h"
#include "log/compaction.h"

namespace ringtail::crash {
namespace {

constexpr std::size_t kValueBytes = 3000;

// A value tells its number; a third of the values is a block long or nearly.
std::string value_of(std::uint64_t number) {
  std::string value = std::to_string(number) + ' ';
  value.resize(kValueBytes + number * 37 % 1200, static_cast<char>('a' + number % 26));
  return value;
}
std::optional<std::uint64_t> number_of(std::string_view value) {
  const std::uint64_t number = std::strtoull(std::string(value.substr(0, 24)).c_str(), nullptr, 10);
  return value == value_of(number) ? std::optional(number) : std::nullopt;
}

const TopicConfigs kSmall{{"term.bytes", "64KiB"},
                          {"ring.terms", "4"},
                          {"segment.bytes", "1MiB"},
                          {"index.interval.bytes", "8KiB"}};

TopicConfigs with(TopicConfigs configs, const TopicConfigs& more) {
  configs.insert(more.begin(), more.end());
  return configs;
}

Status ensure_topic(const Log& log, const char* name, const TopicConfigs& configs) {
  const Status created = Admin(log).create_topic({.name = name, .configs = configs});
  if (!created && created.error().code == Code::already_exists) return {};
  return created;
}

bool has_topic(const Log& log, std::string_view name) {
  const auto topics = Admin(log).list_topics();
  return topics && std::ranges::find(*topics, name) != topics->end();
}

// A record as it was read, without its filler.
struct Numbered {
  std::uint64_t number;
  std::string key;
};

// All records of a topic of one partition. Empty, or what is wrong.
std::string read_numbers(const Log& log, const char* topic, std::vector<Numbered>& into) {
  auto consumer = Consumer::open(log);
  if (!consumer) return to_string(consumer.error());
  const TopicPartition partition{topic, PartitionId(0)};
  if (auto assigned = consumer->assign(topic); !assigned) return to_string(assigned.error());
  auto end = consumer->end_offset(partition);
  if (!end) return to_string(end.error());
  while (consumer->position(partition)->value() < end->value()) {
    auto records = consumer->poll(std::chrono::seconds(50));
    if (!records) return to_string(records.error());
    if (records->empty() && consumer->position(partition)->value() < end->value())
      return "the log stands still";
    for (const Record& record : *records) {
      const auto number = number_of(record.value);
      if (!number) return fmt::format("offset {} has a value that nobody sent", record.offset.value());
      into.push_back({*number, std::string(record.key)});
    }
  }
  return {};
}

// --- Segments, and compaction --------------------------------------------------------------------

enum NumberMark : std::size_t { kAttempted, kReturned, kDurable };

class NumberStory : public Story {
 public:
  std::string tell(const Scene& scene, KeeperMode mode, StoryPage& page) override {
    if (auto wrong = send_records(scene, mode, page, kRecords); !wrong.empty()) return wrong;
    return afterwards(scene, mode);
  }

  std::string check(const Scene& scene, StoryPage& page, Loss loss) override {
    std::vector<Numbered> records;
    {
      auto log = scene.open(KeeperMode::embedded);
      if (!log) return to_string(log.error());
      if (has_topic(*log, kTopic))
        if (auto wrong = read_numbers(*log, kTopic, records); !wrong.empty()) return wrong;
    }
    if (auto wrong = verify_log(scene.dir()); !wrong.empty()) return wrong;
    const std::uint64_t next = records.empty() ? 0 : records.back().number + 1;
    const std::uint64_t promised = page.marks[loss == Loss::host ? kDurable : kReturned].load();
    if (next < promised) return fmt::format("{} records were promised, {} are there", promised, next);
    if (next > page.marks[kAttempted].load()) return fmt::format("number {} was never sent", next - 1);
    if (auto wrong = check_numbers(records); !wrong.empty()) return wrong;
    // It was closed in good order.
    for (const std::size_t mark : {kAttempted, kReturned, kDurable}) page.marks[mark].store(next);
    return send_records(scene, KeeperMode::embedded, page, 5);
  }

 protected:
  static constexpr std::uint64_t kRecords = 330;  // more than a segment has room for

  virtual TopicConfigs configs() const = 0;
  virtual std::string key_of(std::uint64_t) const { return {}; }
  virtual std::string afterwards(const Scene&, KeeperMode) { return {}; }
  virtual std::string check_numbers(const std::vector<Numbered>& records) const = 0;

 private:
  std::string send_records(const Scene& scene, KeeperMode mode, StoryPage& page,
                           std::uint64_t records) const {
    auto log = scene.open(mode);
    if (!log) return to_string(log.error());
    if (auto ensured = ensure_topic(*log, kTopic, configs()); !ensured) return to_string(ensured.error());
    auto producer = Producer::open(*log, {.topic = kTopic});
    if (!producer) return to_string(producer.error());
    std::uint64_t number = page.marks[kAttempted].load();
    for (const std::uint64_t end = number + records; number < end; ++number) {
      page.marks[kAttempted].store(number + 1);
      const std::string key = key_of(number);
      auto sent = producer->send({.key = key, .value = value_of(number)});
      if (!sent) return to_string(producer->error());
      page.marks[kReturned].store(number + 1);
      if (number % 16 != 0) continue;
      if (!producer->wait_durable(*sent)) return to_string(producer->error());
      page.marks[kDurable].store(number + 1);
    }
    if (!producer->flush()) return to_string(producer->error());
    page.marks[kDurable].store(number);
    return {};
  }
};

class SegmentStory final : public NumberStory {
 protected:
  TopicConfigs configs() const override { return with(kSmall, {{"retention.bytes", "2MiB"}}); }
  // Of the beginning whole segments may be gone, of the rest nothing.
  std::string check_numbers(const std::vector<Numbered>& records) const override {
    for (std::size_t i = 1; i < records.size(); ++i)
      if (records[i].number != records[i - 1].number + 1)
        return fmt::format("number {} follows {}", records[i].number, records[i - 1].number);
    return {};
  }
};

class CompactionStory final : public NumberStory {
 protected:
  TopicConfigs configs() const override {
    return with(kSmall, {{"cleanup.policy", "compact"},
                         {"min.cleanable.dirty.ratio", "0.01"},
                         {"min.compaction.lag.ms", "0"}});
  }
  std::string key_of(std::uint64_t number) const override { return std::to_string(number % kKeys); }
  // A keeper begins with a round of compaction; it is over when it has said how far it came.
  std::string afterwards(const Scene& scene, KeeperMode mode) override {
    if (mode == KeeperMode::none) return {};
    const Offset before = log::load_first_dirty(scene.partition_dir());
    auto log = scene.open(mode);
    if (!log) return to_string(log.error());
    for (int looks = 0; looks < 1000 && log::load_first_dirty(scene.partition_dir()) == before; ++looks)
      ::usleep(1000);
    return {};
  }
  std::string check_numbers(const std::vector<Numbered>& records) const override {
    std::map<std::string, std::uint64_t> latest;
    for (std::size_t i = 0; i < records.size(); ++i) {
      if (i > 0 && records[i].number <= records[i - 1].number)
        return fmt::format("number {} follows {}", records[i].number, records[i - 1].number);
      if (records[i].key != key_of(records[i].number))
        return fmt::format("number {} has key '{}'", records[i].number, records[i].key);
      latest[records[i].key] = records[i].number;
    }
    const std::uint64_t next = records.empty() ? 0 : records.back().number + 1;
    for (std::uint64_t number = next > kKeys ? next - kKeys : 0; number < next; ++number)
      if (const auto found = latest.find(key_of(number)); found == latest.end() || found->second != number)
        return fmt::format("number {}, the last one of its key, is not there", number);
    return {};
  }

 private:
  static constexpr std::uint64_t kKeys = 7;
};

// --- The catalog ---------------------------------------------------------------------------------

class CatalogStory final : public Story {
 public:
  std::string tell(const Scene& scene, KeeperMode mode, StoryPage& page) override {
    auto log = scene.open(mode);
    if (!log) return to_string(log.error());
    Admin admin(*log);
    const std::uint64_t first = load(page).topic + 1;
    page.marks[kFirst].store(first);
    for (std::uint64_t topic = first; topic < first + kRounds; ++topic) {
      for (std::uint64_t step = kCreate; step <= kDelete; ++step) {
        store(page, {topic, step, step - 1});
        if (auto wrong = take_step(*log, admin, topic, step); !wrong.empty()) return wrong;
        store(page, {topic, step, step});
      }
    }
    return {};
  }

  std::string check(const Scene& scene, StoryPage& page, Loss) override {
    {
      auto log = scene.open(KeeperMode::embedded);
      if (!log) return to_string(log.error());
      if (auto wrong = check_topics(*log, page); !wrong.empty()) return wrong;
    }
    for (const auto& entry : std::filesystem::directory_iterator(scene.dir() / "topics"))
      if (entry.path().filename().native().starts_with('~'))
        return fmt::format("'{}' is left", entry.path().string());
    return verify_log(scene.dir());
  }

 private:
  enum Mark : std::size_t { kProgress, kFirst };
  enum Step : std::uint64_t { kNothing, kCreate, kSend, kAlter, kGrow, kDelete };  // of all others
  static constexpr std::uint64_t kRounds = 3;

  struct Progress {
    std::uint64_t topic;
    std::uint64_t begun;
    std::uint64_t done;
  };
  static Progress load(const StoryPage& page) {
    const std::uint64_t word = page.marks[kProgress].load();
    return {word >> 16, word >> 8 & 0xff, word & 0xff};
  }
  static void store(StoryPage& page, const Progress& at) {
    page.marks[kProgress].store(at.topic << 16 | at.begun << 8 | at.done);
  }

  static std::string name_of(std::uint64_t topic) { return "t" + std::to_string(topic); }

  static std::string take_step(const Log& log, Admin& admin, std::uint64_t topic, std::uint64_t step) {
    const std::string name = name_of(topic);
    Status done;
    switch (step) {
      case kCreate: done = admin.create_topic({.name = name, .partitions = 2, .configs = kSmall}); break;
      case kAlter:
        done = admin.alter_topic(name, {{"retention.ms", std::to_string(topic * 1'000'000)}});
        break;
      case kGrow: done = admin.create_partitions(name, 3); break;
      case kDelete:
        for (const std::string& other : topics_of(log))
          if (other != name && done) done = admin.delete_topic(other);
        break;
      default: return send_one(log, name, 0, topic);
    }
    return done ? std::string() : to_string(done.error());
  }
  static std::string send_one(const Log& log, const std::string& topic, std::uint32_t partition,
                              std::uint64_t number) {
    auto producer = Producer::open(log, {.topic = topic, .durable = true});
    if (!producer) return to_string(producer.error());
    auto sent = producer->send({.value = value_of(number), .partition = PartitionId(partition)});
    return sent ? std::string() : to_string(producer->error());
  }

  static std::set<std::string> topics_of(const Log& log) {
    const auto names = Admin(log).list_topics();
    std::set<std::string> topics;
    for (std::size_t i = 0; names && i < names->size(); ++i)
      if (!(*names)[i].starts_with("__")) topics.insert((*names)[i]);
    return topics;
  }

  // Durable on return is what every step is.
  std::string check_topics(const Log& log, const StoryPage& page) {
    const auto [topic, begun, done] = load(page);
    std::set<std::string> there = topics_of(log);
    const bool is_there = there.contains(name_of(topic));
    if (done >= kCreate && !is_there) return name_of(topic) + " is gone";
    if (begun < kCreate && is_there) return name_of(topic) + " was never created";
    const std::set<std::string> others =
        topic > page.marks[kFirst].load() ? std::set{name_of(topic - 1)} : seen_;
    for (const std::string& name : there)
      if (name != name_of(topic) && (done >= kDelete || !others.contains(name))) return name + " is there";
    for (const std::string& name : others)
      if (begun < kDelete && !there.contains(name)) return name + " is gone";
    if (is_there)
      if (auto wrong = check_topic(log, topic, begun, done); !wrong.empty()) return wrong;
    seen_ = std::move(there);
    return {};
  }
  static std::string check_topic(const Log& log, std::uint64_t topic, std::uint64_t begun,
                                 std::uint64_t done) {
    const std::string name = name_of(topic);
    const auto described = Admin(log).describe_topic(name);
    if (!described) return to_string(described.error());
    const std::size_t partitions = described->partitions.size();
    if ((done >= kGrow && partitions != 3) || (begun < kGrow && partitions != 2) || partitions < 2)
      return fmt::format("{} has {} partitions", name, partitions);
    const bool is_altered = described->overrides.contains("retention.ms");
    if ((done >= kAlter && !is_altered) || (begun < kAlter && is_altered))
      return fmt::format("{} has retention.ms={}", name, described->configs.at("retention.ms"));
    const std::uint64_t records = described->partitions[0].log_end_offset.value();
    if (done >= kSend && records < 1) return name + " has lost its record";
    for (std::uint32_t p = 0; p < partitions; ++p)
      if (auto wrong = send_one(log, name, p, topic); !wrong.empty()) return wrong;
    return {};
  }

  std::set<std::string> seen_;  // at the last check
};

}  // namespace

std::unique_ptr<Story> make_segment_story() { return std::make_unique<SegmentStory>(); }
std::unique_ptr<Story> make_compaction_story() { return std::make_unique<CompactionStory>(); }
std::unique_ptr<Story> make_catalog_story() { return std::make_unique<CatalogStory>(); }

}  // namespace ringtail::crash

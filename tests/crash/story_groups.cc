// Stories of transactions and of consumer groups.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "crash/story.h"

namespace ringtail::crash {
namespace {

const TopicConfigs kSmall{{"term.bytes", "64KiB"}, {"ring.terms", "4"}, {"segment.bytes", "1MiB"}};

Status ensure_topic(const Log& log, const char* name, std::uint32_t partitions) {
  const Status created = Admin(log).create_topic({.name = name, .partitions = partitions, .configs = kSmall});
  if (!created && created.error().code == Code::already_exists) return {};
  return created;
}

// --- Transactions --------------------------------------------------------------------------------

class TransactionStory final : public Story {
 public:
  std::string tell(const Scene& scene, KeeperMode mode, StoryPage& page) override {
    return send_transactions(scene, mode, page, kTransactions);
  }

  std::string check(const Scene& scene, StoryPage& page, Loss) override {
    std::set<std::uint64_t> found;
    {
      auto log = scene.open(KeeperMode::embedded);
      if (!log) return to_string(log.error());
      std::map<std::uint64_t, std::uint64_t> counts[2];
      for (std::size_t i = 0; i < kTopics.size(); ++i)
        if (auto wrong = count_records(*log, kTopics[i], counts[i]); !wrong.empty()) return wrong;
      for (const auto& [number, records] : counts[0]) {
        if (records != kRecords[0] || counts[1][number] != kRecords[1])
          return fmt::format("transaction {} has {} and {} records", number, records, counts[1][number]);
        found.insert(number);
      }
      if (counts[1].size() != found.size()) return "there is half a transaction";
    }
    if (auto wrong = compare(found, page); !wrong.empty()) return wrong;
    if (auto wrong = verify_log(scene.dir()); !wrong.empty()) return wrong;
    known_ = std::move(found);
    first_ = page.marks[kAttempted].load();
    page.marks[kEnded].store(first_);
    return send_transactions(scene, KeeperMode::embedded, page, 2);
  }

 private:
  enum Mark : std::size_t { kAttempted, kEnded };
  static constexpr std::array<const char*, 2> kTopics{"orders", "payments"};
  static constexpr std::array<std::uint64_t, 2> kRecords{3, 2};  // of each transaction
  static constexpr std::uint64_t kTransactions = 12;

  static bool is_aborted(std::uint64_t number) { return number % 5 == 4; }

  // All that ended since the last check is there, and all that was there then; nothing that was aborted.
  std::string compare(const std::set<std::uint64_t>& found, const StoryPage& page) const {
    for (const std::uint64_t number : known_)
      if (!found.contains(number)) return fmt::format("transaction {} was there, and is gone", number);
    for (std::uint64_t number = first_; number < page.marks[kEnded].load(); ++number)
      if (!is_aborted(number) && !found.contains(number))
        return fmt::format("transaction {} was committed, and is gone", number);
    for (const std::uint64_t number : found)
      if (is_aborted(number) || number >= page.marks[kAttempted].load() ||
          (number < first_ && !known_.contains(number)))
        return fmt::format("transaction {} was never committed, and is there", number);
    return {};
  }

  static std::string count_records(const Log& log, const char* topic,
                                   std::map<std::uint64_t, std::uint64_t>& counts) {
    const auto topics = Admin(log).list_topics();
    if (!topics || std::ranges::find(*topics, topic) == topics->end()) return {};
    auto consumer = Consumer::open(log, {.isolation_level = IsolationLevel::read_committed});
    if (!consumer) return to_string(consumer.error());
    const TopicPartition partition{topic, PartitionId(0)};
    if (auto assigned = consumer->assign(topic); !assigned) return to_string(assigned.error());
    auto end = consumer->end_offset(partition);
    if (!end) return to_string(end.error());
    std::uint64_t last = 0;
    while (consumer->position(partition)->value() < end->value()) {
      auto records = consumer->poll(std::chrono::milliseconds(100));
      if (!records) return to_string(records.error());
      for (const Record& record : *records) {
        const std::uint64_t number = std::strtoull(std::string(record.value).c_str(), nullptr, 10);
        if (number < last) return fmt::format("transaction {} stands behind {}", number, last);
        last = number;
        ++counts[number];
      }
    }
    return {};
  }

  static std::string send_transactions(const Scene& scene, KeeperMode mode, StoryPage& page,
                                       std::uint64_t transactions) {
    auto log = scene.open(mode);
    if (!log) return to_string(log.error());
    for (const char* topic : kTopics)
      if (auto ensured = ensure_topic(*log, topic, 1); !ensured) return to_string(ensured.error());
    auto first = Producer::open(*log, {.topic = kTopics[0], .durable = true, .transactional_id = "story"});
    if (!first) return to_string(first.error());
    auto second = first->for_topic(kTopics[1]);
    if (!second) return to_string(second.error());
    std::uint64_t number = page.marks[kAttempted].load();
    for (const std::uint64_t end = number + transactions; number < end; ++number) {
      page.marks[kAttempted].store(number + 1);
      if (auto begun = first->begin(); !begun) return to_string(begun.error());
      std::array<Producer*, 2> producers{&*first, &*second};
      for (std::size_t i = 0; i < producers.size(); ++i)
        for (std::uint64_t record = 0; record < kRecords[i]; ++record)
          if (!producers[i]->send(std::to_string(number) + " of a transaction"))
            return to_string(producers[i]->error());
      const Status ended = is_aborted(number) ? first->abort() : first->commit();
      if (!ended) return to_string(ended.error());
      page.marks[kEnded].store(number + 1);
    }
    return {};
  }

  std::set<std::uint64_t> known_;  // at the last check
  std::uint64_t first_ = 0;        // since then
};

// --- Groups --------------------------------------------------------------------------------------

class GroupStory final : public Story {
 public:
  std::string tell(const Scene& scene, KeeperMode mode, StoryPage& page) override {
    auto log = scene.open(mode);
    if (!log) return to_string(log.error());
    if (auto ensured = ensure_topic(*log, kTopic, kPartitions); !ensured) return to_string(ensured.error());
    if (auto wrong = send_records(*log); !wrong.empty()) return wrong;
    auto one = join(*log);
    if (!one) return to_string(one.error());
    if (auto wrong = poll_until_shared({&*one}); !wrong.empty()) return wrong;
    if (auto wrong = commit(*one, page, true); !wrong.empty()) return wrong;
    auto other = join(*log);
    if (!other) return to_string(other.error());
    if (auto wrong = poll_until_shared({&*one, &*other}); !wrong.empty()) return wrong;
    for (Consumer* member : {&*one, &*other})
      for (const bool waits : {false, true})
        if (auto wrong = commit(*member, page, waits); !wrong.empty()) return wrong;
    for (Consumer* member : {&*other, &*one})
      if (auto left = member->unsubscribe(); !left) return to_string(left.error());
    return {};
  }

  // The group's positions are not behind what was told, nor in front of what was asked for.
  std::string check(const Scene& scene, StoryPage& page, Loss loss) override {
    {
      auto log = scene.open(KeeperMode::embedded);
      if (!log) return to_string(log.error());
      // Who has joined has waited until positions were restored.
      auto member = join(*log);
      if (!member) return to_string(member.error());
      std::array<std::uint64_t, kPartitions> committed{};
      for (std::uint32_t p = 0; p < kPartitions; ++p)
        if (const auto found = member->committed({kTopic, PartitionId(p)}); found && *found)
          committed[p] = (*found)->offset.value();
      if (auto left = member->unsubscribe(); !left) return to_string(left.error());
      for (std::uint32_t p = 0; p < kPartitions; ++p) {
        const std::uint64_t told = page.marks[(loss == Loss::host ? kSynced : kSeen) + p].load();
        if (committed[p] < told)
          return fmt::format("{} was committed of {}, {} is there", told, p, committed[p]);
        if (committed[p] > page.marks[kAsked + p].load())
          return fmt::format("nobody has committed {} of {}", committed[p], p);
        for (const std::size_t mark : {kAsked, kSeen, kSynced}) page.marks[mark + p].store(committed[p]);
      }
    }
    return verify_log(scene.dir());
  }

 private:
  static constexpr std::uint32_t kPartitions = 4;
  static constexpr const char* kGroup = "story";
  static constexpr std::size_t kAsked = 0, kSeen = kPartitions, kSynced = 2 * kPartitions;  // one a partition

  static std::string send_records(const Log& log) {
    auto producer = Producer::open(log, {.topic = kTopic});
    if (!producer) return to_string(producer.error());
    for (std::uint32_t i = 0; i < 5 * kPartitions; ++i)
      if (!producer->send({.value = "a record", .partition = PartitionId(i % kPartitions)}))
        return to_string(producer->error());
    // A position behind records that are lost would be in front of the log.
    return producer->flush() ? std::string() : to_string(producer->error());
  }
  static Result<Consumer> join(const Log& log) {
    auto consumer = Consumer::open(log, {.group_id = kGroup, .enable_auto_commit = false});
    if (!consumer) return consumer;
    if (auto joined = consumer->subscribe(kTopic); !joined) return std::unexpected(joined.error());
    return consumer;
  }
  // Until each of them has as many partitions as the others, and is at their ends.
  static std::string poll_until_shared(std::initializer_list<Consumer*> members) {
    const auto is_done = [&](const Consumer& member) {
      return member.assignment().size() == kPartitions / members.size() &&
             std::ranges::all_of(member.assignment(), [&](const TopicPartition& partition) {
               const auto position = member.position(partition);
               const auto end = member.end_offset(partition);
               return position && end && *position >= *end;
             });
    };
    while (!std::ranges::all_of(members, [&](const Consumer* member) { return is_done(*member); }))
      for (Consumer* member : members)
        if (auto polled = member->poll(std::chrono::milliseconds(1)); !polled)
          return to_string(polled.error());
    return {};
  }
  static std::string commit(Consumer& member, StoryPage& page, bool waits) {
    std::vector<std::pair<std::uint32_t, std::uint64_t>> positions;
    for (const TopicPartition& partition : member.assignment())
      positions.emplace_back(partition.partition.value(), member.position(partition)->value());
    for (const auto& [p, position] : positions) page.marks[kAsked + p].store(position);
    const Status committed = waits ? member.commit_sync() : member.commit_async();
    if (!committed) return to_string(committed.error());
    for (const auto& [p, position] : positions) {
      page.marks[kSeen + p].store(position);
      if (waits) page.marks[kSynced + p].store(position);
    }
    return {};
  }
};

}  // namespace

std::unique_ptr<Story> make_transaction_story() { return std::make_unique<TransactionStory>(); }
std::unique_ptr<Story> make_group_story() { return std::make_unique<GroupStory>(); }

}  // namespace ringtail::crash

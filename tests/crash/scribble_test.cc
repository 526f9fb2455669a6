// A process that may write the shared memory of a log, and writes nonsense there: what the others do may fail,
// but none of them dies of it, or spins for ever.
//
// RINGTAIL_SEED repeats a run; RINGTAIL_SCRIBBLE_SECONDS makes it longer; RINGTAIL_SCRIBBLE_ON keeps it to the
// regions whose names it contains ("frames, ring header").
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <sstream>
#include <tuple>

#include <nlohmann/json.hpp>

#include "crash/scene.h"
#include "monitor/collector.h"
#include "monitor/metrics.h"
#include "monitor/state_json.h"

namespace ringtail::crash {
namespace {

using test::Process;
using test::SharedPage;
using Clock = std::chrono::steady_clock;

constexpr std::uint32_t kTopicPartitions = 2;
constexpr const char* kMemoryTopic = "memory";
constexpr std::chrono::milliseconds kBlock{50};

// --- Victims -------------------------------------------------------------------------------------

enum Victim : std::uint32_t { kKeeper, kProducer, kSender, kReader, kMember, kMonitor, kVictims };
constexpr std::array<const char*, kVictims> kNames = {"keeper", "producer", "transactional producer",
                                                      "reader", "member",   "monitor"};

struct Page {
  std::atomic<bool> stop{false};
  std::array<std::atomic<std::uint64_t>, kVictims> steps{};   // that came to an end, in whatever way
  std::array<std::atomic<std::uint64_t>, kVictims> errors{};  // steps that failed
};

// Takes steps until the test says stop. A step that fails is followed by opening everything anew.
template <class Open>
int take_steps(const Scene& scene, Page& page, Victim who, Open open) {
  while (!page.stop.load()) {
    auto log = Log::open(scene.options(who == kKeeper ? KeeperMode::embedded : KeeperMode::none));
    bool good = log.has_value();
    if (good) {
      auto step = open(*log);
      while (good && !page.stop.load()) {
        good = step();
        page.steps[who].fetch_add(1);
      }
    }
    if (good) continue;
    page.errors[who].fetch_add(1);
    page.steps[who].fetch_add(1);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return 0;
}

int keep(const Scene& scene, Page& page) {
  return take_steps(scene, page, kKeeper, [](Log&) {
    return [] {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      return true;
    };
  });
}

// Records of every shape: with and without key and headers, in batches, in place.
bool send_one_of_each(Producer& producer, std::mt19937_64& random) {
  const std::string text(random() % 300, 'x');
  const std::array<Header, 2> headers = {Header{"a", "1"}, Header{"b", text}};
  const std::array<ProducerRecord, 3> batch = {ProducerRecord{.value = text}, ProducerRecord{.value = "y"},
                                               ProducerRecord{.key = "k", .value = text}};
  bool good = producer.send(text).has_value();
  good = producer.send({.key = "key", .value = text, .headers = headers}).has_value() && good;
  good = producer.send_batch(PartitionId(0), batch).has_value() && good;
  if (auto claim = producer.try_claim(64)) good = claim->commit().has_value() && good;
  if (random() % 16 == 0)
    if (auto sent = producer.send("durable")) std::ignore = producer.wait_durable(*sent);
  return good;
}

int produce(const Scene& scene, Page& page) {
  std::mt19937_64 random(1);
  return take_steps(scene, page, kProducer, [&](Log& log) {
    const bool memory = random() % 2 == 0;
    auto opened = Producer::open(
        log, {.topic = memory ? kMemoryTopic : kTopic, .max_block = kBlock, .exclusive = random() % 3 == 0});
    auto producer = std::make_shared<Result<Producer>>(std::move(opened));
    return [producer, &random] { return *producer && send_one_of_each(**producer, random); };
  });
}

int produce_transactions(const Scene& scene, Page& page) {
  std::mt19937_64 random(2);
  return take_steps(scene, page, kSender, [&](Log& log) {
    auto opened = Producer::open(log, {.topic = kTopic,
                                       .max_block = kBlock,
                                       .transactional_id = "scribbled-" + std::to_string(random() % 4)});
    auto producer = std::make_shared<Result<Producer>>(std::move(opened));
    return [producer, &random] {
      if (!*producer || !(*producer)->begin()) return false;
      const bool good = (*producer)->send("t").has_value();
      return (random() % 4 == 0 ? (*producer)->abort() : (*producer)->commit()).has_value() && good;
    };
  });
}

// Every byte that was handed out may be read.
std::uint64_t sum_of(std::span<const Record> records) {
  std::uint64_t sum = 0;
  const auto add = [&sum](std::string_view bytes) {
    for (const char c : bytes) sum = sum * 31 + static_cast<unsigned char>(c);
  };
  for (const Record& record : records) {
    add(record.key);
    add(record.value);
    for (const Header& header : record.headers) {
      add(header.key);
      add(header.value);
    }
  }
  return sum;
}

int read(const Scene& scene, Page& page) {
  std::mt19937_64 random(3);
  std::uint64_t sum = 0;
  return take_steps(scene, page, kReader, [&](Log& log) {
    const auto isolation =
        random() % 2 == 0 ? IsolationLevel::read_committed : IsolationLevel::read_uncommitted;
    auto opened = Consumer::open(log, {.wait = WaitStrategy::futex, .isolation_level = isolation});
    auto consumer = std::make_shared<Result<Consumer>>(std::move(opened));
    const std::string topic = random() % 4 == 0 ? kMemoryTopic : kTopic;
    const bool assigned = *consumer && (*consumer)->assign(topic);
    return [consumer, assigned, topic, &random, &sum] {
      if (!assigned) return false;
      auto polled = (*consumer)->poll(std::chrono::milliseconds(2));
      if (polled) sum += sum_of(*polled);
      const TopicPartition partition{topic, PartitionId(0)};
      if (random() % 32 == 0) std::ignore = (*consumer)->seek_to_beginning(partition);
      if (random() % 32 == 0) std::ignore = (*consumer)->seek_to_time(partition, 1);
      if (random() % 32 == 0) std::ignore = (*consumer)->lag(partition);
      return polled.has_value();
    };
  });
}

int be_member(const Scene& scene, Page& page) {
  std::mt19937_64 random(4);
  std::uint64_t sum = 0;
  return take_steps(scene, page, kMember, [&](Log& log) {
    auto opened = Consumer::open(log, {.wait = WaitStrategy::futex, .group_id = "scribbled"});
    auto consumer = std::make_shared<Result<Consumer>>(std::move(opened));
    const bool subscribed = *consumer && (random() % 2 == 0 ? (*consumer)->subscribe(kTopic)
                                                            : (*consumer)->subscribe_pattern("cra.*"));
    return [consumer, subscribed, &random, &sum] {
      if (!subscribed) return false;
      auto polled = (*consumer)->poll(std::chrono::milliseconds(2));
      if (!polled) return false;
      sum += sum_of(*polled);
      if (random() % 8 == 0) std::ignore = (*consumer)->commit_async();
      if (random() % 64 == 0) std::ignore = (*consumer)->commit_sync(kBlock);
      return random() % 512 != 0;  // and joins anew
    };
  });
}

int watch(const Scene& scene, Page& page) {
  return take_steps(scene, page, kMonitor, [&](Log& log) {
    auto collector = std::make_shared<monitor::Collector>(log);
    return [collector] {
      const auto snapshot = collector->collect();
      if (!snapshot) return false;
      const monitor::ProcessFigures process{"test", std::chrono::seconds(1)};
      return !monitor::metrics_text(*snapshot, process, {}).empty() &&
             !monitor::dump(monitor::state_json(*snapshot, {}, process, {})).empty();
    };
  });
}

// --- The scribbler -------------------------------------------------------------------------------

// Part of a mapping, in words, and how often it is chosen.
struct Region {
  const char* name;
  std::byte* begin;
  std::size_t bytes;
  unsigned weight;
};

template <class T>
Region region_of(const char* name, T& first, std::size_t bytes, unsigned weight) {
  return {name, reinterpret_cast<std::byte*>(&first), bytes, weight};
}

// What is in use of the control segment, and all of the rings.
class Target {
 public:
  explicit Target(const Scene& scene) {
    map(scene.shm_folder() / "control");
    auto& control = *reinterpret_cast<shm::ControlLayout*>(mappings_.back().data());
    constexpr std::size_t kHeaderBegin = offsetof(shm::ControlHeader, keeper_wake);
    regions_ = {
        region_of("header", control.header.keeper_wake, sizeof(shm::ControlHeader) - kHeaderBegin, 2),
        region_of("slots", control.slots, 24 * sizeof(shm::Slot), 4),
        region_of("readers", control.readers, 24 * sizeof(shm::Reader), 4),
        region_of("partitions", control.partitions, 8 * sizeof(shm::Partition), 6),
        region_of("members", control.members, 24 * sizeof(shm::Member), 3),
        region_of("groups", control.groups, offsetof(shm::GroupTableLayout, groups) + 3 * sizeof(shm::Group),
                  3),
        region_of("assignments", control.groups.assignments, 16 * sizeof(std::uint32_t), 4),
        region_of("proposals", control.groups.proposals, 16 * sizeof(std::uint16_t), 1),
        region_of("positions", control.groups.partitions, 16 * sizeof(shm::GroupPartition), 3),
        region_of("transactions", control.transactional_ids, 6 * sizeof(shm::TransactionalId), 3),
    };
    for (const auto& file : std::filesystem::directory_iterator(scene.shm_folder())) {
      if (file.path().extension() != ".ring") continue;
      map(file.path());
      std::byte* const ring = mappings_.back().data();
      regions_.push_back({"ring header", ring, sizeof(log::RingHeader), 3});
      regions_.push_back(
          {"frames", ring + log::kRingHeaderBytes, mappings_.back().size() - log::kRingHeaderBytes, 6});
    }
  }

  // A few of them, so that others stay whole and something goes on.
  std::vector<Region> choose(std::mt19937_64& random) const {
    std::vector<Region> chosen = regions_;
    if (const char* names = std::getenv("RINGTAIL_SCRIBBLE_ON"))
      std::erase_if(chosen, [names](const Region& region) { return !std::strstr(names, region.name); });
    std::ranges::shuffle(chosen, random);
    chosen.resize(std::min(chosen.size(), 1 + random() % 6));
    return chosen;
  }

 private:
  void map(const std::filesystem::path& path) {
    auto mapping = shm::open_shared_file(path, false);
    if (!mapping) std::abort();
    mappings_.push_back(std::move(*mapping));
  }

  std::vector<shm::Mapping> mappings_;
  std::vector<Region> regions_;
};

std::uint64_t nonsense(std::uint64_t was, std::mt19937_64& random) {
  switch (random() % 10) {
    case 0: return random();
    case 1: return 0;
    case 2: return ~std::uint64_t{0};
    case 3: return was ^ std::uint64_t{1} << random() % 64;
    case 4: return was + random() % 64 - 32;
    case 5: return random() % 1024;
    case 6: return was << 32 | was >> 32;
    case 7: return (was & 0xffffffff00000000) | (random() & 0xffffffff);
    case 8: return was & 0xffffffff00000000;
    default: return random() % (std::uint64_t{1} << 20) << random() % 44;
  }
}

void scribble(std::span<const Region> regions, std::mt19937_64& random) {
  std::vector<double> weights;
  for (const Region& region : regions) weights.push_back(region.weight);
  const Region& region =
      regions[std::discrete_distribution<std::size_t>(weights.begin(), weights.end())(random)];
  const std::size_t at = random() % (region.bytes / sizeof(std::uint64_t)) * sizeof(std::uint64_t);
  const std::atomic_ref<std::uint64_t> word(*reinterpret_cast<std::uint64_t*>(region.begin + at));
  word.store(nonsense(word.load(std::memory_order_relaxed), random), std::memory_order_relaxed);
}

// --- The test ------------------------------------------------------------------------------------

std::uint64_t cpu_ticks(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text{std::istreambuf_iterator<char>(file), {}};
  std::istringstream fields(text.substr(std::min(text.rfind(')') + 1, text.size())));
  std::string skipped;
  for (int i = 0; i < 11; ++i) fields >> skipped;
  std::uint64_t user = 0, system = 0;
  fields >> user >> system;
  return user + system;
}

// Waits for its end while it is at work; one that sleeps, does so until a deadline of its own, of a minute or
// more. False: it was at work all the time.
bool ends_or_sleeps(Process& process) {
  constexpr auto kLongest = std::chrono::seconds(100);
  constexpr auto kLook = std::chrono::milliseconds(500);
  const auto ticks_of_look = static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK)) / 2;
  const auto give_up_at = Clock::now() + kLongest;
  while (Clock::now() < give_up_at) {
    const std::uint64_t before = cpu_ticks(process.pid());
    const auto look_until = Clock::now() + kLook;
    while (Clock::now() < look_until) {
      process.poll();
      if (!process.is_running()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    if (cpu_ticks(process.pid()) - before < ticks_of_look / 5) return true;
  }
  return false;
}

class ScribbleTest : public ::testing::Test {
 protected:
  void begin() {
    scene_.emplace();
    scene_->create_topic({{"term.bytes", "64KiB"},
                          {"ring.terms", "4"},
                          {"segment.bytes", "1MiB"},
                          {"retention.bytes", "2MiB"}});
    auto log = scene_->open(KeeperMode::embedded);
    ASSERT_TRUE(log) << to_string(log.error());
    ASSERT_TRUE(Admin(*log).create_partitions(kTopic, kTopicPartitions));
    ASSERT_TRUE(Admin(*log).create_topic({.name = kMemoryTopic,
                                          .partitions = 1,
                                          .configs = {{"storage", "memory"},
                                                      {"on.full", "overwrite"},
                                                      {"term.bytes", "64KiB"},
                                                      {"ring.terms", "4"}}}));
    // Internal topics, so that their rings are there to be scribbled on.
    auto consumer = Consumer::open(*log, {.group_id = "scribbled"});
    ASSERT_TRUE(consumer && consumer->subscribe(kTopic) && consumer->poll(std::chrono::milliseconds(1)));
  }

  void start(Page& page) {
    const std::array<int (*)(const Scene&, Page&), kVictims> bodies = {keep, produce,   produce_transactions,
                                                                       read, be_member, watch};
    for (std::uint32_t v = 0; v < kVictims; ++v) {
      victims_[v] = Process(kNames[v], [this, &page, body = bodies[v]] { return body(*scene_, page); });
      // The keeper first: the others open a log that is kept.
      while (v == kKeeper && page.steps[v].load() == 0)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    // Nobody is scribbled on before he is at work.
    const auto at_work = [&] {
      return std::ranges::all_of(page.steps, [](const auto& steps) { return steps.load() > 3; });
    };
    ASSERT_TRUE(test::wait_until(at_work, "everybody to be at work"));
  }

  // What ended before it was told to, and how. Empty: nobody.
  std::string casualties() {
    std::string text;
    for (Process& victim : victims_)
      if (const int code = victim.poll(); code != 0)
        text += fmt::format("the {} ended with {}\n", victim.name(), code);
    return text;
  }

  std::optional<Scene> scene_;
  std::array<Process, kVictims> victims_;
};

TEST_F(ScribbleTest, NobodyDiesOfNonsenseInSharedMemory) {
  std::mt19937_64 random(test::print_seed());
  const std::chrono::seconds length(test::number_from_environment("RINGTAIL_SCRIBBLE_SECONDS", 3));
  std::array<std::uint64_t, kVictims> steps{}, errors{};
  std::uint64_t words = 0;
  for (const auto until = Clock::now() + length; Clock::now() < until;) {
    ASSERT_NO_FATAL_FAILURE(begin());
    const Target target(*scene_);
    SharedPage<Page> page;
    ASSERT_NO_FATAL_FAILURE(start(*page));
    const std::vector<Region> regions = target.choose(random);
    std::string where;
    for (const Region& region : regions) where += std::string(where.empty() ? "" : ", ") + region.name;
    SCOPED_TRACE("scribbled on: " + where);
    for (const auto end = Clock::now() + std::chrono::milliseconds(300); Clock::now() < end;) {
      for (int i = 0; i < 8; ++i, ++words) scribble(regions, random);
      std::this_thread::sleep_for(std::chrono::microseconds(100));
      ASSERT_EQ(casualties(), "");
    }
    page->stop.store(true);
    for (std::uint32_t v = kVictims; v-- > 0;) {  // the keeper last
      EXPECT_TRUE(ends_or_sleeps(victims_[v])) << kNames[v] << " spins:\n"
                                               << test::describe_process(victims_[v].pid());
      if (victims_[v].is_running())
        victims_[v].kill();
      else
        EXPECT_EQ(victims_[v].wait(), 0) << kNames[v];
      steps[v] += page->steps[v].load();
      errors[v] += page->errors[v].load();
    }
    if (HasFailure()) return;
  }
  std::cout << words << " words";
  for (std::uint32_t v = 0; v < kVictims; ++v)
    std::cout << "; " << kNames[v] << ": " << steps[v] << " steps, " << errors[v] << " failed";
  std::cout << '\n';
}

}  // namespace
}  // namespace ringtail::crash

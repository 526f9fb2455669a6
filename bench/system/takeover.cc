// How soon a group goes on after the death of a member. Sixteen processes share the 64 partitions of a topic
// and sleep on futexes until records come; one is killed with SIGKILL, and a record is sent to each of its
// partitions. Measured is the time from the kill until that record has come to the partition's new owner.
// Then another process takes the free seat, and once it has its share, the next round begins. With --keeper
// the process that is the keeper, and coordinates the group, is killed at the same moment, each time; another
// stands by. Prints one JSON object; bench/system/run compares it with its target.
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "support/temporary_log.h"

namespace ringtail::bench {
namespace {

constexpr std::uint32_t kPartitions = 64;
constexpr std::uint32_t kMembers = 16;
constexpr std::int64_t kPatienceNs = 60'000'000'000;

// What the processes tell each other.
struct Shared {
  struct Delivery {
    std::atomic<std::uint64_t> number{0};  // of the last record that came
    std::atomic<std::int64_t> at_ns{0};
    std::atomic<std::uint32_t> member{kMembers};  // that it came to
  };
  std::array<Delivery, kPartitions> deliveries;
  std::array<std::atomic<bool>, kPartitions> wanted;  // a record is to be sent there
  std::atomic<std::uint64_t> number{0};               // that these records have
  std::atomic<std::uint32_t> asked{0};
  std::atomic<std::uint32_t> sent{0};
  std::atomic<std::uint32_t> keeper{0};  // pid of the last to hold the role
};

class Folder {
 public:
  explicit Folder(std::string pattern) {
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("cannot make '" + pattern + "'");
    path_ = pattern;
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

class Takeover {
 public:
  Takeover(const std::string& dir, bool kills_keeper)
      : dir_(dir + "/ringtail-takeover-XXXXXX"),
        shm_("/dev/shm/ringtail-takeover-XXXXXX"),
        kills_keeper_(kills_keeper) {
    void* const at =
        ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) throw std::runtime_error("no memory to share");
    shared_ = new (at) Shared();
    random_.seed(std::random_device{}());
    keepers_[0] = start([this] { keep(); });
    wait([this] { return shared_->keeper.load() != 0; }, "the keeper is ready");
    keepers_[1] = start([this] { keep(); });
    producer_ = start([this] { produce(); });
    for (std::uint32_t m = 0; m < kMembers; ++m) start_member(m);
  }
  Takeover(const Takeover&) = delete;
  Takeover& operator=(const Takeover&) = delete;
  ~Takeover() {
    for (const pid_t pid : members_) end(pid);
    for (const pid_t pid : keepers_) end(pid);
    end(producer_);
    ::munmap(shared_, sizeof(Shared));
  }

  // One round: the times in ns, a partition each.
  std::vector<std::int64_t> round() {
    settle();
    const auto victim = static_cast<std::uint32_t>(random_() % kMembers);
    std::vector<std::uint32_t> partitions;
    for (std::uint32_t p = 0; p < kPartitions; ++p)
      if (shared_->deliveries[p].member.load() == victim) partitions.push_back(p);
    std::this_thread::sleep_for(std::chrono::microseconds(10'000 + random_() % 20'000));  // all sleep
    const std::int64_t begin_ns = monotonic_ns();
    ::kill(members_[victim], SIGKILL);
    pid_t* const keeper = kills_keeper_ ? &keeper_process() : nullptr;
    if (keeper != nullptr) ::kill(*keeper, SIGKILL);
    reap(members_[victim]);  // what it does not do, others must
    if (keeper != nullptr) reap(*keeper);
    send(partitions);
    wait([&] { return are_delivered(partitions); }, "the partitions have new owners");
    std::vector<std::int64_t> times;
    for (const std::uint32_t p : partitions) times.push_back(shared_->deliveries[p].at_ns.load() - begin_ns);
    if (keeper != nullptr) *keeper = start([this] { keep(); });
    start_member(victim);
    return times;
  }

 private:
  // --- Processes ---

  pid_t start(const std::function<void()>& body) {
    const pid_t pid = ::fork();
    if (pid < 0) throw std::runtime_error("cannot fork");
    if (pid > 0) return pid;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    try {
      body();
    } catch (const std::exception& error) {
      fmt::print(stderr, "ringtail_takeover: {}\n", error.what());
    }
    ::_exit(1);
  }
  static void reap(pid_t pid) {
    while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  static void end(pid_t pid) {
    if (pid <= 0) return;
    ::kill(pid, SIGKILL);
    reap(pid);
  }
  pid_t& keeper_process() {
    return keepers_[0] == static_cast<pid_t>(shared_->keeper.load()) ? keepers_[0] : keepers_[1];
  }
  void start_member(std::uint32_t number) {
    members_[number] = start([this, number] { consume(number); });
  }

  Log open(KeeperMode mode) const {
    for (;;) {
      auto log = Log::open({.dir = dir_.path(), .keeper = mode, .shared_memory_dir = shm_.path()});
      if (log || log.error().code != Code::no_keeper) return value_or_die(std::move(log));
      ::usleep(500);
    }
  }
  void keep() {
    const Log log = open(KeeperMode::embedded);
    while (!log.is_keeper()) ::usleep(500);
    Admin admin(log);
    if (value_or_die(admin.list_topics()).empty())
      check_or_die(admin.create_topic({.name = "topic",
                                       .partitions = kPartitions,
                                       .configs = {{"term.bytes", "64KiB"}, {"storage", "memory"}}}));
    shared_->keeper.store(static_cast<std::uint32_t>(::getpid()));
    for (;;) ::pause();
  }
  void produce() {
    const Log log = open(KeeperMode::none);
    auto producer = value_or_die(Producer::open(log, ProducerOptions{.topic = "topic"}));
    for (std::uint32_t served = 0;; shared_->sent.store(++served)) {
      while (shared_->asked.load() == served) ::usleep(50);
      const std::string value = std::to_string(shared_->number.load());
      for (std::uint32_t p = 0; p < kPartitions; ++p) {
        if (!shared_->wanted[p].exchange(false)) continue;
        if (!producer.send({.value = value, .partition = PartitionId(p)})) die(producer.error());
      }
    }
  }
  void consume(std::uint32_t number) {
    const Log log = open(KeeperMode::none);
    auto consumer = value_or_die(
        Consumer::open(log, {.wait = WaitStrategy::futex, .group_id = "group", .enable_auto_commit = false}));
    check_or_die(consumer.subscribe("topic"));
    for (;;) {
      for (const Record& record : value_or_die(consumer.poll(std::chrono::seconds(1)))) {
        Shared::Delivery& delivery = shared_->deliveries[record.source->partition.value()];
        delivery.at_ns.store(monotonic_ns());
        delivery.member.store(number);
        delivery.number.store(std::strtoull(std::string(record.value).c_str(), nullptr, 10));
      }
      // A commit that is refused, since the partition has moved on, is none.
      if (auto committed = consumer.commit_async();
          !committed && committed.error().code != Code::stale_generation)
        die(committed.error());
    }
  }

  // --- The parent's part ---

  void wait(const std::function<bool()>& done, std::string_view what) const {
    const std::int64_t give_up_ns = monotonic_ns() + kPatienceNs;
    while (!done()) {
      if (monotonic_ns() > give_up_ns) throw std::runtime_error(fmt::format("waited in vain until {}", what));
      ::usleep(100);
    }
  }
  void send(const std::vector<std::uint32_t>& partitions) {
    shared_->number.fetch_add(1);
    for (const std::uint32_t p : partitions) shared_->wanted[p].store(true);
    shared_->asked.fetch_add(1);
  }
  bool are_delivered(const std::vector<std::uint32_t>& partitions) const {
    return std::ranges::all_of(partitions, [this](std::uint32_t p) {
      return shared_->deliveries[p].number.load() == shared_->number.load();
    });
  }
  // Every member reads its share.
  void settle() {
    std::vector<std::uint32_t> all(kPartitions);
    for (std::uint32_t p = 0; p < kPartitions; ++p) all[p] = p;
    wait(
        [&] {
          send(all);
          wait([&] { return are_delivered(all); }, "all partitions are read");
          std::array<std::uint32_t, kMembers + 1> shares{};
          for (const auto& delivery : shared_->deliveries) ++shares[delivery.member.load()];
          return std::all_of(shares.begin(), shares.end() - 1,
                             [](std::uint32_t share) { return share == kPartitions / kMembers; });
        },
        "all members have their share");
  }

  Folder dir_;
  Folder shm_;
  bool kills_keeper_;
  Shared* shared_ = nullptr;
  std::mt19937_64 random_;
  std::array<pid_t, 2> keepers_{};
  pid_t producer_ = 0;
  std::array<pid_t, kMembers> members_{};
};

// The least value that `share` of them do not exceed.
std::int64_t quantile(const std::vector<std::int64_t>& sorted, double share) {
  const auto rank = static_cast<std::size_t>(share * static_cast<double>(sorted.size()));
  return sorted[std::min(rank, sorted.size() - 1)];
}

void run(const std::string& dir, unsigned rounds, bool kills_keeper) {
  Takeover takeover(dir, kills_keeper);
  std::vector<std::int64_t> times;
  for (unsigned i = 0; i < rounds; ++i)
    for (const std::int64_t time : takeover.round()) times.push_back(time);
  std::ranges::sort(times);
  const nlohmann::json result{{"rounds", rounds},
                              {"partitions", times.size()},
                              {"keeper_killed", kills_keeper},
                              {"p50_ms", static_cast<double>(quantile(times, 0.5)) / 1e6},
                              {"p99_ms", static_cast<double>(quantile(times, 0.99)) / 1e6},
                              {"max_ms", static_cast<double>(times.back()) / 1e6}};
  fmt::print("{}\n", result.dump(2));
}

}  // namespace
}  // namespace ringtail::bench

int main(int argc, char** argv) {
  std::string dir = ".";
  unsigned rounds = 100;
  bool kills_keeper = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    const std::string_view value = i + 1 < argc ? argv[i + 1] : "";
    if (name == "--keeper") {
      kills_keeper = true;
      continue;
    }
    const bool is_rounds =
        name == "--rounds" &&
        std::from_chars(value.data(), value.data() + value.size(), rounds).ec == std::errc() && rounds > 0;
    if (name == "--dir" && !value.empty()) dir = value;
    if (!is_rounds && (name != "--dir" || value.empty())) {
      fmt::print(stderr, "usage: {} [--dir <path>] [--rounds <number>] [--keeper]\n", argv[0]);
      return 2;
    }
    ++i;
  }
  try {
    ringtail::bench::run(dir, rounds, kills_keeper);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}: {}\n", argv[0], error.what());
    return 1;
  }
  return 0;
}

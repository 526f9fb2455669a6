// Three hosts, and whatever may happen to them, at random and more than one thing at a time. Repeat a run by
// RINGTAIL_SEED; RINGTAIL_CLUSTER_SECONDS makes it longer.
#include <random>

#include "cluster/scene.h"
#include "support/crash_process.h"

namespace ringtail::test {
namespace {

using Clock = std::chrono::steady_clock;

// Faults begin at random, last for a while, and are mended.
class Nemesis {
 public:
  Nemesis(Cluster& cluster, std::uint64_t seed, std::function<void(int, int)> signal_actors)
      : cluster_(cluster),
        random_(seed),
        signal_actors_(std::move(signal_actors)),
        troubled_(static_cast<std::size_t>(cluster.size()) + 1) {}

  // Ends what is over, and perhaps begins something.
  void step() {
    const auto now = Clock::now();
    for (auto it = faults_.begin(); it != faults_.end();) {
      if (it->until > now) {
        ++it;
        continue;
      }
      it->mend();
      it = faults_.erase(it);
    }
    if (now < next_ || faults_.size() >= kMostAtOnce) return;
    begin();
    next_ = now + between(300, 2'500);
  }
  void mend_all() {
    for (const Fault& fault : faults_) fault.mend();
    faults_.clear();
  }
  int begun() const { return begun_; }

 private:
  static constexpr std::size_t kMostAtOnce = 2;
  static constexpr int kEtcd = 0;

  struct Fault {
    Clock::time_point until;
    std::function<void()> mend;
  };

  milliseconds between(int least, int most) {
    return milliseconds(std::uniform_int_distribution(least, most)(random_));
  }
  int one_of(int least, int most) { return std::uniform_int_distribution(least, most)(random_); }

  void add(const std::string& what, milliseconds time, std::function<void()> mend) {
    std::printf("[ fault    ] %6.2f s: %s, for %.2f s\n",
                std::chrono::duration<double>(Clock::now() - start_).count(), what.c_str(),
                static_cast<double>(time.count()) / 1'000);
    std::fflush(stdout);
    ++begun_;
    faults_.push_back({Clock::now() + time, std::move(mend)});
  }

  // `troubled_` keeps a second fault from a process that has one; links may lose as many directions as they like.
  void begin() {
    const int kind = one_of(0, cluster_.network() != nullptr ? 9 : 6);
    if (kind >= 7) return begin_cut(kind);
    const int who = kind == 6 ? kEtcd : one_of(1, cluster_.size());
    if (troubled_[static_cast<std::size_t>(who)]) return;
    troubled_[static_cast<std::size_t>(who)] = true;
    const std::string node = "node " + std::to_string(who);
    auto well = [this, who] { troubled_[static_cast<std::size_t>(who)] = false; };
    auto start = [this, who, well] {
      cluster_.start_node(who);
      well();
    };
    switch (kind) {
      case 0:
      case 1: cluster_.kill_node(who); return add(node + " is killed", between(0, 4'000), start);
      case 2:
      case 3:
        cluster_.signal_node(who, SIGSTOP);
        return add(node + " stands still", between(500, 5'000), [this, who, well] {
          cluster_.signal_node(who, SIGCONT);
          well();
        });
      case 4:
        signal_actors_(who, SIGSTOP);
        cluster_.signal_node(who, SIGSTOP);
        return add(node + " stands still with its producers and readers", between(500, 5'000),
                   [this, who, well] {
                     signal_actors_(who, SIGCONT);
                     cluster_.signal_node(who, SIGCONT);
                     well();
                   });
      case 5:
        // One that was only just started is not yet listening to signals.
        EXPECT_THAT(cluster_.stop_node(who), ::testing::AnyOf(0, 128 + SIGTERM));
        return add(node + " is told to end", between(0, 2'000), start);
      default:
        cluster_.etcd().kill();
        return add("etcd is killed", between(200, 4'000), [this, well] {
          EXPECT_TRUE(cluster_.etcd().start()) << cluster_.etcd().trouble();
          well();
        });
    }
  }

  void begin_cut(int kind) {
    const int from = one_of(0, cluster_.size());
    if (kind == 7 && from != HostNetwork::kMiddle) {
      cluster_.network()->isolate(from);
      return add("node " + std::to_string(from) + " is cut off", between(500, 5'000),
                 [this, from] { cluster_.network()->rejoin(from); });
    }
    const int to = (from + one_of(1, cluster_.size())) % (cluster_.size() + 1);
    cluster_.network()->cut(from, to);
    add("nothing arrives at " + std::to_string(to) + " from " + std::to_string(from) + " (0 is etcd)",
        between(500, 5'000), [this, from, to] { cluster_.network()->heal(from, to); });
  }

  Cluster& cluster_;
  std::mt19937_64 random_;
  std::function<void(int, int)> signal_actors_;
  std::vector<bool> troubled_;
  std::vector<Fault> faults_;
  Clock::time_point start_ = Clock::now();
  Clock::time_point next_ = start_;
  int begun_ = 0;
};

// What a replica needs to have a record: it has synced it, or it has it in memory; and whether producers have the topic
// for themselves, in turns.
struct Way {
  const char* name;
  const char* ack;
  const char* manner = "";
};
void PrintTo(const Way& way, std::ostream* out) { *out << way.name; }

class RandomFaultsTest : public ClusterTest, public ::testing::WithParamInterface<Way> {
 protected:
  TopicConfigs configs() const override {
    TopicConfigs configs = ClusterTest::configs();
    configs["replica.ack"] = GetParam().ack;
    return configs;
  }
  std::string manner() const override { return GetParam().manner; }
};

INSTANTIATE_TEST_SUITE_P(Acks, RandomFaultsTest,
                         ::testing::Values(Way{"durable", "durable"}, Way{"memory", "memory"},
                                           Way{"memory_alone", "memory", "-alone"}),
                         [](const auto& test) { return test.param.name; });

TEST_P(RandomFaultsTest, LoseNothingThatWasAcknowledged) {
  const std::uint64_t seed = print_seed();
  const std::chrono::seconds time(number_from_environment("RINGTAIL_CLUSTER_SECONDS", 20));
  Nemesis nemesis(cluster_, seed, [this](int node, int number) { signal_actors(node, number); });
  for (const auto until = Clock::now() + time; Clock::now() < until;) {
    nemesis.step();
    pause_for(milliseconds(20));
  }
  nemesis.mend_all();
  EXPECT_GT(nemesis.begun(), 0);
  wait_for_acks(100);
  expect_promises_kept();
}

}  // namespace
}  // namespace ringtail::test

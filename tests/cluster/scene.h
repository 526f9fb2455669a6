// A cluster at work: producers and readers on every host, what they noted, and the judgement at the end.
#pragma once

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "cluster/checker.h"
#include "ringtail/ringtail.h"
#include "support/cluster.h"

namespace ringtail::test {

using std::chrono::milliseconds;

inline void pause_for(milliseconds time) { std::this_thread::sleep_for(time); }

class ClusterTest : public ::testing::Test {
 protected:
  explicit ClusterTest(ClusterOptions options = {.daemon = RINGTAILD_BINARY})
      : cluster_(std::move(options)) {}

  static constexpr const char* kTopic = "orders";
  static constexpr int kProducersPerHost = 2;

  void SetUp() override {
    ASSERT_TRUE(cluster_.start()) << cluster_.trouble();
    if (cluster_.network() == nullptr)
      std::printf("[ no cuts  ] all nodes are on the loopback: %s\n", cluster_.no_network().c_str());
    ASSERT_TRUE(cluster_.create_topic(kTopic, 1, configs())) << cluster_.trouble() << cluster_.describe();
    for (int node = 1; node <= cluster_.size(); ++node) {
      for (int i = 1; i <= kProducersPerHost; ++i)
        start_actor("produce" + manner(), node, "p" + std::to_string(node) + std::to_string(i));
      start_actor("insist" + manner(), node, "q" + std::to_string(node));
      start_actor("read", node, "r" + std::to_string(node));
    }
    wait_for_acks(50);
  }

  virtual TopicConfigs configs() const {
    return {{"min.insync.replicas", "2"},
            {"term.bytes", "256KiB"},
            {"segment.bytes", "1MiB"},
            {"retention.ms", "-1"}};
  }

  // Of producers; see cluster/actor.cc.
  virtual std::string manner() const { return ""; }

  struct Actor {
    int node = 0;
    bool produces = false;
    std::string name;
    std::unique_ptr<Command> process;
  };

  void start_actor(const std::string& what, int node, const std::string& name) {
    actors_.push_back({.node = node,
                       .produces = what != "read",
                       .name = name,
                       .process = cluster_.run_on(node, {CLUSTER_ACTOR, what, cluster_.log_dir(node).string(),
                                                         kTopic, name, history_file(name).string()})});
  }
  std::filesystem::path history_file(const std::string& name) const {
    return cluster_.directory() / ("history-" + name);
  }
  // Everybody who uses the log on that host, beside its daemon.
  void signal_actors(int node, int number) const {
    for (const Actor& actor : actors_)
      if (actor.node == node && actor.process) actor.process->signal(number);
  }

  std::vector<Event> history() const {
    std::vector<Event> events;
    for (const Actor& actor : actors_) {
      std::ifstream file(history_file(actor.name));
      for (std::string line; std::getline(file, line);)
        if (auto event = parse_line(line)) events.push_back(std::move(*event));
    }
    return events;
  }
  std::size_t acks() const {
    return static_cast<std::size_t>(
        std::ranges::count(history(), Event::Kind::acked, [](const Event& event) { return event.kind; }));
  }
  // Waits until so many more records have been acknowledged.
  void wait_for_acks(std::size_t more) {
    const std::size_t aim = acks() + more;
    const bool reached = Cluster::wait_until([&] {
      pause_for(milliseconds(50));
      return acks() >= aim;
    });
    if (!reached) expect_actors_alive();
    ASSERT_TRUE(reached) << acks() << " of " << aim << " were acknowledged\n" << cluster_.describe();
  }

  // What a host's log has for its readers, from the first record to the last.
  FinalLog read_all(int node) const {
    FinalLog records;
    auto log =
        Log::open({.dir = cluster_.log_dir(node), .create_if_missing = false, .keeper = KeeperMode::none});
    if (!log) {
      ADD_FAILURE() << to_string(log.error());
      return records;
    }
    auto consumer = Consumer::open(*log);
    const TopicPartition partition{kTopic, PartitionId(0)};
    if (!consumer || !consumer->assign(std::span(&partition, 1))) return records;
    while (*consumer->position(partition) < *consumer->end_offset(partition)) {
      const auto polled = consumer->poll(milliseconds(100));
      if (!polled) {
        ADD_FAILURE() << to_string(polled.error());
        return records;
      }
      for (const Record& record : *polled) records.emplace(record.offset.value(), std::string(record.value));
    }
    return records;
  }
  PartitionDescription ends_of(int node) const {
    auto log =
        Log::open({.dir = cluster_.log_dir(node), .create_if_missing = false, .keeper = KeeperMode::none});
    if (!log) return {};
    const auto topic = Admin(*log).describe_topic(kTopic);
    return topic ? topic->partitions.front() : PartitionDescription{};
  }

  std::string errors_of(const Actor& actor) const {
    std::ifstream file(history_file(actor.name).string() + ".errors");
    return {std::istreambuf_iterator<char>(file), {}};
  }
  // None of them has given up.
  void expect_actors_alive() const {
    for (const Actor& actor : actors_) {
      siginfo_t ended{};
      EXPECT_EQ(::waitid(P_PID, static_cast<id_t>(actor.process->pid()), &ended, WEXITED | WNOHANG | WNOWAIT),
                0);
      EXPECT_EQ(ended.si_pid, 0) << actor.name << " has ended with " << ended.si_status << ": "
                                 << errors_of(actor) << '\n'
                                 << cluster_.describe();
    }
  }

  // Ends all producers, waits until every host has everything and readers have read it, and takes the leader's
  // log for the truth. To be called when all faults are over. `unwell`: a reader may have ended, for what it had read
  // was taken back.
  void settle(bool unwell = false) {
    if (HasFatalFailure()) return;
    ASSERT_TRUE(cluster_.wait_until_whole(kTopic)) << cluster_.describe();
    if (!unwell) expect_actors_alive();
    for (Actor& actor : actors_)
      if (actor.produces) actor.process.reset();
    ASSERT_TRUE(Cluster::wait_until([&] {
      const PartitionDescription one = ends_of(1);
      if (one.high_watermark != one.log_end_offset) return false;
      for (int node = 2; node <= cluster_.size(); ++node) {
        const PartitionDescription other = ends_of(node);
        if (other.high_watermark != one.high_watermark || other.log_end_offset != one.log_end_offset ||
            other.log_end_position != one.log_end_position)
          return false;
      }
      return true;
    })) << "the hosts' logs do not end alike\n"
        << cluster_.describe();
    log_ = read_all(cluster_.leader(kTopic).value_or(1));
    if (log_.empty() || unwell) return;
    Cluster::wait_until([&] { return readers_at(log_.rbegin()->first) == cluster_.size(); });
  }
  int readers_at(std::uint64_t offset) const {
    std::set<std::string> readers;
    for (const Event& event : history())
      if (event.kind == Event::Kind::read && event.offset >= offset) readers.insert(event.who);
    return static_cast<int>(readers.size());
  }

  // Settles, and expects that every host has the same, and that every promise was kept.
  void expect_promises_kept() {
    settle();
    if (HasFatalFailure()) return;
    for (int node = 1; node <= cluster_.size(); ++node)
      EXPECT_EQ(read_all(node), log_) << "node " << node << "\n" << cluster_.describe();
    const std::vector<Event> seen = history();
    const std::vector<std::string> violations = check(seen, log_);
    const std::string text = report(seen, log_, violations);
    std::printf("[ checked  ] %s\n", text.c_str());
    EXPECT_THAT(violations, ::testing::IsEmpty()) << cluster_.describe();
    ASSERT_FALSE(log_.empty());
    EXPECT_EQ(readers_at(log_.rbegin()->first), cluster_.size()) << "a reader stands still";
  }

  Cluster cluster_;
  std::vector<Actor> actors_;
  FinalLog log_;
};

}  // namespace ringtail::test

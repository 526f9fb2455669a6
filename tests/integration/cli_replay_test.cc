// ringtail replay
#include <gmock/gmock.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <span>
#include <thread>

#include "integration/cli.h"
#include "ringtail/ringtail.h"

namespace ringtail::test {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::filesystem::path kOrders = std::filesystem::path(RINGTAIL_SOURCE_DIR) / "tests/data/orders.csv";

class CliReplayTest : public CliTest {
 protected:
  void SetUp() override {
    run_ok({"import", "csv", kOrders.string(), "--topic", "feed", "--key-column", "order_id",
            "--timestamp-column", "ts_event"});
  }
  static void send_and_end(Producer& writer, const std::string& value, bool commits) {
    ASSERT_TRUE(writer.begin());
    ASSERT_TRUE(writer.send(value)) << to_string(writer.error());
    ASSERT_TRUE(commits ? writer.commit() : writer.abort());
  }
  // All of a topic, but for its name.
  std::vector<json> records_of(const std::string& topic) {
    std::vector<json> records;
    for (const std::string& line : lines_of(consume_all(topic, {"--json"}))) {
      records.push_back(json::parse(line));
      records.back().erase("topic");
    }
    return records;
  }
};

TEST_F(CliReplayTest, TheCopyEqualsTheRecordingAndTheReportSaysHowLateRecordsLeft) {
  const json report = run_json({"replay", "feed", "--speed", "5", "--to", "copy"});
  EXPECT_EQ(report["records"], 60);
  EXPECT_EQ(report["to"], "copy");
  const std::int64_t recorded_ns = report["recorded_ns"];
  EXPECT_GT(recorded_ns, 0);
  EXPECT_GE(report["elapsed_ns"].get<std::int64_t>(), recorded_ns / 5);
  const json& late = report["late_ns"];
  EXPECT_LE(late["min"], late["p50"]);
  EXPECT_LE(late["p50"], late["p99"]);
  EXPECT_LE(late["p99"], late["max"]);
  EXPECT_EQ(records_of("copy"), records_of("feed"));
}

TEST_F(CliReplayTest, TextNamesThePercentiles) {
  const std::string text = run_ok({"replay", "feed", "--speed", "100"});
  EXPECT_THAT(text, HasSubstr("replayed 60 records"));
  EXPECT_THAT(text, HasSubstr("behind schedule"));
  EXPECT_THAT(text, HasSubstr("p99.99"));
}

TEST_F(CliReplayTest, WithoutATargetTheNameGetsASuffixAndMaxHasNoSchedule) {
  const json report = run_json({"replay", "feed", "--speed", "max"});
  EXPECT_EQ(report["to"], "feed-replay");
  EXPECT_FALSE(report.contains("late_ns"));
  EXPECT_EQ(records_of("feed-replay"), records_of("feed"));
}

TEST_F(CliReplayTest, PartitionsHeadersAndConfigurationsAreKept) {
  run_ok({"topic", "create", "many", "--partitions", "3", "--config", "flush.ms=20"});
  for (int i = 0; i < 30; ++i) {
    run_ok({"produce", "many", "--partition", std::to_string(i % 3), "--header", "n=" + std::to_string(i)},
           std::to_string(i) + "\n");
  }
  run_ok({"replay", "many", "--speed", "max", "--to", "copy"});
  const json description = run_json({"topic", "describe", "copy"});
  EXPECT_EQ(description["partitions"].size(), 3u);
  EXPECT_EQ(description["configs"]["flush.ms"]["value"], "20");
  for (const char* partition : {"0", "1", "2"}) {
    const std::vector<std::string> format = {"--partition", partition, "--format", "%o %T %k %s %h\\n"};
    EXPECT_EQ(consume_all("copy", format), consume_all("many", format));
  }
}

TEST_F(CliReplayTest, PartitionsAreMergedByTime) {
  auto log = Log::open({.dir = log_dir()});
  ASSERT_TRUE(log) << to_string(log.error());
  Admin admin(*log);
  // What comes before an hour without records tells in which order they are played.
  constexpr std::int64_t kStartNs = 1'900'000'000'000'000'000;
  constexpr std::int64_t kHourNs = 3'600'000'000'000;
  for (const std::uint32_t before : {3u, 6u, 9u}) {
    SCOPED_TRACE(before);
    const std::string from = "two-" + std::to_string(before);
    const std::string to = from + "-copy";
    ASSERT_TRUE(admin.create_topic({.name = from, .partitions = 2}));
    auto writer = Producer::open(*log, {.topic = from});
    ASSERT_TRUE(writer) << to_string(writer.error());
    for (std::uint32_t i = 0; i < 10; ++i) {
      const std::string value = std::to_string(i);
      const std::int64_t time_ns = kStartNs + i + (i < before ? 0 : kHourNs);
      const ProducerRecord record{.value = value, .partition = PartitionId(i % 2), .timestamp_ns = time_ns};
      ASSERT_TRUE(writer->send(record)) << to_string(writer->error());
    }
    Command replay(command_line({"replay", from, "--to", to}), environment());
    const auto played = [&] {
      std::uint64_t records = 0;
      const auto target = admin.describe_topic(to);
      if (!target) return records;
      for (const PartitionDescription& one : target->partitions) records += one.log_end_offset.value();
      return records;
    };
    while (played() < before) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    replay.signal(SIGINT);
    EXPECT_EQ(replay.wait().exit_code, 130);
    std::string values = consume_all(to, {"--format", "%s"});
    std::ranges::sort(values);
    EXPECT_EQ(values, std::string("0123456789").substr(0, before));
  }
}

TEST_F(CliReplayTest, WhatIsOverwrittenMeanwhileIsToldAsMissed) {
  auto log = Log::open({.dir = log_dir()});
  ASSERT_TRUE(log) << to_string(log.error());
  Admin admin(*log);
  ASSERT_TRUE(admin.create_topic({.name = "recorded",
                                  .configs = {{"storage", "memory"},
                                              {"on.full", "overwrite"},
                                              {"term.bytes", "1048576"},
                                              {"ring.terms", "4"}}}));
  ASSERT_TRUE(admin.create_topic(
      {.name = "copy",
       .configs = {
           {"storage", "memory"}, {"on.full", "block"}, {"term.bytes", "65536"}, {"ring.terms", "4"}}}));
  auto writer = Producer::open(*log, {.topic = "recorded"});
  ASSERT_TRUE(writer) << to_string(writer.error());
  const std::string value(100, 'x');
  const auto send = [&](std::uint64_t records) {
    for (std::uint64_t i = 0; i < records; ++i)
      ASSERT_TRUE(writer->send(value)) << to_string(writer->error());
  };
  constexpr std::uint64_t kRecorded = 6'000;
  send(kRecorded);
  // As long as this reader holds the copy's ring, the replay comes no further than its end.
  auto holder = Consumer::open(*log);
  ASSERT_TRUE(holder) << to_string(holder.error());
  const TopicPartition copy{"copy", PartitionId(0)};
  ASSERT_TRUE(holder->assign(std::span(&copy, 1)));
  ASSERT_TRUE(holder->poll(std::chrono::nanoseconds(0)));
  Command replay(command_line({"replay", "recorded", "--speed", "max", "--to", "copy", "--json"}),
                 environment());
  while (holder->end_offset(copy).value_or(Offset(0)) < Offset(1'000))
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  send(80'000);
  ASSERT_TRUE(holder->assign(std::span<const TopicPartition>()));
  const CommandResult result = replay.wait();
  EXPECT_EQ(result.exit_code, 0);
  const json report = json::parse(result.out, nullptr, false);
  ASSERT_TRUE(report.is_object()) << result.out << result.err;
  const std::uint64_t missed = report.value("missed", std::uint64_t{0});
  EXPECT_GT(missed, 0u);
  EXPECT_EQ(report["records"].get<std::uint64_t>() + missed, kRecorded);
  EXPECT_THAT(notes_of(result.err),
              ElementsAre(::testing::MatchesRegex(
                  "missed [0-9,]+ records that were overwritten or deleted before they were read")));
  EXPECT_EQ(run_json({"replay", "feed", "--speed", "max"})["missed"], 0);
}

TEST_F(CliReplayTest, OnlyTheWantedTimesArePlayed) {
  const std::vector<std::string> times = lines_of(consume_all("feed", {"--format", "%I\\n"}));
  const json report = run_json(
      {"replay", "feed", "--speed", "max", "--to", "copy", "--from-time", times[20], "--to-time", times[39]});
  const std::vector<std::string> played = lines_of(consume_all("copy", {"--format", "%I\\n"}));
  EXPECT_EQ(played.size(), report["records"]);
  EXPECT_GE(played.size(), 20u);
  EXPECT_EQ(played.front(), times[20]);
  EXPECT_EQ(played.back(), times[39]);
}

TEST_F(CliReplayTest, OfTransactionsCommittedOnesArePlayedWhenOnlyTheseAreWanted) {
  auto log = Log::open({.dir = log_dir()});
  ASSERT_TRUE(log) << to_string(log.error());
  ASSERT_TRUE(Admin(*log).create_topic({.name = "mixed"}));
  auto writer = Producer::open(*log, {.topic = "mixed", .transactional_id = "t"});
  auto plain = Producer::open(*log, {.topic = "mixed"});
  ASSERT_TRUE(writer && plain);
  send_and_end(*writer, "committed", true);
  send_and_end(*writer, "aborted", false);
  ASSERT_TRUE(plain->send("plain"));
  ASSERT_TRUE(writer->begin());
  ASSERT_TRUE(writer->send("open"));
  ASSERT_TRUE(plain->send("behind"));

  const std::vector<std::string> committed = {"--isolation-level", "read_committed"};
  const auto replay = [&](const std::string& to, std::vector<std::string> more) {
    more.insert(more.begin(), {"replay", "mixed", "--speed", "max", "--to", to});
    run_ok(std::move(more));
    return consume_all(to);
  };
  EXPECT_EQ(replay("all", {}), "committed\naborted\nplain\nopen\nbehind\n");
  EXPECT_EQ(replay("while-open", committed), "committed\nplain\n");
  EXPECT_EQ(consume_all("mixed", committed), "committed\nplain\n");
  ASSERT_TRUE(writer->commit());
  EXPECT_EQ(replay("when-done", committed), "committed\nplain\nopen\nbehind\n");
  EXPECT_EQ(consume_all("mixed", committed), "committed\nplain\nopen\nbehind\n");
}

TEST_F(CliReplayTest, NothingToPlayIsDone) {
  run_ok({"topic", "create", "empty"});
  EXPECT_EQ(run_json({"replay", "empty"})["records"], 0);
}

TEST_F(CliReplayTest, WrongArgumentsAreUsage) {
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"--speed", "0"},
                                             {"--speed", "-1"},
                                             {"--speed", "fast"},
                                             {"--speed", "inf"},
                                             {"--speed", "2x"},
                                             {"--from-time", "then"},
                                             {"--isolation-level", "serializable"},
                                             {"--to", "feed"},
                                             {"--to", "a/b"}}) {
    std::vector<std::string> line = {"replay", "feed"};
    line.insert(line.end(), arguments.begin(), arguments.end());
    EXPECT_EQ(run(line).exit_code, 2) << arguments[1];
  }
}

TEST_F(CliReplayTest, ATargetWithFewerPartitionsIsRefused) {
  run_ok({"topic", "create", "many", "--partitions", "3"});
  run_ok({"topic", "create", "few", "--partitions", "2"});
  const CommandResult result = run({"replay", "many", "--to", "few"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("has 2 partitions, 'many' has 3"));
}

TEST_F(CliReplayTest, ATargetThatWouldChangeTheTimestampsIsRefused) {
  run_ok({"topic", "create", "times", "--config", "message.timestamp.type=LogAppendTime"});
  const CommandResult result = run({"replay", "feed", "--speed", "max", "--to", "times"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("topic 'times' has message.timestamp.type=LogAppendTime"));
  EXPECT_THAT(result.err, HasSubstr("--to"));
  EXPECT_EQ(consume_all("times"), "");
  // A missing one is made without it.
  run_ok({"produce", "times"}, "x\n");
  run_ok({"replay", "times", "--speed", "max"});
  EXPECT_EQ(records_of("times-replay"), records_of("times"));
}

TEST_F(CliReplayTest, AnInterruptEndsItWithTheReportOfWhatWasPlayed) {
  Command replay(command_line({"replay", "feed", "--speed", "0.000000001", "--to", "copy"}), environment());
  while (run({"consume", "copy", "--from-beginning", "--exit-at-end"}).out.empty()) {
  }
  replay.signal(SIGINT);
  const CommandResult result = replay.wait();
  EXPECT_EQ(result.exit_code, 130);
  EXPECT_THAT(result.out, HasSubstr("replayed 1 record"));
}

}  // namespace
}  // namespace ringtail::test

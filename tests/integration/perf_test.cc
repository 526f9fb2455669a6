// `ringtail perf` as a user runs it. What it measures is the machine's business; here it must measure
// what was asked for, say so in the promised form, and leave nothing behind.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "integration/cli.h"

namespace ringtail {
namespace {

using nlohmann::json;
using test::run_command;

class PerfTest : public test::CliTest {
 protected:
  // The command, to be run in the test's folder, with no log but a temporary one there.
  std::vector<std::string> command(const std::vector<std::string>& words) const {
    const std::string here = directory().string();
    std::vector<std::string> all{"env", "-C", here, "-u", "RINGTAIL_DIR", "TMPDIR=" + here, RINGTAIL_BINARY};
    all.insert(all.end(), words.begin(), words.end());
    return all;
  }
  test::CommandResult run_here(const std::vector<std::string>& words) const {
    return run_command(command(words));
  }

  json measure(std::vector<std::string> words) const {
    words.insert(words.begin(), {"--json", "perf"});
    const auto result = run_here(words);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.err, "");
    return json::parse(result.out, nullptr, false);
  }

  bool folder_is_empty() const { return std::filesystem::is_empty(directory()); }
};

void expect_rising_latencies(const json& latency) {
  std::uint64_t before = 0;
  for (const char* name : {"min", "p50", "p90", "p99", "p99_9", "p99_99", "max"}) {
    ASSERT_TRUE(latency.contains(name)) << name;
    EXPECT_GE(latency[name].get<std::uint64_t>(), before) << name;
    before = latency[name].get<std::uint64_t>();
  }
}

// Two processes that spin on one CPU make a round trip in a time slice or two. The bound is against hanging.
TEST_F(PerfTest, TheWarmUpOfRoundTripsIsBoundInTimeToo) {
  std::vector<std::string> line =
      command({"perf", "latency", "--seconds", "0.2", "--storage", "memory", "--repeat", "8", "--cpus", "0,0",
               "--wait", "busy", "--config", "term.bytes=65536"});
  line.insert(line.begin(), {"timeout", "60"});
  const auto result = run_command(line);
  EXPECT_EQ(result.exit_code, 0) << result.err;
}

TEST_F(PerfTest, WhatTheTopicWouldRefuseIsRefusedBeforeAnythingIsMeasured) {
  for (const auto& words :
       std::vector<std::vector<std::string>>{{"--size", "99999999"},
                                             {"--config", "term.bytes=5"},
                                             {"--rate", "10", "--size", "1000000", "--batch", "4"}}) {
    std::vector<std::string> all = {"perf", "latency"};
    all.insert(all.end(), words.begin(), words.end());
    const auto result = run_here(all);
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_TRUE(folder_is_empty());
  }
}

TEST_F(PerfTest, PingPongCountsEveryRoundTrip) {
  const json result =
      measure({"latency", "--size", "32", "--count", "2000", "--repeat", "2", "--storage", "memory"});
  EXPECT_EQ(result["mode"], "latency");
  EXPECT_EQ(result["method"], "ping-pong");
  EXPECT_EQ(result["size"], 32);
  EXPECT_EQ(result["count"], 4000);
  EXPECT_EQ(result["latency_ns"]["samples"], 4000);
  EXPECT_EQ(result["runs"].size(), 2u);
  EXPECT_GT(result["records_per_second"], 0);
  EXPECT_GT(result["probe_ns"]["before"], 0);
  EXPECT_GT(result["probe_ns"]["after"], 0);
  EXPECT_GT(result["latency_ns"]["min"], 0);
  expect_rising_latencies(result["latency_ns"]);
  EXPECT_TRUE(folder_is_empty());
}

TEST_F(PerfTest, OpenLoopSendsWhatTheRateAndTheTimeMake) {
  const json result = measure({"latency", "--rate", "20000", "--seconds", "0.5", "--repeat", "1", "--warmup",
                               "1000", "--wait", "yield", "--storage", "disk", "--producers", "2"});
  EXPECT_EQ(result["method"], "open-loop");
  EXPECT_EQ(result["rate"], 20000.0);
  EXPECT_EQ(result["count"], 10000);
  EXPECT_EQ(result["latency_ns"]["samples"], 10000);
  expect_rising_latencies(result["latency_ns"]);
  EXPECT_TRUE(folder_is_empty());
}

TEST_F(PerfTest, ThroughputOfADiskTopicAlsoSaysWhenItWasSynced) {
  const json result = measure({"throughput", "--count", "100000", "--producers", "2", "--batch", "50",
                               "--repeat", "1", "--warmup", "5000", "--wait", "futex"});
  EXPECT_EQ(result["method"], "closed-loop");
  EXPECT_EQ(result["storage"], "disk");
  EXPECT_EQ(result["count"], 100000);
  EXPECT_GT(result["records_per_second"], 0);
  EXPECT_GE(result["bytes_per_second"], result["records_per_second"].get<std::uint64_t>() * 64);
  EXPECT_GT(result["durable_records_per_second"], 0);
  EXPECT_GE(result["log_bytes_per_record"], 96.0);
  EXPECT_TRUE(folder_is_empty());
}

TEST_F(PerfTest, RecordsCanBeWrittenInPlace) {
  const json result =
      measure({"throughput", "--claim", "--storage", "memory", "--seconds", "0.1", "--repeat", "1"});
  EXPECT_EQ(result["claim"], true);
  EXPECT_GT(result["count"], 0);
  EXPECT_FALSE(result.contains("durable_records_per_second"));
}

TEST_F(PerfTest, AProducerCanHaveItsTopicForItself) {
  const json stream =
      measure({"throughput", "--exclusive", "--storage", "memory", "--seconds", "0.1", "--repeat", "1"});
  EXPECT_EQ(stream["exclusive"], true);
  EXPECT_GT(stream["count"], 0);
  const json trips = measure({"latency", "--exclusive", "--count", "1000", "--repeat", "1"});
  EXPECT_EQ(trips["exclusive"], true);
  EXPECT_EQ(trips["count"], 1000);
}

TEST_F(PerfTest, WritesTheDistributionAsTextAndAsAPage) {
  const auto result = run_here({"perf", "latency", "--count", "3000", "--repeat", "2", "--storage", "memory",
                                "--hgrm", "delays.hgrm", "--html", "delays.html"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.out.find("p99.99"), std::string::npos);
  EXPECT_NE(result.out.find("cache-line round trip"), std::string::npos);

  const std::string hgrm = read_file(directory() / "delays.hgrm");
  EXPECT_TRUE(hgrm.starts_with("       Value     Percentile TotalCount 1/(1-Percentile)\n")) << hgrm;
  EXPECT_NE(hgrm.find("Total count    =         6000]"), std::string::npos) << hgrm;

  const std::string page = read_file(directory() / "delays.html");
  EXPECT_NE(page.find("<svg"), std::string::npos);
  EXPECT_NE(page.find("run 2"), std::string::npos);
  for (const char* external : {"http:", "https:", "src=", "@import", "<link"}) {
    EXPECT_EQ(page.find(external), std::string::npos) << external;
  }
}

TEST_F(PerfTest, AFileThatCannotBeWrittenCostsNeitherTheMeasurementNorTheOtherFile) {
  const auto result = run_here({"--json", "perf", "latency", "--count", "1000", "--repeat", "1", "--storage",
                                "memory", "--hgrm", "missing/delays.hgrm", "--html", "delays.html"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_NE(result.err.find("cannot create 'missing/delays.hgrm'"), std::string::npos) << result.err;
  const json printed = json::parse(result.out, nullptr, false);
  ASSERT_TRUE(printed.is_object()) << result.out;
  EXPECT_EQ(printed["count"], 1000);
  EXPECT_NE(read_file(directory() / "delays.html").find("<svg"), std::string::npos);
}

TEST_F(PerfTest, AReaderThatGoesAwayIsNoError) {
  std::vector<std::string> line =
      command({"perf", "latency", "--count", "1000", "--repeat", "1", "--storage", "memory"});
  line.insert(line.begin(), {"bash", "-c", "\"$@\" | true; exit ${PIPESTATUS[0]}", "bash"});
  const auto result = run_command(line);
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.err, "");
}

// At this rate a record of a warm-up would be followed by the one to measure after a quarter of an hour. The bound is
// against hanging.
TEST_F(PerfTest, AWarmUpOfNoRecordsIsNone) {
  std::vector<std::string> line = command({"--json", "perf", "latency", "--rate", "0.001", "--count", "1",
                                           "--warmup", "0", "--repeat", "1", "--storage", "memory"});
  line.insert(line.begin(), {"timeout", "60"});
  const auto result = run_command(line);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(json::parse(result.out, nullptr, false)["count"], 1) << result.out;
}

TEST_F(PerfTest, MeasuresInTheLogThatIsNamedAndDeletesItsTopics) {
  const auto result = run_here(
      {"--dir", "log", "perf", "throughput", "--count", "10000", "--warmup", "100", "--repeat", "2"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto topics = run_here({"--dir", "log", "topic", "list"});
  ASSERT_EQ(topics.exit_code, 0) << topics.err;
  EXPECT_EQ(topics.out, "");
}

TEST_F(PerfTest, RefusesWhatCannotBeMeasured) {
  const std::vector<std::vector<std::string>> wrong = {
      {"perf"},
      {"perf", "speed"},
      {"perf", "latency", "--size", "7"},
      {"perf", "latency", "--batch", "2"},
      {"perf", "latency", "--producers", "2"},
      {"perf", "latency", "--count", "1", "--seconds", "1"},
      {"perf", "latency", "--storage", "tape"},
      {"perf", "latency", "--wait", "patiently"},
      {"perf", "latency", "--cpus", "0,99999"},
      {"perf", "latency", "--rate", "-1"},
      {"perf", "latency", "--rate", "1e10"},
      {"perf", "latency", "--seconds", "1e300"},
      {"perf", "latency", "--seconds", "nan"},
      {"perf", "throughput", "--batch", "0"},
      {"perf", "throughput", "--batch", "2", "--claim"},
      {"perf", "throughput", "--producers", "2", "--exclusive"},
      {"perf", "throughput", "--producers", "65"},
      {"perf", "throughput", "--config", "flush.ms"},
      {"perf", "throughput", "--config", "no.such.thing=1"},
  };
  for (const auto& words : wrong) {
    SCOPED_TRACE(testing::PrintToString(words));
    const auto result = run_here(words);
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_NE(result.err, "");
    EXPECT_EQ(result.out, "");
  }
  EXPECT_TRUE(folder_is_empty());
}

TEST_F(PerfTest, AnInterruptLeavesNothingBehind) {
  test::Command perf(command({"perf", "throughput", "--seconds", "600", "--repeat", "1"}));
  // The log's folder appears when the probe is done and the workers are about to start.
  while (folder_is_empty()) {
    siginfo_t ended = {};
    ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(perf.pid()), &ended, WEXITED | WNOHANG | WNOWAIT), 0);
    ASSERT_EQ(ended.si_pid, 0) << perf.wait().err;
    ::usleep(10'000);
  }
  ::usleep(300'000);
  perf.signal(SIGINT);
  const auto result = perf.wait();
  EXPECT_EQ(result.exit_code, 130) << result.err;
  EXPECT_TRUE(folder_is_empty());
}

}  // namespace
}  // namespace ringtail

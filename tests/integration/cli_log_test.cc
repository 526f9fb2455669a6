// ringtail log verify and ringtail log dump
#include <gmock/gmock.h>

#include "integration/cli.h"

namespace ringtail::test {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class CliLogTest : public CliTest {
 protected:
  void SetUp() override {
    run_ok({"topic", "create", "t", "--partitions", "2"});
    std::string input;
    for (int i = 0; i < 1000; ++i) input += "record number " + std::to_string(i) + "\n";
    run_ok({"produce", "t", "--partition", "0", "--durable"}, input);
    run_ok({"produce", "t", "--partition", "1", "--durable"}, "only\n");
  }
  std::filesystem::path partition(int number) const {
    return log_dir() / "topics/t" / std::to_string(number);
  }
  std::filesystem::path segment() const { return partition(0) / "00000000000000000000.log"; }

  // Changes one byte in the middle of record 501. (Behind "50" the next frame begins with a "0".)
  void damage() const { damage(segment()); }
  static void damage(const std::filesystem::path& path) {
    const std::string content = read_file(path);
    const std::size_t at = content.find("record number 501");
    ASSERT_NE(at, std::string::npos);
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(at + 3));
    file.put('X');
  }
};

TEST_F(CliLogTest, VerifyFindsEveryRecordByWhateverNameTheFilesAreGiven) {
  const std::vector<std::pair<std::string, int>> names = {{"", 1001},
                                                          {log_dir().string(), 1001},
                                                          {(log_dir() / "topics/t").string(), 1001},
                                                          {(log_dir() / "topics/t/").string(), 1001},
                                                          {partition(0).string(), 1000},
                                                          {partition(1).string(), 1},
                                                          {segment().string(), 1000}};
  for (const auto& [name, records] : names) {
    SCOPED_TRACE(name);
    const json result = name.empty() ? run_json({"log", "verify"}) : run_json({"log", "verify", name});
    EXPECT_EQ(result["records"], records);
    EXPECT_EQ(result["faults"], 0);
  }
  EXPECT_THAT(run_ok({"log", "verify"}), HasSubstr("verified 2 partitions, 1,001 records"));
  EXPECT_THAT(run_ok({"log", "verify", "-v"}), HasSubstr("00000000000000000000.log"));
}

TEST_F(CliLogTest, VerifyIsCleanBesideAProducerThatRuns) {
  Command producer(command_line({"produce", "t", "--partition", "0"}), environment());
  Command follower(command_line({"consume", "t", "--partition", "0", "--from-beginning"}), environment());
  for (int round = 0; round < 20; ++round) {
    const std::string text = "live " + std::to_string(round) + "\n";
    producer.write(text);
    ASSERT_TRUE(follower.wait_for_output(text));
    const CommandResult result = run({"log", "verify"});
    EXPECT_EQ(result.exit_code, 0) << result.out << result.err;
  }
  EXPECT_EQ(producer.wait().exit_code, 0);
}

TEST_F(CliLogTest, VerifyNamesTheDamagedFileAndPositionAndExitsWith1) {
  damage();
  const CommandResult result = run({"log", "verify"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.out, HasSubstr("fault: " + segment().string() + ", position "));
  EXPECT_THAT(result.out, HasSubstr("1 fault\n"));
  const CommandResult as_json = run({"log", "verify", "--json"});
  EXPECT_EQ(as_json.exit_code, 1);
  const json object = json::parse(as_json.out);
  EXPECT_EQ(object["faults"], 1);
  EXPECT_EQ(object["partitions"][0]["faults"][0]["path"], segment().string());
  EXPECT_EQ(run({"log", "verify", partition(1).string()}).exit_code, 0);
}

TEST_F(CliLogTest, AFaultComesWithTheWayOutAndThatGoes) {
  damage();
  const std::string way = "ringtail consume t --partition 0 --offset 502";
  const CommandResult result = run({"log", "verify"});
  EXPECT_THAT(result.out, HasSubstr("restore the file from a backup or replica"));
  EXPECT_THAT(result.out, HasSubstr(way));
  const json object = json::parse(run({"log", "verify", "--json"}).out);
  EXPECT_THAT(object["partitions"][0]["faults"][0]["remedy"].get<std::string>(), HasSubstr(way));
  const std::string rest = run_ok({"consume", "t", "--partition", "0", "--offset", "502", "--exit-at-end"});
  EXPECT_EQ(lines_of(rest).size(), 498u);
  EXPECT_THAT(run({"doctor", "--dir", log_dir().string()}).out,
              HasSubstr("not looked at: `ringtail log verify " + log_dir().string() + "`"));
}

TEST_F(CliLogTest, TheWayOutNamesTopicAndPartitionHoweverThePathIsGiven) {
  damage();
  const std::vector<std::pair<std::filesystem::path, std::string>> names = {
      {log_dir() / "topics", "t/0"},
      {log_dir() / "topics/t", "0"},
      {partition(0), "."},
      {partition(0), segment().filename().string()}};
  for (const auto& [folder, name] : names) {
    SCOPED_TRACE(name);
    const CommandResult result = run_command(
        {"env", "-C", folder.string(), RINGTAIL_BINARY, "log", "verify", name}, {}, environment());
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_THAT(result.out, HasSubstr("ringtail consume t --partition 0 --offset 502"));
    EXPECT_THAT(result.out, HasSubstr("t/0  "));
  }
}

TEST_F(CliLogTest, WhatStandsInFrontOfAFaultIsPrinted) {
  run_ok({"topic", "create", "small", "--config", "term.bytes=65536", "--config", "ring.terms=4"});
  std::string input;
  for (int i = 0; i < 20'000; ++i) input += "record number " + std::to_string(i) + "\n";
  run_ok({"produce", "small", "--durable"}, input);  // more than the ring holds
  damage(log_dir() / "topics/small/0/00000000000000000000.log");
  const CommandResult consumed = run({"consume", "small", "--from-beginning", "--exit-at-end"});
  EXPECT_EQ(consumed.exit_code, 1);
  EXPECT_THAT(consumed.err, HasSubstr("no valid frame"));
  EXPECT_EQ(lines_of(consumed.out).size(), 501u);

  std::ofstream(partition(1) / "00000000000000000007.log") << "no segment";
  const CommandResult dumped = run({"log", "dump", partition(1).string()});
  EXPECT_EQ(dumped.exit_code, 1);
  EXPECT_THAT(dumped.err, HasSubstr("00000000000000000007.log"));
  EXPECT_THAT(dumped.out, StartsWith("position=0 offset=0 "));
}

TEST_F(CliLogTest, RecordsThatHadBeenSyncedAndAreGoneAreAnErrorThatSaysFromWhereOn) {
  const std::size_t at = read_file(segment()).find("record number 901");
  ASSERT_NE(at, std::string::npos);
  remove_shared_memory();
  std::filesystem::resize_file(segment(), at);
  const CommandResult result = run({"topic", "describe", "t"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.err, HasSubstr("error: t-0: " + segment().string()));
  EXPECT_THAT(result.err,
              HasSubstr("had been synced are gone, and with them the records from offset 901 on"));
  EXPECT_EQ(lines_of(result.err).size(), 1u) << result.err;
  EXPECT_EQ(run({"topic", "list"}).err, "");
}

TEST_F(CliLogTest, DumpPrintsALineForEachFrame) {
  const std::vector<std::string> lines = lines_of(run_ok({"log", "dump", partition(0).string()}));
  ASSERT_GE(lines.size(), 1000u);
  EXPECT_THAT(lines[0], StartsWith("position=0 offset=0 "));
  EXPECT_EQ(lines_of(run_ok({"log", "dump", segment().string(), "--limit", "3"})).size(), 3u);
  EXPECT_EQ(run_ok({"log", "dump", segment().string(), "--limit", "0"}), "");
}

TEST_F(CliLogTest, DumpStartsAtAPositionAndSpeaksJson) {
  const json first =
      json::parse(lines_of(run_ok({"log", "dump", segment().string(), "--limit", "2", "--json"}))[1]);
  EXPECT_EQ(first["offset"], 1);
  EXPECT_EQ(first["type"], 1);
  const std::string position = first["position"].dump();
  const std::string from =
      run_ok({"log", "dump", segment().string(), "--from-position", position, "--limit", "1"});
  EXPECT_THAT(from, StartsWith("position=" + position + " offset=1 "));
}

TEST_F(CliLogTest, DumpGoesOnBehindAFault) {
  damage();
  const std::string text = run_ok({"log", "dump", segment().string()});
  EXPECT_THAT(text, HasSubstr("FAULT"));
  EXPECT_THAT(text, HasSubstr("offset=999 "));
}

TEST_F(CliLogTest, PathsThatAreNoLogAreNamed) {
  for (const char* command : {"verify", "dump"}) {
    for (const std::string& path :
         {(directory() / "missing").string(), directory().string(), write_file("file.txt", "x").string()}) {
      SCOPED_TRACE(path);
      const CommandResult result = run({"log", command, path});
      EXPECT_EQ(result.exit_code, 1);
      EXPECT_THAT(result.err, HasSubstr(path));
    }
  }
  EXPECT_EQ(run({"log", "dump", log_dir().string()}).exit_code, 2);
  EXPECT_EQ(run_command(command_line({"log", "verify"}), {}, {"RINGTAIL_DIR"}).exit_code, 2);
}

TEST_F(CliLogTest, ADirectoryMayBeNamedWithMoreDigitsThanANumberHas) {
  std::filesystem::create_directory(log_dir() / "topics/t" / std::string(40, '9'));
  EXPECT_EQ(run_json({"log", "verify", (log_dir() / "topics/t").string()})["records"], 1001);
}

TEST_F(CliLogTest, AFileThatOnlyHasTheNameOfASegmentIsAFault) {
  std::ofstream(partition(1) / "00000000000000000007.log") << "no segment";
  EXPECT_EQ(run({"log", "verify", partition(1).string()}).exit_code, 1);
  EXPECT_EQ(run({"log", "dump", (partition(1) / "00000000000000000007.log").string()}).exit_code, 1);
}

}  // namespace
}  // namespace ringtail::test

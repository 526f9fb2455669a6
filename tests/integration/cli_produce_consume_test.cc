// ringtail produce and ringtail consume
#include <gmock/gmock.h>
#include <signal.h>

#include <map>
#include <thread>

#include "integration/cli.h"

namespace ringtail::test {
namespace {

using nlohmann::json;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::StartsWith;

class CliProduceConsumeTest : public CliTest {
 protected:
  void SetUp() override { run_ok({"topic", "create", "t"}); }
};

TEST_F(CliProduceConsumeTest, ALineIsARecordAndProducePrintsNothing) {
  EXPECT_EQ(run_ok({"produce", "t"}, "one\ntwo\n"), "");
  EXPECT_EQ(consume_all("t"), "one\ntwo\n");
}

TEST_F(CliProduceConsumeTest, EmptyLinesNulBytesCarriageReturnsAndALastLineWithoutEndAreData) {
  using namespace std::string_literals;
  const std::string input = "\n\na\0b\n\r\nlast"s;
  run_ok({"produce", "t"}, input);
  EXPECT_EQ(consume_all("t"), input + "\n");
  EXPECT_EQ(lines_of(consume_all("t", {"--format", "%S\\n"})),
            (std::vector<std::string>{"0", "0", "3", "1", "4"}));
}

TEST_F(CliProduceConsumeTest, NoInputIsNoRecord) {
  run_ok({"produce", "t"}, "");
  EXPECT_EQ(consume_all("t"), "");
}

TEST_F(CliProduceConsumeTest, VerboseSumsUpOnStandardError) {
  const CommandResult result = run({"produce", "t", "-v"}, "one\ntwo\n");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.out, "");
  EXPECT_THAT(result.err, HasSubstr("2 records"));
  const CommandResult as_json = run({"produce", "t", "-v", "--json"}, "one\ntwo\n");
  EXPECT_EQ(as_json.exit_code, 0);
  EXPECT_EQ(as_json.out, "");
  EXPECT_THAT(notes_of(as_json.err), ElementsAre(StartsWith("2 records")));
}

TEST_F(CliProduceConsumeTest, KeysEndAtTheFirstSeparator) {
  run_ok({"produce", "t", "--key-separator", "::"}, "k::v::w\n::empty key\nno separator\nk::\n");
  EXPECT_EQ(consume_all("t", {"--format", "[%k|%K|%s]\\n"}),
            "[k|1|v::w]\n[|0|empty key]\n[|-1|no separator]\n[k|1|]\n");
  EXPECT_EQ(run({"produce", "t", "--key-separator", ""}).exit_code, 2);
}

TEST_F(CliProduceConsumeTest, ATabSeparatorCanBeWrittenWithABackslash) {
  run_ok({"produce", "t", "--key-separator", "\\t"}, "k\tv\n");
  EXPECT_EQ(consume_all("t", {"--print-key"}), "k\tv\n");
}

TEST_F(CliProduceConsumeTest, HeadersAreKeptInOrderWithTheirRepetitions) {
  run_ok({"produce", "t", "--header", "a=1", "--header", "b=x=y", "--header", "a="}, "v\n");
  EXPECT_EQ(consume_all("t", {"--print-headers"}), "a:1,b:x=y,a:\tv\n");
  EXPECT_EQ(consume_all("t", {"--format", "%h\\n"}), "a=1,b=x=y,a=\n");
  EXPECT_EQ(run({"produce", "t", "--header", "nothing"}).exit_code, 2);
}

TEST_F(CliProduceConsumeTest, PrintOptionsStandAsInKafkasConsoleConsumer) {
  run_ok({"produce", "t"}, "v\n");
  EXPECT_THAT(consume_all("t", {"--print-key", "--print-headers", "--print-offset", "--print-timestamp"}),
              MatchesRegex("CreateTime:[0-9]+\tOffset:0\tNO_HEADERS\tnull\tv\n"));
}

TEST_F(CliProduceConsumeTest, AppendTimeTopicsSaySo) {
  run_ok({"topic", "create", "append", "--config", "message.timestamp.type=LogAppendTime"});
  run_ok({"produce", "append"}, "v\n");
  EXPECT_THAT(consume_all("append", {"--print-timestamp"}), MatchesRegex("LogAppendTime:[0-9]+\tv\n"));
}

TEST_F(CliProduceConsumeTest, FormatsTakeEveryEscape) {
  run_ok({"produce", "t", "--key-separator", ":", "--header", "h=1"}, "key:value\n");
  EXPECT_EQ(consume_all("t", {"--format", "%t|%p|%o|%k|%s|%h|%S|%K|%%|\\t|\\n"}),
            "t|0|0|key|value|h=1|5|3|%|\t|\n");
  EXPECT_THAT(consume_all("t", {"--format", "%T %I"}),
              MatchesRegex("[0-9]{19} 20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\\.[0-9]{9}Z"));
  EXPECT_EQ(run({"consume", "t", "--format", "%x"}).exit_code, 2);
  EXPECT_EQ(run({"consume", "t", "--format", "%"}).exit_code, 2);
  EXPECT_EQ(run({"consume", "t", "--format", "%s", "--print-key"}).exit_code, 2);
}

TEST_F(CliProduceConsumeTest, JsonIsOneObjectALineAndBinaryBecomesBase64) {
  run_ok({"produce", "t", "--key-separator", ":", "--header", "h=\xfe"}, "k\"\\:v\t\x01\xc3\xa9\nbin:\xff\n");
  for (const std::vector<std::string>& how :
       std::vector<std::vector<std::string>>{{"--format", "json"}, {"--json"}}) {
    const std::vector<std::string> lines = lines_of(consume_all("t", how));
    ASSERT_EQ(lines.size(), 2u);
    const json first = json::parse(lines[0]);
    EXPECT_EQ(first["topic"], "t");
    EXPECT_EQ(first["partition"], 0);
    EXPECT_EQ(first["offset"], 0);
    EXPECT_GT(first["timestamp_ns"].get<std::int64_t>(), 1'600'000'000'000'000'000);
    EXPECT_EQ(first["key"], "k\"\\");
    EXPECT_EQ(first["value"], "v\t\x01\xc3\xa9");
    EXPECT_EQ(first["headers"], (json::array({{{"key", "h"}, {"value_base64", "/g=="}}})));
    const json second = json::parse(lines[1]);
    EXPECT_EQ(second["value_base64"], "/w==");
    EXPECT_FALSE(second.contains("value"));
  }
}

TEST_F(CliProduceConsumeTest, StartsWhereItIsTold) {
  run_ok({"produce", "t"}, "0\n1\n2\n3\n4\n");
  const auto consume = [&](std::vector<std::string> from) {
    from.insert(from.begin(), {"consume", "t", "--exit-at-end"});
    return run_ok(from);
  };
  EXPECT_EQ(consume({}), "");
  EXPECT_EQ(consume({"--from-beginning"}), "0\n1\n2\n3\n4\n");
  EXPECT_EQ(consume({"--offset", "3"}), "3\n4\n");
  EXPECT_EQ(consume({"--offset", "5"}), "");
  EXPECT_EQ(consume({"--offset", "-2"}), "3\n4\n");
  EXPECT_EQ(consume({"--offset", "-99"}), "0\n1\n2\n3\n4\n");
  EXPECT_EQ(consume({"--from-beginning", "--max-messages", "2"}), "0\n1\n");
  EXPECT_EQ(consume({"--from-time", "-1h"}), "0\n1\n2\n3\n4\n");
  EXPECT_EQ(consume({"--from-time", "2200-01-01T00:00:00Z"}), "");

  const CommandResult outside = run({"consume", "t", "--offset", "6"});
  EXPECT_EQ(outside.exit_code, 1);
  EXPECT_THAT(outside.err, HasSubstr("goes from 0 to 5"));
  EXPECT_EQ(run({"consume", "t", "--from-time", "yesterday"}).exit_code, 2);
}

TEST_F(CliProduceConsumeTest, FromTimeFindsTheRecord) {
  run_ok({"produce", "t"}, "0\n1\n2\n");
  const std::vector<std::string> times = lines_of(consume_all("t", {"--format", "%I\\n"}));
  ASSERT_EQ(times.size(), 3u);
  const std::string rest =
      run_ok({"consume", "t", "--exit-at-end", "--from-time", times[1], "--format", "%I\\n"});
  EXPECT_THAT(lines_of(rest), ::testing::Each(::testing::Ge(times[1])));
  EXPECT_THAT(rest, HasSubstr(times[1]));
}

TEST_F(CliProduceConsumeTest, EqualKeysShareAPartitionAndPartitionsCanBeChosen) {
  run_ok({"topic", "create", "p", "--partitions", "4"});
  std::string input;
  for (int i = 0; i < 200; ++i) input += "key" + std::to_string(i % 10) + ":" + std::to_string(i) + "\n";
  run_ok({"produce", "p", "--key-separator", ":"}, input);
  std::map<std::string, std::string> partition_of;
  std::map<std::string, int> last;
  for (const std::string& line : lines_of(consume_all("p", {"--json"}))) {
    const json record = json::parse(line);
    const std::string key = record["key"];
    const auto [at, is_new] = partition_of.emplace(key, record["partition"].dump());
    EXPECT_TRUE(is_new || at->second == record["partition"].dump()) << key;
    const int number = std::stoi(record["value"].get<std::string>());
    EXPECT_TRUE(is_new || last[key] < number) << key;
    last[key] = number;
  }
  EXPECT_EQ(partition_of.size(), 10u);

  run_ok({"produce", "p", "--partition", "3"}, "only here\n");
  EXPECT_THAT(consume_all("p", {"--partition", "3"}), HasSubstr("only here\n"));
  EXPECT_THAT(consume_all("p", {"--partition", "2"}), ::testing::Not(HasSubstr("only here\n")));
  EXPECT_EQ(run({"produce", "p", "--partition", "4"}, "x\n").exit_code, 2);
  EXPECT_EQ(run({"consume", "p", "--partition", "4"}).exit_code, 2);
}

TEST_F(CliProduceConsumeTest, BatchesLoseAndReorderNothing) {
  std::string input;
  for (int i = 0; i < 10'000; ++i) input += std::to_string(i % 7) + ":" + std::to_string(i) + "\n";
  for (const char* size : {"1", "7", "4096"}) {
    SCOPED_TRACE(size);
    const std::string topic = "batch-" + std::string(size);
    run_ok({"topic", "create", topic, "--partitions", "3"});
    run_ok({"produce", topic, "--batch", size, "--key-separator", ":", "--acks", "all"}, input);
    std::map<std::string, int> last;
    int records = 0;
    for (const std::string& line : lines_of(consume_all(topic, {"--print-key"}))) {
      ++records;
      const std::string key = line.substr(0, 1);
      const int number = std::stoi(line.substr(2));
      EXPECT_TRUE(!last.contains(key) || last[key] < number) << line;
      last[key] = number;
    }
    EXPECT_EQ(records, 10'000);
  }
}

TEST_F(CliProduceConsumeTest, EveryKindOfAcknowledgementArrives) {
  for (const char* acks : {"0", "1", "all"})
    run_ok({"produce", "t", "--acks", acks}, std::string(acks) + "\n");
  run_ok({"produce", "t", "--durable"}, "durable\n");
  EXPECT_EQ(consume_all("t"), "0\n1\nall\ndurable\n");
}

TEST_F(CliProduceConsumeTest, ALineThatIsTooLongIsNamedAndNothingOfItIsAppended) {
  const CommandResult result = run({"produce", "t"}, "short\n" + std::string(2 << 20, 'x') + "\nnever\n");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("line 2"));
  EXPECT_THAT(result.err, HasSubstr("1048576 bytes in all (max.message.bytes)"));
  EXPECT_THAT(result.err, HasSubstr("it has 2097152"));
  EXPECT_THAT(result.err, HasSubstr("ringtail topic alter t --config max.message.bytes="));
  EXPECT_THAT(result.err, HasSubstr("; 1 line before it was appended"));
  EXPECT_EQ(consume_all("t"), "short\n");
  const CommandResult in_batches =
      run({"produce", "t", "--batch", "2"}, "a\nb\nc\n" + std::string(2 << 20, 'x') + "\nnever\n");
  EXPECT_EQ(in_batches.exit_code, 1);
  EXPECT_THAT(in_batches.err, HasSubstr("it has 2097152"));
  EXPECT_THAT(in_batches.err, HasSubstr("; 3 lines before it were appended"));
}

TEST_F(CliProduceConsumeTest, LongLinesWithinTheLimitArriveWhole) {
  std::string input;
  for (std::size_t size : {1u, 65'535u, 65'536u, 1'000'000u}) input += std::string(size, 'x') + "\n";
  run_ok({"produce", "t"}, input);
  EXPECT_EQ(consume_all("t"), input);
}

// The bound is against hanging.
TEST_F(CliProduceConsumeTest, AtTheEndOfTheStartItEndsThoughMoreHasComeMeanwhile) {
  run_ok({"topic", "create", "small", "--config", "term.bytes=65536", "--config", "ring.terms=4"});
  const auto records = [](int from, int to) {
    std::string text;
    for (int i = from; i < to; ++i) text += std::string(1'000, 'x') + std::to_string(i) + "\n";
    return text;
  };
  const std::string before = records(0, 6'000);  // more than is read from a file at once
  run_ok({"produce", "small", "--durable"}, before);
  std::vector<std::string> line = command_line({"consume", "small", "--from-beginning", "--exit-at-end"});
  line.insert(line.begin(), {"timeout", "60"});
  Command reader(line, environment());
  ASSERT_TRUE(reader.wait_for_output("x0\n"));
  // From here on nobody takes its output until it is waited for, so it has not come to the end yet.
  run_ok({"produce", "small", "--durable"}, records(6'000, 8'000));
  const CommandResult result = reader.wait();
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(lines_of(result.out).size(), 6'000u);
  EXPECT_TRUE(result.out == before);
}

TEST_F(CliProduceConsumeTest, FollowersSeeRecordsAsTheyCome) {
  Command follower(command_line({"consume", "t", "--from-beginning", "--follow"}), environment());
  run_ok({"produce", "t"}, "first\n");
  ASSERT_TRUE(follower.wait_for_output("first\n"));
  run_ok({"produce", "t"}, "second\n");
  ASSERT_TRUE(follower.wait_for_output("second\n"));
  follower.signal(SIGINT);
  const CommandResult result = follower.wait();
  EXPECT_EQ(result.exit_code, 130);
  EXPECT_EQ(result.out, "first\nsecond\n");
  EXPECT_EQ(result.err, "");
}

TEST_F(CliProduceConsumeTest, ALineIsSentWithoutWaitingForABatchToFill) {
  Command follower(command_line({"consume", "t", "--from-beginning"}), environment());
  Command producer(command_line({"produce", "t", "--batch", "100"}), environment());
  producer.write("soon\n");
  EXPECT_TRUE(follower.wait_for_output("soon\n"));
  producer.signal(SIGTERM);
  EXPECT_EQ(producer.wait().exit_code, 143);
}

TEST_F(CliProduceConsumeTest, AReaderThatGoesAwayIsNoError) {
  std::string input;
  for (int i = 0; i < 200'000; ++i) input += std::to_string(i) + "\n";
  run_ok({"produce", "t"}, input);
  const std::string line = std::string(RINGTAIL_BINARY) +
                           " consume t --from-beginning --exit-at-end | head -n 1; echo ${PIPESTATUS[0]}";
  const CommandResult result = run_command({"bash", "-c", line}, {}, environment());
  EXPECT_EQ(result.out, "0\n0\n");
  EXPECT_EQ(result.err, "");
}

TEST_F(CliProduceConsumeTest, AFullDiskBehindStandardOutputIsAnError) {
  run_ok({"produce", "t"}, "x\n");
  const std::string line =
      std::string(RINGTAIL_BINARY) + " consume t --from-beginning --exit-at-end > /dev/full";
  const CommandResult result = run_command({"bash", "-c", line}, {}, environment());
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("cannot write to standard output"));
}

TEST_F(CliProduceConsumeTest, MemoryTopicsWorkAlike) {
  run_ok({"topic", "create", "m", "--config", "storage=memory"});
  run_ok({"produce", "m"}, "one\ntwo\n");
  EXPECT_EQ(consume_all("m"), "one\ntwo\n");
  const CommandResult durable = run({"produce", "m", "--durable"}, "three\n");
  EXPECT_EQ(durable.exit_code, 2);
  EXPECT_THAT(durable.err, HasSubstr("memory"));
}

TEST_F(CliProduceConsumeTest, AReaderThatWasPassedSaysHowMuchItMissed) {
  run_ok({"topic", "create", "m", "--config", "storage=memory", "--config", "on.full=overwrite", "--config",
          "term.bytes=65536", "--config", "ring.terms=4"});
  // Came first, so it keeps the log while the readers stand still.
  Command keeper(command_line({"produce", "m"}), environment());
  const std::string maps = "/proc/" + std::to_string(keeper.pid()) + "/maps";
  while (read_file(maps).find("/m-0.ring") == std::string::npos)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  Command text(command_line({"consume", "m", "--from-beginning"}), environment());
  Command as_json(command_line({"consume", "m", "--from-beginning", "--json"}), environment());
  run_ok({"produce", "m"}, "first\n");
  for (Command* reader : {&text, &as_json}) {
    ASSERT_TRUE(reader->wait_for_output("first"));
    reader->signal(SIGSTOP);
  }
  std::string input;
  for (int i = 0; i < 2'000; ++i) input += std::string(1'000, 'x') + "\n";
  run_ok({"produce", "m"}, input + "last\n");
  const auto end = [](Command& reader) {
    reader.signal(SIGCONT);
    EXPECT_TRUE(reader.wait_for_output("last"));
    reader.signal(SIGINT);
    const CommandResult result = reader.wait();
    EXPECT_EQ(result.exit_code, 130);
    return result.err;
  };
  const std::string missed = "missed [0-9,]+ records that were overwritten or deleted before they were read";
  EXPECT_THAT(lines_of(end(text)), Contains(MatchesRegex("ringtail: " + missed)));
  EXPECT_THAT(notes_of(end(as_json)), ElementsAre(MatchesRegex(missed)));
}

}  // namespace
}  // namespace ringtail::test

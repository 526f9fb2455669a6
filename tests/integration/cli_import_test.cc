// ringtail import
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/stat.h>

#include <chrono>
#include <thread>

#include "integration/cli.h"

namespace ringtail::test {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class CliImportTest : public CliTest {
 protected:
  // Imports `content` as a file of its own and returns the result.
  CommandResult import(const std::string& kind, std::string_view content,
                       std::vector<std::string> more = {}) {
    const std::string path = write_file("input." + kind, content).string();
    more.insert(more.begin(), {"import", kind, path, "--topic", "t"});
    return run(more);
  }
  void import_ok(const std::string& kind, std::string_view content, std::vector<std::string> more = {}) {
    const CommandResult result = import(kind, content, std::move(more));
    EXPECT_EQ(result.exit_code, 0) << result.err;
  }
  std::string consume(const std::string& format) { return consume_all("t", {"--format", format}); }
  // Whether a program has its signal handlers and sleeps.
  static bool sleeps(pid_t pid) {
    const std::string status = read_file("/proc/" + std::to_string(pid) + "/status");
    constexpr std::string_view kCaught = "SigCgt:\t";
    const std::size_t at = status.find(kCaught);
    if (at == std::string::npos) return false;
    const unsigned long long caught = std::stoull(status.substr(at + kCaught.size(), 16), nullptr, 16);
    return (caught >> (SIGINT - 1) & 1) != 0 && status.find("State:\tS") != std::string::npos;
  }
};

const std::filesystem::path kOrders = std::filesystem::path(RINGTAIL_SOURCE_DIR) / "tests/data/orders.csv";

TEST_F(CliImportTest, ARecordedFeedComesBackByteForByteWithItsTimesAndKeys) {
  const std::string file = read_file(kOrders);
  const std::size_t header_end = file.find('\n') + 1;
  const json summary = run_json({"import", "csv", kOrders.string(), "--topic", "feed", "--key-column",
                                 "order_id", "--timestamp-column", "ts_event"});
  EXPECT_EQ(summary["records"], 60);
  EXPECT_EQ(consume_all("feed"), file.substr(header_end));

  const std::vector<std::string> rows = lines_of(file.substr(header_end));
  const std::vector<std::string> records = lines_of(consume_all("feed", {"--format", "%I %k\\n"}));
  ASSERT_EQ(records.size(), rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::istringstream row(rows[i]);
    std::vector<std::string> fields;
    for (std::string field; std::getline(row, field, ',');) fields.push_back(field);
    EXPECT_EQ(records[i], fields[1] + " " + fields[10]);
  }
  EXPECT_THAT(lines_of(consume_all("feed", {"--print-timestamp"}))[0],
              StartsWith("CreateTime:1930401000000000000\t"));
}

TEST_F(CliImportTest, ATopicMadeForRecordedTimesKeepsThem) {
  const std::string path = kOrders.string();
  const CommandResult result =
      run({"import", "csv", path, "--topic", "feed", "--timestamp-column", "ts_event", "-v"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.err, HasSubstr("created topic 'feed' with one partition and retention.ms=-1"));
  EXPECT_EQ(run_json({"topic", "describe", "feed"})["configs"]["retention.ms"]["value"], "-1");
}

TEST_F(CliImportTest, QuotesLineEndsAndUtf8InRowsStayAsTheyAre) {
  const std::string rows =
      "1,\"a, b\",plain\n"
      "2,\"she said \"\"no\"\"\",\"two\nlines\r\nthree\"\n"
      "3,\"\",\n"
      "\"four \"\"4\"\"\",z\xc3\xbcrich \xe2\x82\xac,\xf0\x9f\x90\x98\r\n"
      "5,last,row without end";
  import_ok("csv", "id,text,more\n" + rows, {"--key-column", "id"});
  EXPECT_EQ(consume("%s\\n"), rows + "\n");
  EXPECT_EQ(consume("%k|"), "1|2|3|four \"4\"|5|");
}

TEST_F(CliImportTest, AColumnAtTheEndOfACrlfRowHasNoCarriageReturn) {
  import_ok("csv", "a,k\r\n1,x\r\n2,\"y\"\r\n", {"--key-column", "k"});
  EXPECT_EQ(consume("%k(%K)"), "x(1)y(1)");
}

TEST_F(CliImportTest, AnEmptyFieldIsNoKeyAndAQuotedOneAnEmptyKey) {
  import_ok("csv", "a,k\n1,\n2,\"\"\n", {"--key-column", "k"});
  EXPECT_EQ(consume("%K "), "-1 0 ");
}

TEST_F(CliImportTest, BlankLinesAndAByteOrderMarkAreNoRecords) {
  import_ok("csv",
            "\xef\xbb\xbf"
            "a,k\n\n1,x\n\r\n2,y\n\n",
            {"--key-column", "a"});
  EXPECT_EQ(consume("%k=%s "), "1=1,x 2=2,y ");
}

TEST_F(CliImportTest, WithoutHeaderEveryRowIsARecordAndColumnsAreNumbers) {
  import_ok("csv", "1,x\n2,y\n", {"--no-header", "--key-column", "2"});
  EXPECT_EQ(consume("%k=%s "), "x=1,x y=2,y ");
  EXPECT_EQ(import("csv", "1,x\n", {"--no-header", "--key-column", "x"}).exit_code, 2);
  const CommandResult beyond = import("csv", "1,x\n", {"--no-header", "--key-column", "3"});
  EXPECT_EQ(beyond.exit_code, 1);
  EXPECT_THAT(beyond.err, HasSubstr("line 1: no column 3"));
}

TEST_F(CliImportTest, ReadsStandardInput) {
  const std::string out = run_ok({"import", "lines", "-", "--topic", "t"}, "a\nb\n");
  EXPECT_THAT(out, StartsWith("imported 2 records"));
  EXPECT_EQ(consume("%s "), "a b ");
}

TEST_F(CliImportTest, RowsLongerThanAReadBlockArriveWhole) {
  std::string rows;
  for (const char c : {'x', 'y', 'z'}) rows += "1,\"" + std::string(900'000, c) + "\n\"\"\"\n";
  import_ok("csv", "id,text\n" + rows);
  EXPECT_EQ(consume("%s\\n"), rows);
}

TEST_F(CliImportTest, TimestampsOfEveryKind) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"auto", "2031-03-04T14:30:00.123456789Z"},
      {"auto", "2031-03-04T09:30:00.123456789-05:00"},
      {"auto", "1930401000123456789"},
      {"auto", "1930401000.123456789"},
      {"ns", "1930401000123456789"},
      {"us", "1930401000123456.789"},
      {"ms", "1930401000123.456789"},
      {"s", "1930401000.123456789"},
      {"%Y-%m-%d %H:%M:%S.%f", "2031-03-04 14:30:00.123456789"},
      {"%d.%m.%Y %H:%M:%S,%f %z", "04.03.2031 09:30:00,123456789 -0500"},
      {"%b %d %Y %I:%M:%S.%f %p", "Mar 04 2031 02:30:00.123456789 PM"}};
  std::string expected;
  for (const auto& [format, text] : cases) {
    SCOPED_TRACE(format + " " + text);
    import_ok("csv", "ts,v\n\"" + text + "\",x\n",
              {"--timestamp-column", "ts", "--timestamp-format", format});
    expected += "1930401000123456789 ";
  }
  EXPECT_EQ(consume("%T "), expected);
}

TEST_F(CliImportTest, ShortFractionsAreNotMistakenForNanoseconds) {
  import_ok("csv", "ts\n2031-03-04 14:30:00.5\n",
            {"--timestamp-column", "ts", "--timestamp-format", "%F %T.%f"});
  import_ok("csv", "ts\n-1.5\n", {"--timestamp-column", "ts", "--timestamp-format", "s"});
  EXPECT_EQ(consume("%T "), "1930401000500000000 -1500000000 ");
}

TEST_F(CliImportTest, DaysThatDoNotExistAreNoTimestamps) {
  const auto import_time = [this](const std::string& format, const std::string& text) {
    return import("csv", "ts\n" + text + "\n", {"--timestamp-column", "ts", "--timestamp-format", format});
  };
  const std::vector<std::pair<std::string, std::string>> right = {{"%F", "2032-02-29"},
                                                                  {"%Y-%j", "2032-366"},
                                                                  {"%Y/%m", "2032/03"},
                                                                  {"%F %T", "2016-12-31 23:59:60"},
                                                                  {"%F %T%z", "2016-12-31 23:59:60-0500"}};
  for (const auto& [format, text] : right) EXPECT_EQ(import_time(format, text).err, "") << format << text;
  EXPECT_EQ(consume("%I\\n"),
            "2032-02-29T00:00:00.000000000Z\n"
            "2032-12-31T00:00:00.000000000Z\n"
            "2032-03-01T00:00:00.000000000Z\n"
            "2017-01-01T00:00:00.000000000Z\n"
            "2017-01-01T05:00:00.000000000Z\n");
  const std::vector<std::pair<std::string, std::string>> wrong = {{"%F", "2031-02-29"},
                                                                  {"%F", "2031-02-31"},
                                                                  {"%d.%m.%Y", "31.04.2031"},
                                                                  {"%F %T.%f", "2031-06-31 14:30:00.5"},
                                                                  {"%Y-%j", "2031-366"}};
  for (const auto& [format, text] : wrong) {
    const CommandResult result = import_time(format, text);
    EXPECT_EQ(result.exit_code, 1) << text;
    EXPECT_THAT(result.err, HasSubstr("'" + text + "' is no timestamp of a day that exists"));
  }
}

TEST_F(CliImportTest, TimestampsThatAreNoneAreNamedWithTheirLine) {
  const std::vector<std::pair<std::string, std::string>> cases = {{"auto", "soon"},
                                                                  {"auto", ""},
                                                                  {"auto", "-5m"},
                                                                  {"auto", "2031-02-30T00:00:00Z"},
                                                                  {"ns", "1.5"},
                                                                  {"s", "1.1234567890"},
                                                                  {"s", "99999999999999"},
                                                                  {"%F", "2031-03-04 14:30"},
                                                                  {"%F %T.%f", "2031-03-04 14:30:00."}};
  for (const auto& [format, text] : cases) {
    SCOPED_TRACE(format + " " + text);
    const CommandResult result = import("csv", "ts,v\n1930401000000000000,x\n" + text + ",y\n",
                                        {"--timestamp-column", "ts", "--timestamp-format", format});
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_THAT(result.err, HasSubstr("line "));
    EXPECT_THAT(result.err, HasSubstr("column 'ts'"));
  }
  EXPECT_EQ(
      import("csv", "ts\n1\n", {"--timestamp-column", "ts", "--timestamp-format", "nonsense"}).exit_code, 2);
}

TEST_F(CliImportTest, MalformedRowsAreNamedByLineAndEarlierRowsStay) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"3,\"open", "line 5: the quote that opens column 2 is never closed"},
      {"3,\"a\"b", "line 5: column 2 goes on behind its closing quote"},
      {"3,a\"b", "line 5: column 2 has a quote but does not start with one"},
      {"3", "line 5: 1 columns where the first row has 2"},
      {"3,4,5", "line 5: 3 columns where the first row has 2"}};
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const std::string topic = "t" + std::to_string(i);
    const std::string path = write_file("bad.csv", "id,v\n1,\"x\ny\"\n2,b\n" + cases[i].first).string();
    const CommandResult result = run({"import", "csv", path, "--topic", topic});
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_THAT(result.err, HasSubstr(cases[i].second));
    EXPECT_THAT(result.err,
                HasSubstr("(2 records were imported before it and stay in topic '" + topic + "')"));
    EXPECT_EQ(consume_all(topic), "1,\"x\ny\"\n2,b\n");
  }
}

TEST_F(CliImportTest, MistakesFoundBeforeTheFirstRowLeaveNoTopic) {
  run_ok({"topic", "create", "there"});
  EXPECT_EQ(import("csv", "a,b\n1,2\n", {"--key-column", "c"}).exit_code, 2);
  EXPECT_THAT(import("csv", "a,b\n1,2\n", {"--key-column", "c"}).err, HasSubstr("its columns are: a, b"));
  EXPECT_EQ(import("csv", "").exit_code, 1);
  EXPECT_EQ(import("lines", "x\n", {"--key-column", "c"}).exit_code, 2);
  EXPECT_EQ(run({"import", "csv", (directory() / "missing.csv").string(), "--topic", "t"}).exit_code, 1);
  EXPECT_EQ(run({"import", "csv", directory().string(), "--topic", "t"}).exit_code, 1);
  EXPECT_EQ(run_ok({"topic", "list"}), "there\n");
}

TEST_F(CliImportTest, ARowOverTheTopicsLimitIsNamedByLine) {
  const CommandResult result = import("lines", "a\n" + std::string(2 << 20, 'x') + "\n");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("line 2"));
  EXPECT_EQ(consume("%s "), "a ");
}

TEST_F(CliImportTest, JsonLinesByNameAndByPointer) {
  const std::string lines =
      "{\"ts\": 1930401000123456789, \"k\": \"one\", \"deep\": {\"k/e~y\": [0, \"in\"]}}\n"
      "\n"
      "  {\"deep\":{\"k/e~y\":[1,2]},\"k\":7,\"ts\":\"2031-03-04T14:30:00.5Z\"}\n"
      "{\"ts\":1930401000.25,\"k\":null}\n";
  import_ok("jsonl", lines, {"--key-column", "k", "--timestamp-column", "ts"});
  EXPECT_EQ(consume("%k|%K|%T "),
            "one|3|1930401000123456789 7|1|1930401000500000000 |-1|1930401000250000000 ");
  EXPECT_EQ(consume("%s\\n"),
            "{\"ts\": 1930401000123456789, \"k\": \"one\", \"deep\": {\"k/e~y\": [0, \"in\"]}}\n"
            "  {\"deep\":{\"k/e~y\":[1,2]},\"k\":7,\"ts\":\"2031-03-04T14:30:00.5Z\"}\n"
            "{\"ts\":1930401000.25,\"k\":null}\n");
  const std::string path = write_file("pointer.jsonl", lines).string();
  run_ok({"import", "jsonl", path, "--topic", "p", "--key-column", "/deep/k~1e~0y/1"});
  EXPECT_EQ(consume_all("p", {"--format", "%k|"}), "in|2||");
}

TEST_F(CliImportTest, OfJsonMembersWithOneNameTheLastCounts) {
  import_ok("jsonl",
            "{\"k\":\"a\",\"k\":\"b\"}\n{\"k\":\"a\",\"k\":null}\n{\"k\":\"a\",\"k\":[1]}\n"
            "{\"k\":null,\"k\":\"c\",\"kk\":null}\n",
            {"--key-column", "k"});
  EXPECT_EQ(consume("%K:%k "), "1:b -1: -1: 1:c ");
  const std::string path =
      write_file("deep.jsonl", "{\"k\":{\"x\":1},\"k\":5}\n{\"k\":5,\"k\":{\"x\":1}}\n").string();
  run_ok({"import", "jsonl", path, "--topic", "deep", "--key-column", "/k/x"});
  EXPECT_EQ(consume_all("deep", {"--format", "%K:%k "}), "-1: 1:1 ");
}

TEST_F(CliImportTest, AnInterruptEndsTheWaitForAPipesWriter) {
  const std::string path = (directory() / "pipe").string();
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  Command waiting(command_line({"import", "lines", path, "--topic", "t"}), environment());
  while (!sleeps(waiting.pid())) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  waiting.signal(SIGINT);
  const CommandResult result = waiting.wait();
  EXPECT_EQ(result.exit_code, 130);
  EXPECT_EQ(result.err, "");
}

TEST_F(CliImportTest, JsonLinesHaveNoKeysWhereNoneWereAskedFor) {
  import_ok("jsonl", "5\n\"abc\"\n{\"a\":1}\n{\"\":\"x\"}\n");
  import_ok("jsonl", "7\n{\"a\":1}\n", {"--key-column", "a"});
  EXPECT_EQ(consume("%K:%k=%s "), "-1:=5 -1:=\"abc\" -1:={\"a\":1} -1:={\"\":\"x\"} -1:=7 1:1={\"a\":1} ");
}

TEST_F(CliImportTest, LinesThatAreNoJsonAreNamed) {
  for (const char* line : {"{\"a\":1", "nonsense", "{\"a\":1} x", "{\"a\":\"\xff\"}"}) {
    SCOPED_TRACE(line);
    const CommandResult result = import("jsonl", "{}\n" + std::string(line) + "\n");
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_THAT(result.err, HasSubstr("line 2: "));
  }
  const CommandResult missing = import("jsonl", "{\"ts\":1}\n{}\n", {"--timestamp-column", "ts"});
  EXPECT_EQ(missing.exit_code, 1);
  EXPECT_THAT(missing.err, HasSubstr("line 2: no text or number at 'ts'"));
}

}  // namespace
}  // namespace ringtail::test

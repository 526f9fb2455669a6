// ringtail topic
#include <gmock/gmock.h>

#include <array>

#include "integration/cli.h"
#include "support/tracer.h"

namespace ringtail::test {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class CliTopicTest : public CliTest {};

TEST_F(CliTopicTest, CreateListDescribeAlterDelete) {
  EXPECT_EQ(run_ok({"topic", "create", "orders", "--partitions", "3"}),
            "created topic 'orders' with 3 partitions\n");
  run_ok({"topic", "create", "alerts", "--config", "retention.ms=1h", "--config", "retention.bytes=64MiB"});
  EXPECT_EQ(run_ok({"topic", "list"}), "alerts\norders\n");
  EXPECT_EQ(run_json({"topic", "list"}), (json{"alerts", "orders"}));

  const json alerts = run_json({"topic", "describe", "alerts"});
  EXPECT_EQ(alerts["configs"]["retention.ms"], (json{{"value", "3600000"}, {"default", false}}));
  EXPECT_EQ(alerts["configs"]["retention.bytes"]["value"], "67108864");
  EXPECT_EQ(alerts["configs"]["on.full"], (json{{"value", "block"}, {"default", true}}));

  EXPECT_EQ(
      run_ok({"topic", "alter", "alerts", "--config", "retention.ms=2h", "--config", "retention.bytes="}),
      "altered topic 'alerts'\n");
  const json altered = run_json({"topic", "describe", "alerts"});
  EXPECT_EQ(altered["configs"]["retention.ms"]["value"], "7200000");
  EXPECT_EQ(altered["configs"]["retention.bytes"], (json{{"value", "-1"}, {"default", true}}));

  EXPECT_EQ(run_ok({"topic", "delete", "alerts"}), "deleted topic 'alerts'\n");
  EXPECT_EQ(run_ok({"topic", "list"}), "orders\n");
}

TEST_F(CliTopicTest, DescribeNamesTheThreeEnds) {
  run_ok({"topic", "create", "orders", "--partitions", "2"});
  run_ok({"produce", "orders", "--partition", "1", "--durable"}, "one\ntwo\nthree\n");
  const std::string text = run_ok({"topic", "describe", "orders"});
  EXPECT_THAT(text, StartsWith("topic 'orders': 2 partitions\n"));
  for (const char* end : {"log start offset", "durable offset", "high watermark", "log end offset"}) {
    EXPECT_THAT(text, HasSubstr(end));
  }
  const json partition = run_json({"topic", "describe", "orders"})["partitions"][1];
  EXPECT_EQ(partition["log_start_offset"], 0);
  EXPECT_EQ(partition["durable_offset"], 3);
  EXPECT_EQ(partition["high_watermark"], 3);
  EXPECT_EQ(partition["log_end_offset"], 3);
  EXPECT_FALSE(partition.contains("failure"));
}

TEST_F(CliTopicTest, DescribeWithoutNameShowsEveryTopic) {
  run_ok({"topic", "create", "b"});
  run_ok({"topic", "create", "a"});
  const json topics = run_json({"topic", "describe"});
  ASSERT_EQ(topics.size(), 2u);
  EXPECT_EQ(topics[0]["topic"], "a");
  EXPECT_EQ(topics[1]["topic"], "b");
}

TEST_F(CliTopicTest, NamesThatAreNoneAreRefusedAndLeaveNothingBehind) {
  run_ok({"topic", "create", "there"});
  const std::vector<std::string> names = {
      "a/b", "..", ".", "../escape", "", "with space", "new\nline", "na\xc3\xafve", std::string(300, 'x')};
  for (const std::string& name : names) {
    SCOPED_TRACE(::testing::PrintToString(name));
    const CommandResult result = run({"topic", "create", name});
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_EQ(result.out, "");
    EXPECT_THAT(result.err, StartsWith("ringtail: "));
  }
  EXPECT_EQ(run_ok({"topic", "list"}), "there\n");
  EXPECT_FALSE(std::filesystem::exists(directory() / "escape"));
  EXPECT_FALSE(std::filesystem::exists(log_dir() / "escape"));
}

TEST_F(CliTopicTest, TheLongestNameWorks) {
  const std::string name(200, 'x');
  run_ok({"topic", "create", name});
  run_ok({"produce", name}, "value\n");
  EXPECT_EQ(consume_all(name), "value\n");
}

TEST_F(CliTopicTest, AnExistingNameIsRefused) {
  run_ok({"topic", "create", "orders"});
  const CommandResult result = run({"topic", "create", "orders"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("orders"));
}

TEST_F(CliTopicTest, MissingTopicsAreNamedWithTheRemedy) {
  run_ok({"topic", "create", "there"});
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"topic", "describe", "missing"},
                                             {"topic", "delete", "missing"},
                                             {"topic", "alter", "missing", "--config", "retention.ms=1h"},
                                             {"produce", "missing"},
                                             {"consume", "missing"},
                                             {"replay", "missing"}}) {
    const CommandResult result = run(arguments);
    EXPECT_EQ(result.exit_code, 1) << arguments.front();
    EXPECT_THAT(result.err, HasSubstr("missing"));
  }
}

TEST_F(CliTopicTest, ConfigurationsThatAreNoneAreRefused) {
  for (const char* config : {"retention.ms", "=5", "no.such=1", "retention.ms=soon", "segment.bytes=1",
                             "on.full=perhaps", "storage=tape", "on.full=overwrite"}) {
    SCOPED_TRACE(config);
    const CommandResult result = run({"topic", "create", "orders", "--config", config});
    EXPECT_EQ(result.exit_code, 2);
    EXPECT_THAT(result.err, StartsWith("ringtail: "));
  }
  run_ok({"topic", "create", "orders"});
  EXPECT_EQ(run({"topic", "alter", "orders", "--config", "storage=memory"}).exit_code, 2);
  EXPECT_EQ(run({"topic", "alter", "orders"}).exit_code, 2);
}

TEST_F(CliTopicTest, ADirectoryThatCannotBeMadeIsNamed) {
  const CommandResult result = run({"topic", "create", "orders", "--dir", "/proc/no-such-place"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("/proc/no-such-place"));
}

// --- Room ----------------------------------------------------------------------------------------

// With a /dev/shm of its own, of `megabytes`, and of the machine's memory what is said here.
class CliRoomTest : public CliTest {
 protected:
  void SetUp() override {
    if (run_command({"unshare", "-m", "true"}).exit_code != 0) GTEST_SKIP() << "no mount namespace here";
  }
  // `script` has the command as $ringtail.
  CommandResult run_in(int megabytes, const std::string& script, std::uint64_t available_kib = 0) const {
    std::string line =
        "mount -t tmpfs -o mode=1777,size=" + std::to_string(megabytes) + "m tmpfs /dev/shm && ";
    if (available_kib > 0) {
      const auto file = write_file(
          "meminfo", "MemTotal: 99999999 kB\nMemAvailable: " + std::to_string(available_kib) + " kB\n");
      line += "mount --bind '" + file.string() + "' /proc/meminfo && ";
    }
    line += "ringtail='" RINGTAIL_BINARY "'; " + script;
    return run_command({"unshare", "-m", "sh", "-c", line}, {}, environment());
  }
};

TEST_F(CliRoomTest, ATopicWhoseRingsHaveNoRoomInSharedMemoryIsRefusedAtOnceInOneLineWithTheSum) {
  const CommandResult result =
      run_in(16,
             "$ringtail topic create t --partitions 64 --config term.bytes=65536 --config ring.terms=16; "
             "code=$?; $ringtail topic list; exit $code");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(lines_of(result.err).size(), 1u) << result.err;
  EXPECT_THAT(result.err, HasSubstr("64 new partitions of 1.0 MiB each need 65 MiB in all; '/dev/shm' has "));
  EXPECT_THAT(result.err, HasSubstr("mount -o remount,size="));
}

TEST_F(CliRoomTest, ATopicWhoseRingsHaveNoRoomInTheMachinesMemoryIsRefusedThoughSharedMemoryIsLarge) {
  const CommandResult result = run_in(
      64, "$ringtail topic create t --partitions 8 --config term.bytes=65536 --config ring.terms=64", 20'000);
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("the machine 19 MiB available; free memory, or make fewer partitions"));
  EXPECT_EQ(lines_of(result.err).size(), 1u) << result.err;
}

TEST_F(CliRoomTest, RingsThatFindNoRoomWhenALogIsOpenedAreOneLineWithTheSum) {
  const CommandResult result = run_in(
      64,
      "$ringtail topic create t --partitions 64 --config term.bytes=65536 --config ring.terms=4 && "
      "mount -t tmpfs -o mode=1777,size=16m tmpfs /dev/shm && $ringtail topic list && $ringtail topic list");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(lines_of(result.err).size(), 2u) << "one each time: " << result.err;
  EXPECT_THAT(result.err,
              ::testing::ContainsRegex("no shared memory for the rings of [0-9]+ partitions, which need "
                                       "[0-9]+ MiB in all: '/dev/shm' has [0-9]+ MiB free"));
}

TEST_F(CliRoomTest, ATopicGetsNoPartitionsForWhoseRingsThereIsNoRoom) {
  const CommandResult result =
      run_in(16,
             "$ringtail topic create t --config term.bytes=65536 --config ring.terms=16 && "
             "$ringtail topic alter t --partitions 64; code=$?; $ringtail topic describe t; exit $code");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.out, HasSubstr("topic 't': 1 partition\n"));
  EXPECT_THAT(result.err, HasSubstr("63 new partitions"));
}

// --- What is surely a mistake --------------------------------------------------------------------

TEST_F(CliTopicTest, NoLogIsMadeAmongTheFilesOfSomebodyElse) {
  write_file("thesis.tex", "");
  const std::string here = directory().string();
  const CommandResult refused = run({"--dir", here, "topic", "create", "t"});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.err, HasSubstr("'" + here + "' is no log, and not empty (it has 'thesis.tex')"));
  EXPECT_THAT(refused.err, HasSubstr("--dir '" + here + "/ringtail'"));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory()), {}), 1);
  // An empty one is fine, and so is the top of a file system.
  std::filesystem::create_directories(log_dir() / "lost+found");
  run_ok({"topic", "create", "t", "--config", "term.bytes=65536", "--config", "ring.terms=4"});
}

// One comes to list the directory; meanwhile another makes the log.
TEST_F(CliTopicTest, TwoMayMakeTheSameLogAtOnce) {
  std::filesystem::create_directories(log_dir());
  const auto create = [](const char* name) -> std::vector<std::string> {
    return {"topic", "create", name, "--config", "term.bytes=65536", "--config", "ring.terms=4"};
  };
  std::vector<std::string> line = command_line(create("slow"));
  line.insert(line.begin(), {"sh", "-c", "read go && exec \"$@\"", "sh"});
  Command slow(line, environment());
  Tracer tracer(slow.pid(), std::array<long, 1>{SYS_getdents64});
  ASSERT_TRUE(tracer.is_tracing());
  slow.write("go\n");
  const auto lists_directory = [&](const Call& call) {
    return !call.ended &&
           tracer.path_of_descriptor(call.arguments[0]) == std::filesystem::canonical(log_dir()).string();
  };
  ASSERT_EQ(tracer.lead(1, lists_directory), 1u);
  run_ok(create("fast"));
  tracer.let_go();
  const CommandResult result = slow.wait();
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(run_ok({"topic", "list"}), "fast\nslow\n");
}

TEST_F(CliTopicTest, ATopicOfRingtailsOwnIsDeletedOnlyWhenThatIsSaid) {
  run_ok({"topic", "create", "t", "--config", "term.bytes=65536", "--config", "ring.terms=4"});
  run_ok({"produce", "t"}, "x\n");
  run_ok({"consume", "t", "--group", "g", "--from-beginning", "--exit-at-end"});
  const CommandResult refused = run({"topic", "delete", "__consumer_offsets"});
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("--internal"));
  EXPECT_THAT(run_ok({"topic", "list"}), HasSubstr("__consumer_offsets"));
  run_ok({"topic", "delete", "__consumer_offsets", "--internal"});
}

TEST_F(CliTopicTest, DescribeShowsWhatTheFilesTakeBesideWhatTheRecordsTake) {
  run_ok({"topic", "create", "t", "--config", "term.bytes=65536", "--config", "ring.terms=4", "--config",
          "segment.bytes=4MiB"});
  run_ok({"produce", "t", "--durable"}, "x\n");
  const json partition = run_json({"topic", "describe", "t"})["partitions"][0];
  EXPECT_LT(partition["disk_bytes"], 1 << 20);
  EXPECT_GE(partition["disk_allocated_bytes"], 4 << 20);
  EXPECT_THAT(run_ok({"topic", "describe", "t"}), HasSubstr("allocated"));
}

}  // namespace
}  // namespace ringtail::test

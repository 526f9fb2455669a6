// cleanup.policy=compact, as somebody at a terminal meets it.
#include <gmock/gmock.h>

#include <chrono>
#include <map>
#include <thread>

#include "integration/cli.h"

namespace ringtail::test {
namespace {

using ::testing::HasSubstr;

class CliCompactionTest : public CliTest {};

TEST_F(CliCompactionTest, KeepsTheLastValueOfEachKey) {
  run_ok({"topic", "create", "prices", "--config", "cleanup.policy=compact", "--config", "segment.bytes=1MiB",
          "--config", "segment.ms=100", "--config", "min.cleanable.dirty.ratio=0.01"});
  EXPECT_THAT(run_ok({"topic", "describe", "prices"}), HasSubstr("cleanup.policy"));
  // Somebody has to be there for the keeper to compact.
  Command follower(command_line({"consume", "prices"}), environment());
  std::map<std::string, std::string> latest;
  for (int round = 0; round < 3; ++round) {
    std::string lines;
    for (int i = 0; i < 2'000; ++i) {
      const std::string key = "k" + std::to_string(i % 50);
      latest[key] = std::to_string(round) + "." + std::to_string(i) + std::string(300, 'v');
      lines += key + ":" + latest[key] + "\n";
    }
    run_ok({"produce", "prices", "--key-separator", ":"}, lines);
  }
  // Its last segment closes by age, so that in the end one record is left of each key.
  std::vector<std::string> left;
  do {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    left = lines_of(consume_all("prices", {"--format", "%k:%s\\n"}));
  } while (left.size() > latest.size());
  std::map<std::string, std::string> consumed;
  for (const std::string& line : left)
    consumed[line.substr(0, line.find(':'))] = line.substr(line.find(':') + 1);
  EXPECT_EQ(consumed, latest);
  EXPECT_THAT(run_ok({"log", "verify"}), HasSubstr("verified 1 partition"));
  follower.signal(SIGTERM);
  follower.wait();
  EXPECT_THAT(run_ok({"log", "verify"}), HasSubstr("50 records"));
  EXPECT_EQ(lines_of(consume_all("prices")).size(), latest.size());
}

TEST_F(CliCompactionTest, ARecordWithoutKeyIsRefusedWithTheReason) {
  run_ok({"topic", "create", "t", "--config", "cleanup.policy=delete,compact"});
  EXPECT_EQ(run_json({"topic", "describe", "t"})["configs"]["cleanup.policy"]["value"], "compact,delete");
  const CommandResult refused = run({"produce", "t"}, "no key\n");
  EXPECT_NE(refused.exit_code, 0);
  EXPECT_THAT(refused.err, HasSubstr("needs a key"));
  EXPECT_EQ(consume_all("t"), "");
}

TEST_F(CliCompactionTest, AMemoryTopicCannotBeCompacted) {
  const CommandResult refused =
      run({"topic", "create", "t", "--config", "cleanup.policy=compact", "--config", "storage=memory"});
  EXPECT_NE(refused.exit_code, 0);
  EXPECT_THAT(refused.err, HasSubstr("storage=disk"));
}

}  // namespace
}  // namespace ringtail::test

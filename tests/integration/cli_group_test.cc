// Consumer groups as a user meets them: consume --group, group list, describe, reset-offsets, delete.
#include <gmock/gmock.h>
#include <signal.h>

#include <functional>
#include <set>
#include <thread>

#include "integration/cli.h"

namespace ringtail::test {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using ::testing::UnorderedElementsAreArray;

using Lines = std::vector<std::string>;

class CliGroupTest : public CliTest {
 protected:
  // A member that runs until it is signalled.
  std::vector<std::string> member(const std::string& group, const std::string& topic, Lines more = {}) const {
    more.insert(more.begin(), {"-v", "consume", topic, "--group", group, "--from-beginning"});
    return command_line(std::move(more));
  }

  json describe(const std::string& group) const { return run_json({"group", "describe", group}); }
  // Describes the group until it is as it should be.
  json wait_until(const std::string& group, const std::function<bool(const json&)>& is_so) const {
    for (;;) {
      const CommandResult result = run({"group", "describe", group, "--json"});
      json now = result.exit_code == 0 ? json::parse(result.out, nullptr, false) : json();
      if (now.is_object() && is_so(now)) return now;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }
  json wait_members(const std::string& group, std::size_t count) const {
    return wait_until(group, [count](const json& now) {
      return now["members"].size() == count && (now["state"] == "stable" || now["state"] == "empty");
    });
  }
  static std::uint64_t lag_of(const json& group) {
    std::uint64_t lag = 0;
    for (const json& partition : group["partitions"]) lag += partition["lag"].get<std::uint64_t>();
    return lag;
  }

  // Produces "<from>" to "<to - 1>", each as key and value.
  void produce_numbers(const std::string& topic, int from, int to) const {
    std::string input;
    for (int i = from; i < to; ++i) input += std::to_string(i) + ":" + std::to_string(i) + "\n";
    run_ok({"produce", topic, "--key-separator", ":"}, input);
  }
  static Lines numbers(int from, int to) {
    Lines values;
    for (int i = from; i < to; ++i) values.push_back(std::to_string(i));
    return values;
  }
  // Ends a member in good order and returns what it has printed.
  static Lines stop(Command& command) {
    command.signal(SIGINT);
    const CommandResult result = command.wait();
    EXPECT_EQ(result.exit_code, 130) << result.err;
    return lines_of(result.out);
  }
  // What a member prints that starts, reads to the end and leaves.
  Lines read_on(const std::string& group, const std::string& topic, Lines more = {}) const {
    more.insert(more.begin(), {"consume", topic, "--group", group, "--from-beginning", "--exit-at-end"});
    return lines_of(run_ok(std::move(more)));
  }
};

TEST_F(CliGroupTest, MembersShareATopicAndEveryGroupGetsAllOfIt) {
  run_ok({"topic", "create", "order-placed", "--partitions", "3"});
  run_ok({"produce", "order-placed", "--key-separator", ":"}, "1001:a\n1002:b\n1003:c\n");
  Command first(member("inventory-group", "order-placed"), environment());
  for (const char* value : {"a\n", "b\n", "c\n"}) ASSERT_TRUE(first.wait_for_output(value));
  ASSERT_TRUE(first.wait_for_error("assigned order-placed-0, order-placed-1, order-placed-2"));

  Command second(member("inventory-group", "order-placed"), environment());
  ASSERT_TRUE(first.wait_for_error("revoked order-placed-"));
  ASSERT_TRUE(second.wait_for_error("assigned order-placed-"));
  Command third(member("inventory-group", "order-placed"), environment());
  ASSERT_TRUE(third.wait_for_error("assigned order-placed-"));
  const json shared = wait_members("inventory-group", 3);
  for (const json& one : shared["members"]) EXPECT_EQ(one["partitions"].size(), 1u) << shared;

  Command fourth(member("inventory-group", "order-placed", {"--client-id", "spare"}), environment());
  const json crowded = wait_members("inventory-group", 4);
  for (const json& one : crowded["members"])
    EXPECT_EQ(one["partitions"].size(), one["client_id"] == "spare" ? 0u : 1u) << crowded;

  produce_numbers("order-placed", 0, 60);
  Lines expected = numbers(0, 60);
  for (const char* value : {"a", "b", "c"}) expected.emplace_back(value);
  EXPECT_THAT(read_on("notification-group", "order-placed"), UnorderedElementsAreArray(expected));

  // Each once: partitions go from member to member with their positions.
  Lines printed = stop(first);
  for (Command* other : {&second, &third}) {
    const Lines more = stop(*other);
    printed.insert(printed.end(), more.begin(), more.end());
  }
  ASSERT_TRUE(fourth.wait_for_error("assigned order-placed-"));  // it idled, and takes over
  wait_until("inventory-group", [](const json& now) { return lag_of(now) == 0; });
  const Lines rest = stop(fourth);
  printed.insert(printed.end(), rest.begin(), rest.end());
  EXPECT_THAT(printed, UnorderedElementsAreArray(expected));

  const json groups = run_json({"group", "list"});
  ASSERT_EQ(groups.size(), 2u);
  EXPECT_EQ(groups[0]["group"], "inventory-group");
  EXPECT_EQ(groups[0]["state"], "empty");
  EXPECT_EQ(groups[1]["group"], "notification-group");
  EXPECT_THAT(run_ok({"group", "list"}), AllOf(HasSubstr("generation"), HasSubstr("inventory-group")));
  EXPECT_THAT(run_ok({"group", "describe", "inventory-group"}),
              AllOf(HasSubstr("group 'inventory-group': empty"), HasSubstr("order-placed")));
}

TEST_F(CliGroupTest, LagGrowsWhileNobodyReadsAndFallsAgain) {
  run_ok({"topic", "create", "orders", "--partitions", "2"});
  produce_numbers("orders", 0, 3);
  EXPECT_EQ(read_on("billing", "orders").size(), 3u);
  EXPECT_EQ(lag_of(describe("billing")), 0u);
  produce_numbers("orders", 3, 10);
  EXPECT_EQ(lag_of(describe("billing")), 7u);
  produce_numbers("orders", 10, 15);
  EXPECT_EQ(lag_of(describe("billing")), 12u);
  Command again(member("billing", "orders"), environment());
  wait_until("billing", [](const json& now) { return lag_of(now) == 0; });
  EXPECT_THAT(stop(again), UnorderedElementsAreArray(numbers(3, 15)));
}

TEST_F(CliGroupTest, ALimitCommitsExactlyWhatWasPrinted) {
  run_ok({"topic", "create", "orders"});
  produce_numbers("orders", 0, 10);
  const auto next = [&](const char* count) {
    return lines_of(
        run_ok({"consume", "orders", "--group", "billing", "--from-beginning", "--max-messages", count}));
  };
  EXPECT_EQ(next("4"), numbers(0, 4));
  EXPECT_EQ(describe("billing")["partitions"][0]["committed_offset"], 4);
  EXPECT_EQ(next("1"), numbers(4, 5));
  EXPECT_EQ(next("5"), numbers(5, 10));
}

TEST_F(CliGroupTest, WhatCouldNotBeWrittenIsNotCommitted) {
  run_ok({"topic", "create", "orders"});
  produce_numbers("orders", 0, 10);
  const std::string line = std::string(RINGTAIL_BINARY) +
                           " consume orders --group billing --from-beginning --exit-at-end > /dev/full";
  const CommandResult full = run_command({"bash", "-c", line}, {}, environment());
  EXPECT_EQ(full.exit_code, 1);
  EXPECT_THAT(full.err, HasSubstr("cannot write to standard output"));
  EXPECT_EQ(read_on("billing", "orders"), numbers(0, 10));
}

TEST_F(CliGroupTest, PositionsSurviveTheEndOfAllProcessesAndOfTheSharedMemory) {
  run_ok({"topic", "create", "orders"});
  produce_numbers("orders", 0, 10);
  run_ok({"consume", "orders", "--group", "billing", "--from-beginning", "--max-messages", "4"});
  remove_shared_memory();
  EXPECT_EQ(describe("billing")["partitions"][0]["committed_offset"], 4);
  EXPECT_EQ(read_on("billing", "orders"), numbers(4, 10));
}

TEST_F(CliGroupTest, AnExpressionSubscribesToTopicsPresentAndToCome) {
  for (const char* topic : {"order-placed", "order-shipped", "payment"}) {
    run_ok({"topic", "create", topic});
    run_ok({"produce", topic}, std::string("in ") + topic + "\n");
  }
  Command reader(member("audit", "order.*", {"--include"}), environment());
  ASSERT_TRUE(reader.wait_for_output("in order-placed"));
  ASSERT_TRUE(reader.wait_for_output("in order-shipped"));
  run_ok({"topic", "create", "order-returned"});
  run_ok({"produce", "order-returned"}, "in order-returned\n");
  ASSERT_TRUE(reader.wait_for_output("in order-returned"));
  const json group = describe("audit");
  EXPECT_EQ(group["members"][0]["by_pattern"], true);
  EXPECT_EQ(group["members"][0]["subscription"], json({"order.*"}));
  EXPECT_THAT(stop(reader), Not(::testing::Contains("in payment")));
  EXPECT_THAT(run({"consume", "order(", "--include", "--group", "audit"}).err, HasSubstr("'order('"));
}

TEST_F(CliGroupTest, AGroupHasOneAssignor) {
  run_ok({"topic", "create", "orders"});
  Command reader(member("billing", "orders", {"--assignor", "range"}), environment());
  wait_members("billing", 1);
  const CommandResult other = run({"consume", "orders", "--group", "billing", "--assignor", "roundrobin"});
  EXPECT_EQ(other.exit_code, 1);
  EXPECT_THAT(other.err, AllOf(HasSubstr("'range'"), HasSubstr("'roundrobin'")));
  EXPECT_EQ(describe("billing")["assignor"], "range");
  const CommandResult unknown = run({"consume", "orders", "--group", "billing", "--assignor", "fair"});
  EXPECT_EQ(unknown.exit_code, 2);
  EXPECT_THAT(unknown.err, AllOf(HasSubstr("fair"), HasSubstr("cooperative-sticky")));
}

// --- Deaths and stops ----------------------------------------------------------------------------

TEST_F(CliGroupTest, OthersTakeOverFromAKilledMemberAndNothingUncommittedIsLost) {
  run_ok({"topic", "create", "orders", "--partitions", "4"});
  Command victim(member("billing", "orders"), environment());  // keeps the log, too
  wait_members("billing", 1);
  Command heir(member("billing", "orders"), environment());
  wait_members("billing", 2);
  produce_numbers("orders", 0, 100);
  ASSERT_TRUE(victim.wait_for_output("\n"));
  victim.signal(SIGKILL);
  const CommandResult killed = victim.wait();
  EXPECT_EQ(killed.exit_code, 137);
  const json after = wait_members("billing", 1);
  EXPECT_EQ(after["members"][0]["pid"], heir.pid());
  produce_numbers("orders", 100, 120);
  wait_until("billing", [](const json& now) { return lag_of(now) == 0; });
  std::set<std::string> seen;
  for (const Lines& lines : {lines_of(killed.out), stop(heir)}) seen.insert(lines.begin(), lines.end());
  EXPECT_THAT(seen, UnorderedElementsAreArray(numbers(0, 120)));
}

TEST_F(CliGroupTest, AMemberThatStoodStillLosesItsPartitionsAndJoinsAgain) {
  run_ok({"topic", "create", "orders", "--partitions", "2"});
  Command other(member("billing", "orders"), environment());  // keeps the log, too
  wait_members("billing", 1);
  for (const bool as_json : {false, true}) {
    Lines line = {"consume", "orders", "--group", "billing", "--max-poll-interval", "300ms"};
    if (as_json) line.emplace_back("--json");
    Command sleeper(command_line(std::move(line)), environment());
    wait_members("billing", 2);
    sleeper.signal(SIGSTOP);
    const json alone = wait_members("billing", 1);
    EXPECT_EQ(alone["members"][0]["pid"], other.pid());
    EXPECT_EQ(alone["members"][0]["partitions"].size(), 2u);
    sleeper.signal(SIGCONT);
    ASSERT_TRUE(sleeper.wait_for_error("lost orders-"));
    ASSERT_TRUE(sleeper.wait_for_error("joins again"));
    const json both = wait_members("billing", 2);
    for (const json& one : both["members"]) EXPECT_EQ(one["partitions"].size(), 1u);
    sleeper.signal(SIGINT);
    const CommandResult result = sleeper.wait();
    EXPECT_EQ(result.exit_code, 130);
    const Lines said = as_json ? notes_of(result.err) : lines_of(result.err);
    EXPECT_THAT(said, Contains(StartsWith(as_json ? "group 'billing': lost orders-"
                                                  : "ringtail: group 'billing': lost orders-")));
  }
  stop(other);
}

TEST_F(CliGroupTest, NewPartitionsOfATopicInUseAreFilledAndRead) {
  run_ok({"topic", "create", "orders"});
  Command producer(command_line({"produce", "orders"}), environment());
  Command first(member("billing", "orders"), environment());
  Command second(member("billing", "orders"), environment());
  wait_members("billing", 2);
  producer.write("before\n");
  wait_until("billing",
             [](const json& now) { return now["partitions"][0]["log_end_offset"] == 1 && lag_of(now) == 0; });
  EXPECT_EQ(run_ok({"topic", "alter", "orders", "--partitions", "2"}), "altered topic 'orders'\n");
  const json both = wait_until(
      "billing", [](const json& now) { return now["state"] == "stable" && now["partitions"].size() == 2; });
  for (const json& one : both["members"]) EXPECT_EQ(one["partitions"].size(), 1u) << both;
  std::string input;
  for (const std::string& number : numbers(0, 20)) input += number + "\n";
  producer.write(input);
  producer.close_input();
  EXPECT_EQ(producer.wait().exit_code, 0);
  const json read = wait_until("billing", [](const json& now) { return lag_of(now) == 0; });
  for (const json& partition : read["partitions"]) EXPECT_GE(partition["log_end_offset"], 9) << read;
  Lines all = stop(first);
  const Lines more = stop(second);
  all.insert(all.end(), more.begin(), more.end());
  Lines expected = numbers(0, 20);
  expected.emplace_back("before");
  EXPECT_THAT(all, UnorderedElementsAreArray(expected));

  const CommandResult fewer = run({"topic", "alter", "orders", "--partitions", "1"});
  EXPECT_EQ(fewer.exit_code, 2);
  EXPECT_THAT(fewer.err, HasSubstr("cannot be moved"));
  EXPECT_EQ(run({"topic", "alter", "orders"}).exit_code, 2);
  EXPECT_EQ(run({"topic", "alter", "nowhere", "--partitions", "2"}).exit_code, 1);
}

// --- Moving positions ----------------------------------------------------------------------------

TEST_F(CliGroupTest, PositionsAreMovedWhileNobodyReads) {
  run_ok({"topic", "create", "orders"});
  for (int i = 0; i < 4; ++i) produce_numbers("orders", i, i + 1);
  const std::string second = lines_of(consume_all("orders", {"--print-timestamp"})).at(2);
  const std::string time = second.substr(second.find(':') + 1, second.find('\t') - second.find(':') - 1);
  const auto reset = [&](Lines target) {
    target.insert(target.begin(), {"group", "reset-offsets", "billing", "--topic", "orders"});
    return target;
  };
  {
    Command living(member("billing", "orders"), environment());
    ASSERT_TRUE(living.wait_for_output("3\n"));
    const CommandResult refused = run(reset({"--to-time", time}));
    EXPECT_EQ(refused.exit_code, 1);
    EXPECT_THAT(refused.err, HasSubstr("group 'billing' has 1 member,"));
    EXPECT_EQ(run({"group", "delete", "billing"}).exit_code, 1);
    stop(living);
  }
  const auto committed = [&] { return describe("billing")["partitions"][0]["committed_offset"]; };
  EXPECT_EQ(committed(), 4);
  EXPECT_THAT(run_ok(reset({"--to-time", time, "--dry-run"})), HasSubstr("dry run: nothing was changed"));
  EXPECT_EQ(committed(), 4);
  const json changed = run_json(reset({"--to-time", time}));
  EXPECT_EQ(changed["offsets"], json::parse(R"([{"topic": "orders", "partition": 0, "from": 4, "to": 2}])"));
  EXPECT_EQ(read_on("billing", "orders"), numbers(2, 4));
  const std::vector<std::pair<Lines, int>> targets = {
      {{"--to-earliest"}, 0},      {{"--to-latest"}, 4},
      {{"--to-offset", "1"}, 1},   {{"--shift-by", "2"}, 3},
      {{"--shift-by", "-1"}, 2},   {{"--shift-by", "-9"}, 0},
      {{"--to-offset", "999"}, 4}, {{"--partition", "0", "--to-offset", "3"}, 3}};
  for (const auto& [target, offset] : targets) {
    run_ok(reset(target));
    EXPECT_EQ(committed(), offset) << ::testing::PrintToString(target);
  }
  EXPECT_EQ(read_on("billing", "orders"), numbers(3, 4));

  EXPECT_EQ(run_ok({"group", "delete", "billing"}), "deleted group 'billing'\n");
  EXPECT_EQ(run_ok({"group", "list"}), "no consumer groups\n");
  EXPECT_EQ(read_on("billing", "orders"), numbers(0, 4));
}

TEST_F(CliGroupTest, WhatIsNotThereIsNamedWithTheRemedy) {
  run_ok({"topic", "create", "orders"});
  read_on("billing", "orders");
  const auto expect_not_found = [&](Lines arguments, const std::string& text) {
    arguments.emplace_back("--json");
    const CommandResult result = run(arguments);
    EXPECT_EQ(result.exit_code, 1) << ::testing::PrintToString(arguments);
    const json error = json::parse(result.err, nullptr, false);
    ASSERT_FALSE(error.is_discarded()) << result.err;
    EXPECT_EQ(error["error"]["code"], "not_found");
    EXPECT_THAT(error["error"]["message"].get<std::string>(), HasSubstr(text));
  };
  for (const Lines& arguments : {Lines{"group", "describe", "none"}, Lines{"group", "delete", "none"},
                                 Lines{"group", "reset-offsets", "none", "--topic", "orders", "--to-latest"}})
    expect_not_found(arguments, "'none'; see `ringtail group list`");
  expect_not_found({"group", "reset-offsets", "billing", "--topic", "nowhere", "--to-latest"}, "'nowhere'");
  expect_not_found(
      {"group", "reset-offsets", "billing", "--topic", "orders", "--partition", "7", "--to-latest"},
      "no partition 7");
  expect_not_found({"consume", "nowhere", "--group", "billing"}, "'nowhere'");
}

TEST_F(CliGroupTest, WrongUsageExitsWith2) {
  run_ok({"topic", "create", "orders"});
  const Lines reset = {"group", "reset-offsets", "billing", "--topic", "orders"};
  const auto with = [](Lines line, const Lines& more) {
    line.insert(line.end(), more.begin(), more.end());
    return line;
  };
  for (const Lines& arguments :
       {Lines{"group"}, Lines{"group", "describe"}, Lines{"group", "delete"}, reset,
        with(reset, {"--to-earliest", "--to-latest"}), with(reset, {"--to-offset", "1", "--shift-by", "1"}),
        with(reset, {"--to-offset", "-1"}), with(reset, {"--to-time", "soon"}),
        Lines{"group", "reset-offsets", "billing", "--to-latest"},
        Lines{"consume", "orders", "--group", "billing", "--partition", "0"},
        Lines{"consume", "orders", "--group", "billing", "--offset", "0"},
        Lines{"consume", "orders", "--group", "billing", "--max-poll-interval", "long"},
        Lines{"consume", "orders", "--group", "billing", "--max-poll-interval", "0s"},
        Lines{"consume", "orders", "--max-poll-interval", "1s"}, Lines{"consume", "orders", "--include"}}) {
    const CommandResult result = run(arguments);
    EXPECT_EQ(result.exit_code, 2) << ::testing::PrintToString(arguments) << result.err;
    EXPECT_EQ(lines_of(result.err).size(), 1u) << result.err;
  }
}

}  // namespace
}  // namespace ringtail::test

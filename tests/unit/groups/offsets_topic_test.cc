// The records of positions: what is written comes back, and what anybody else may have written there does no
// harm.
#include "groups/offsets_topic.h"

#include <atomic>
#include <ctime>
#include <random>
#include <thread>

#include "unit/groups/groups_test_support.h"
#include "unit/groups/log_capture.h"

namespace ringtail::groups {
namespace {

using ::testing::HasSubstr;

Record record_of(const KeyValue& stored) {
  Record record;
  record.key = stored.key;
  if (stored.value) record.value = *stored.value;
  return record;
}
std::optional<StoredOffset> decode(const std::string& key, const std::optional<std::string>& value) {
  return decode_offset(record_of({key, value}));
}

// As if equal in every field.
void expect_equal(const std::optional<StoredOffset>& got, const StoredOffset& want) {
  ASSERT_TRUE(got);
  EXPECT_EQ(got->group, want.group);
  EXPECT_EQ(got->topic, want.topic);
  EXPECT_EQ(got->topic_id, want.topic_id);
  EXPECT_EQ(got->partition, want.partition);
  EXPECT_EQ(got->offset, want.offset);
  EXPECT_EQ(got->metadata, want.metadata);
  EXPECT_EQ(got->committed_ns, want.committed_ns);
}

StoredOffset sample() {
  return {.group = "billing",
          .topic = "orders",
          .topic_id = 0x0123456789abcdef,
          .partition = PartitionId(7),
          .offset = 42,
          .metadata = "as of noon",
          .committed_ns = 1'763'740'800'000'000'000};
}

constexpr const char* kKey = R"({"group":"billing","topic":"orders","partition":7})";
constexpr const char* kValue =
    R"({"offset":42,"topic_id":"0123456789abcdef","metadata":"as of noon","committed_ns":1763740800000000000})";

// --- One record ----------------------------------------------------------------------------------

TEST(OffsetRecord, ComesBackAsItWasWritten) {
  expect_equal(decode_offset(record_of(encode_offset(sample()))), sample());
  expect_equal(decode(kKey, kValue), sample());
}

TEST(OffsetRecord, OfTheLargestNumbersComesBack) {
  StoredOffset stored = sample();
  stored.offset = shm::kNoOffset - 1;
  stored.topic_id = ~std::uint64_t{0};
  stored.partition = PartitionId(shm::kMaxPartitions - 1);
  stored.committed_ns = std::numeric_limits<std::int64_t>::max();
  expect_equal(decode_offset(record_of(encode_offset(stored))), stored);
}

TEST(OffsetRecord, OfADeletedPositionIsATombstone) {
  StoredOffset stored = sample();
  stored.offset.reset();
  const KeyValue record = encode_offset(stored);
  EXPECT_FALSE(record.value);
  auto decoded = decode_offset(record_of(record));
  ASSERT_TRUE(decoded);
  EXPECT_FALSE(decoded->offset);
  EXPECT_EQ(decoded->group, "billing");
  EXPECT_EQ(decoded->topic, "orders");
  EXPECT_EQ(decoded->partition, PartitionId(7));
}

TEST(OffsetRecord, KeepsAnyBytesOfGroupsAndMetadata) {
  for (const char* odd :
       {"\xff", "\xfe", "\xc3", "\"quoted\\", "Z\xc3\xbcrich", "\xed\xa0\x80", "{}", "\x01\x1f\t\n"}) {
    StoredOffset stored = sample();
    stored.group = stored.metadata = odd;
    SCOPED_TRACE(::testing::PrintToString(odd));
    expect_equal(decode_offset(record_of(encode_offset(stored))), stored);
  }
}

TEST(OffsetRecord, KeepsRandomBytesOfAnyLength) {
  const auto seed = std::random_device{}();
  std::cout << "seed " << seed << '\n';
  std::mt19937 random(seed);
  const auto bytes = [&](std::size_t most) {
    std::string text(1 + random() % most, ' ');
    for (char& c : text) c = static_cast<char>(1 + random() % 255);
    return text;
  };
  for (int round = 0; round < 500; ++round) {
    StoredOffset stored = sample();
    stored.group = bytes(shm::kMaxGroupIdBytes);
    stored.metadata = bytes(shm::kMaxOffsetMetadataBytes);
    expect_equal(decode_offset(record_of(encode_offset(stored))), stored);
  }
}

// The key decides which record replaces which.
TEST(OffsetRecord, OfGroupsThatDifferInABadByteHasAnotherKey) {
  StoredOffset one = sample(), other = sample();
  one.group = "\xff";
  other.group = "\xfe";
  EXPECT_NE(encode_offset(one).key, encode_offset(other).key);
}

TEST(OffsetRecord, WithFieldsThatAreNotKnownIsReadWithoutThem) {
  expect_equal(decode(R"({"group":"billing","topic":"orders","partition":7,"more":[1,{"a":null}]})",
                      R"({"offset":42,"topic_id":"0123456789abcdef","metadata":"as of noon",)"
                      R"("committed_ns":1763740800000000000,"leader_epoch":3})"),
               sample());
}

TEST(OffsetRecord, WithAnotherKeyIsNone) {
  for (const char* key : {
           "",
           "{",
           "null",
           "7",
           "[]",
           R"("billing")",
           "\xff",
           "{}",
           R"({"topic":"orders","partition":7})",
           R"({"group":"billing","partition":7})",
           R"({"group":"billing","topic":"orders"})",
           R"({"group":7,"topic":"orders","partition":7})",
           R"({"group":null,"topic":"orders","partition":7})",
           R"({"group":"","topic":"orders","partition":7})",
           R"({"group":"a\u0000b","topic":"orders","partition":7})",
           R"({"group":{"hex":"f"},"topic":"orders","partition":7})",
           R"({"group":{"hex":"fg"},"topic":"orders","partition":7})",
           R"({"group":{"hex":7},"topic":"orders","partition":7})",
           R"({"group":"billing","topic":["orders"],"partition":7})",
           R"({"group":"billing","topic":"orders","partition":"7"})",
           R"({"group":"billing","topic":"orders","partition":-1})",
           R"({"group":"billing","topic":"orders","partition":7.5})",
           R"({"group":"billing","topic":"orders","partition":4096})",
           R"({"group":"billing","topic":"orders","partition":4294967303})",
           R"({"group":"billing","topic":"orders","partition":18446744073709551616})",
           R"({"group":"billing","topic":"orders","partition":1e300})",
           R"({"group":"billing","topic":"orders","partition":1e999})",
       }) {
    EXPECT_FALSE(decode(key, kValue)) << key;
    EXPECT_FALSE(decode(key, std::nullopt)) << key << " deleted";
  }
  EXPECT_FALSE(
      decode(R"({"group":")" + std::string(256, 'g') + R"(","topic":"orders","partition":7})", kValue));
}

TEST(OffsetRecord, WithAnotherValueIsNone) {
  const std::string text = kValue;
  const auto with = [&text](const std::string& field, const std::string& other) {
    std::string changed = text;
    const std::size_t at = changed.find(field);
    EXPECT_NE(at, std::string::npos) << field;
    return changed.replace(at, field.size(), other);
  };
  for (const std::string& value : {
           std::string(),
           std::string("null"),
           std::string("42"),
           std::string("[42]"),
           std::string("{}"),
           text.substr(0, text.size() - 1),
           text + text,
           with(R"("offset":42,)", ""),
           with("42", "-1"),
           with("42", "4.2"),
           with("42", "\"42\""),
           with("42", "true"),
           with("42", "1e3"),
           with("42", "18446744073709551615"),  // stands for "none"
           with("42", "18446744073709551616"),
           with("\"0123456789abcdef\"", "81985529216486895"),
           with("0123456789abcdef", "0123456789abcde"),
           with("0123456789abcdef", "0123456789ABCDEF"),
           with("0123456789abcdef", "0123456789abcdefg"),
           with("\"as of noon\"", "null"),
           with("\"as of noon\"", "[\"as of noon\"]"),
           with("as of noon", std::string(shm::kMaxOffsetMetadataBytes + 1, 'm')),
           with("1763740800000000000", "-1"),
           with("1763740800000000000", "9223372036854775808"),
           with("1763740800000000000", "\"noon\""),
       })
    EXPECT_FALSE(decode(kKey, value)) << value;
}

TEST(OffsetRecord, ChangedAnywhereIsReadOrRefusedButNeverHarmful) {
  const auto seed = std::random_device{}();
  std::cout << "seed " << seed << '\n';
  std::mt19937 random(seed);
  const KeyValue record = encode_offset(sample());
  int refused = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string key = record.key, value = *record.value;
    for (auto changes = 1 + random() % 3; changes > 0; --changes) {
      std::string& text = random() % 2 == 0 ? key : value;
      const std::size_t at = random() % text.size();
      if (random() % 3 == 0)
        text.erase(at, 1 + random() % 5);
      else
        text[at] = static_cast<char>(random() % 256);
      if (text.empty()) text = "{}";
    }
    const auto decoded = decode(key, value);
    refused += decoded ? 0 : 1;
    if (!decoded) continue;
    ASSERT_LE(decoded->group.size(), shm::kMaxGroupIdBytes);
    ASSERT_LT(decoded->partition.value(), shm::kMaxPartitions);
    ASSERT_NE(decoded->offset.value_or(0), shm::kNoOffset);
    ASSERT_GE(decoded->committed_ns, 0);
  }
  EXPECT_GT(refused, 0);
}

// --- The topic -----------------------------------------------------------------------------------

class OffsetsTopicTest : public GroupsTest {
 protected:
  // Puts records into the topic, as if the coordinator had written them.
  void append(std::span<const KeyValue> records) {
    stop_coordinator();
    InternalTopic topic(*attachment_, kOffsetsTopic);
    const Status appended = topic.append(records);
    ASSERT_TRUE(appended) << to_string(appended.error());
  }
  StoredOffset position(const std::string& group, const std::string& topic, std::uint64_t offset) const {
    StoredOffset stored = sample();
    stored.group = group;
    stored.topic = topic;
    stored.topic_id = topic_id(topic);
    stored.partition = PartitionId(0);
    stored.offset = offset;
    return stored;
  }
};

TEST_F(OffsetsTopicTest, WhatCannotBeReadIsPassedOverWithAWarning) {
  create("orders");
  const std::vector<KeyValue> records{
      encode_offset(position("billing", "orders", 5)),
      {"no json", "at all"},
      {R"({"group":7,"topic":"orders","partition":0})", kValue},
      {encode_offset(position("billing", "orders", 5)).key, R"({"offset":-9})"},
      {"", std::nullopt},
      encode_offset(position("shipping", "orders", 6))};
  append(records);
  stop();
  const LogCapture said;
  reboot();
  EXPECT_EQ(committed("billing", "orders"), "5 as of noon");
  EXPECT_EQ(committed("shipping", "orders"), "6 as of noon");
  stop();
  for (const char* offset : {"offset 1 is", "offset 2 is", "offset 3 is", "offset 4 is"})
    EXPECT_THAT(said.text(), HasSubstr(offset));
  EXPECT_THAT(said.text(), HasSubstr("__consumer_offsets"));
  EXPECT_THAT(said.text(), HasSubstr("passed over"));
}

// Left out, the group would begin anew somewhere else, and nobody would know.
TEST_F(OffsetsTopicTest, ARecordOfAnotherVersionIsRefusedUntilItIsReplaced) {
  create("orders");
  KeyValue other = encode_offset(position("billing", "orders", 5));
  other.value->insert(1, R"("version":2,)");
  append(std::vector{encode_offset(position("shipping", "orders", 6)), other});
  InternalTopic topic(*attachment_, kOffsetsTopic);
  std::vector<std::optional<std::uint64_t>> taken;
  const auto take = [&](const Record& record) { taken.push_back(decode_offset(record)->offset); };
  const Status refused = topic.restore(take);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::incompatible_layout);
  for (const char* part :
       {"__consumer_offsets", "offset 1 has version 2", "reads version 1", "use the release"})
    EXPECT_THAT(refused.error().message, HasSubstr(part));
  EXPECT_THAT(taken, ::testing::ElementsAre(6));

  taken.clear();
  ASSERT_TRUE(topic.append(std::vector{encode_offset(position("billing", "orders", 7))}));
  EXPECT_TRUE(topic.restore(take));
  EXPECT_THAT(taken, ::testing::ElementsAre(6, 7));
}

// No group is served then, rather than from the wrong place.
TEST_F(OffsetsTopicTest, TheCoordinatorIsNotReadyWhileARecordIsOfAnotherVersion) {
  create("orders");
  KeyValue other = encode_offset(position("billing", "orders", 5));
  other.value->insert(1, R"("version":2,)");
  append(std::vector{other});
  stop();
  attachment_.reset();
  std::filesystem::remove_all(shm_dir_);
  const LogCapture said;
  attach();
  start();
  wait([&] { return keeper_ && control().header().keeper_ready.load() != 0; });
  std::this_thread::sleep_for(milliseconds(200));  // it tries every 100
  EXPECT_EQ(table().ready.load(), 0u);
  stop();
  EXPECT_THAT(said.text(), HasSubstr("offset 0 has version 2"));
}

// Another process has written over where its ring's offsets begin.
TEST_F(OffsetsTopicTest, AnEndThatIsNeverReachedIsWaitedForAsleepUntilThatIsStopped) {
  create("orders");
  append(std::vector{encode_offset(position("billing", "orders", 5))});
  wait([&] { return ref(kOffsetsTopic).entry().durable_offset.load() == 1; });
  ring_of(kOffsetsTopic).line(0).base_offset.fetch_add(1);
  std::atomic<bool> stop{false};
  InternalTopic topic(*attachment_, kOffsetsTopic, &stop);
  int taken = 0;
  Status restored;
  timespec cpu{};
  std::thread restoring([&] {
    restored = topic.restore([&](const Record&) { ++taken; });
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
  });
  std::this_thread::sleep_for(milliseconds(500));
  stop.store(true);
  restoring.join();
  ASSERT_FALSE(restored);
  EXPECT_EQ(restored.error().code, Code::closed) << to_string(restored.error());
  EXPECT_EQ(taken, 1);
  EXPECT_LT(seconds(cpu.tv_sec) + std::chrono::nanoseconds(cpu.tv_nsec), milliseconds(250));
}

TEST_F(OffsetsTopicTest, PositionsInATopicThatIsGoneAreLeftOut) {
  create("orders");
  StoredOffset gone = position("billing", "orders", 5);
  gone.topic = "returns";
  gone.topic_id ^= 1;
  append(std::vector{encode_offset(gone)});
  reboot();
  EXPECT_FALSE(find_group(control(), "billing"));
}

TEST_F(OffsetsTopicTest, ATombstoneOfWhatWasNeverWrittenIsNothing) {
  create("orders");
  StoredOffset deleted = position("billing", "orders", 5);
  deleted.offset.reset();
  append(std::vector{encode_offset(deleted), encode_offset(position("shipping", "orders", 6))});
  reboot();
  EXPECT_FALSE(find_group(control(), "billing"));
  EXPECT_EQ(committed("shipping", "orders"), "6 as of noon");
}

TEST_F(OffsetsTopicTest, GroupsOfAnyBytesKeepTheirPositionsApart) {
  create("orders");
  const std::vector<std::string> groups{"\xff", "\xfe", "Z\xc3\xbcrich"};
  for (std::size_t i = 0; i < groups.size(); ++i) {
    auto seat = join(groups[i], "orders");
    settle({seat.get()}, {1});
    ASSERT_TRUE((*seat)->commit((*seat)->held().front(), Offset(i), "\xfd" + std::to_string(i)));
    ASSERT_TRUE((*seat)->persist(seconds(60)));
    ASSERT_TRUE((*seat)->leave());
  }
  reboot();
  for (std::size_t i = 0; i < groups.size(); ++i)
    EXPECT_EQ(committed(groups[i], "orders"), std::to_string(i) + " \xfd" + std::to_string(i));
}

TEST_F(OffsetsTopicTest, MoreGroupsThanThereIsRoomForAreLeftOutWithAnError) {
  create("orders");
  std::vector<KeyValue> records;
  for (std::uint32_t i = 0; i < shm::kMaxGroups + 2; ++i)
    records.push_back(encode_offset(position(fmt::format("group-{:03}", i), "orders", i)));
  append(records);
  stop();
  const LogCapture said;
  reboot();
  EXPECT_EQ(committed("group-000", "orders"), "0 as of noon");
  EXPECT_FALSE(find_group(control(), fmt::format("group-{:03}", shm::kMaxGroups)));
  stop();
  EXPECT_THAT(said.text(), HasSubstr("no room for its position in orders-0"));
}

}  // namespace
}  // namespace ringtail::groups

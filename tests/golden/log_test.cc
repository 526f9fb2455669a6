// A log directory of an earlier release, opened by this one: every record, position and setting of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/logger.h"
#include "contents.h"
#include "log/catalog.h"
#include "log/epoch_list.h"
#include "log/segment_files.h"
#include "log/verify.h"
#include "ringtail/ringtail.h"
#include "unit/base/scratch_dir.h"
#include "unit/shm/shm_test_support.h"

namespace ringtail::golden {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::SizeIs;

std::optional<std::string> owned(std::string_view text) {
  return text.data() == nullptr ? std::nullopt : std::optional<std::string>(text);
}

class GoldenLog : public ::testing::Test {
 protected:
  GoldenLog() {
    logger().set_level(spdlog::level::off);
    lay_out(dir(), committed(), "log/");
    fs::create_directories(dir() / "topics" / kTicks.name / "0");
    const fs::path folder = shm_.path() / ("ringtail-" + std::string(kLogIdText));
    fs::create_directory(folder);
    fs::permissions(folder, fs::perms::owner_all);
    testing::put_file(folder / "ticks-0.ring", file("shm/ticks-0.ring"));
  }

  fs::path dir() const { return scratch_ / "log"; }
  Log open() {
    auto log = Log::open({.dir = dir(), .shared_memory_dir = shm_.path()});
    EXPECT_TRUE(log) << to_string(log.error());
    return *log;
  }

  // All records of a topic from the beginning, so many of them.
  static std::vector<Expected> read(const Log& log, const Topic& topic, std::size_t count,
                                    IsolationLevel level = IsolationLevel::read_uncommitted) {
    auto consumer = Consumer::open(log, {.isolation_level = level});
    EXPECT_TRUE(consumer) << to_string(consumer.error());
    const Status assigned = consumer->assign(topic.name);
    EXPECT_TRUE(assigned) << to_string(assigned.error());
    std::vector<Expected> records;
    while (records.size() < count) {
      auto polled = consumer->poll(std::chrono::seconds(30));
      EXPECT_TRUE(polled) << to_string(polled.error());
      if (!polled || polled->empty()) break;
      for (const Record& record : *polled) {
        EXPECT_EQ(record.timestamp_ns, time_of(record.offset.value()));
        records.push_back({record.offset.value(), owned(record.key), owned(record.value)});
        for (const Header& header : record.headers)
          records.back().headers.emplace_back(header.key, owned(header.value));
      }
    }
    return records;
  }
  static void expect_equal(const std::vector<Expected>& got, const std::vector<Expected>& want) {
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t i = 0; i < want.size(); ++i) {
      SCOPED_TRACE(want[i].offset);
      EXPECT_EQ(got[i].offset, want[i].offset);
      EXPECT_EQ(got[i].key, want[i].key);
      EXPECT_EQ(got[i].value, want[i].value);
      EXPECT_EQ(got[i].headers, want[i].headers);
    }
  }

  testing::ScratchDir scratch_;
  shm::TempDir shm_;
};

TEST_F(GoldenLog, EveryRecordOfItsSegmentsIsRead) {
  const Log log = open();
  EXPECT_EQ(log.id(), kLogIdText);
  expect_equal(read(log, kOrders, orders_all().size()), orders_all());
}

// The decision of one transaction is in its topic, and another's is missing.
TEST_F(GoldenLog, ItsTransactionsAreEndedAsTheyWereDecided) {
  const Log log = open();
  expect_equal(read(log, kOrders, orders_committed().size(), IsolationLevel::read_committed),
               orders_committed());
}

TEST_F(GoldenLog, ItGoesOnBehindItsLastRecord) {
  const Log log = open();
  auto producer = Producer::open(log, {.topic = std::string(kOrders.name), .durable = true});
  ASSERT_TRUE(producer) << to_string(producer.error());
  const auto sent = producer->send({.value = "now", .timestamp_ns = kTime});
  ASSERT_TRUE(sent) << to_string(sent.error());
  EXPECT_GE(sent->offset, Offset(orders_tape().next_offset()));
  EXPECT_EQ(Admin(log).describe_topic(kOrders.name)->partitions[0].failure, std::nullopt);
}

TEST_F(GoldenLog, EveryRecordOfItsCompactedTopicIsRead) {
  expect_equal(read(open(), kPrices, prices_kept().size()), prices_kept());
}

// What all processes left behind when they died: flushed, the hole of the one that died in a claim filled.
TEST_F(GoldenLog, ItsRingIsFlushedAndGoesOn) {
  const Log log = open();
  expect_equal(read(log, kTicks, ticks().size()), ticks());
  auto producer = Producer::open(log, {.topic = std::string(kTicks.name), .durable = true});
  ASSERT_TRUE(producer) << to_string(producer.error());
  const auto sent = producer->send({.value = "now"});
  ASSERT_TRUE(sent) << to_string(sent.error());
  EXPECT_EQ(sent->offset, Offset(6));
  EXPECT_GE(Admin(log).describe_topic(kTicks.name)->partitions[0].durable_offset, Offset(7));
}

TEST_F(GoldenLog, PositionsOfItsGroupsAreRestored) {
  const Log log = open();
  const auto position = [&](std::string_view group) {
    const auto described = Admin(log).describe_group(group);
    EXPECT_TRUE(described) << to_string(described.error());
    EXPECT_THAT(described->partitions, SizeIs(1));
    const GroupPartitionDescription& at = described->partitions.front();
    EXPECT_EQ(at.partition, (TopicPartition{std::string(kOrders.name), PartitionId(0)}));
    return std::to_string(at.committed.value_or(Offset(0)).value()) + " " + at.metadata;
  };
  EXPECT_EQ(position("billing"), "9 ")
      << "what a transaction decided is newer than what was committed before";
  EXPECT_EQ(position("shipping"), "11 as of noon");
  EXPECT_EQ(position("\xff"), "1 \xfe");
  EXPECT_EQ(Admin(log).describe_group("gone").error().code, Code::not_found);
}

TEST_F(GoldenLog, VerifiesWithoutAFault) {
  for (const Topic& topic : {kOrders, kPrices, kOffsets, kTransactions}) {
    const auto verified =
        log::verify_partition(dir() / "topics" / topic.name / "0", {.identity = topic.identity()});
    ASSERT_TRUE(verified) << to_string(verified.error());
    for (const log::VerifyFault& fault : verified->faults)
      ADD_FAILURE() << fault.path << ": " << fault.message;
  }
}

TEST_F(GoldenLog, EveryFieldOfItsCatalogIsRead) {
  const auto catalog = log::Catalog::open(dir(), false);
  ASSERT_TRUE(catalog) << to_string(catalog.error());
  EXPECT_EQ(catalog->identity().id, kLogIdText);
  EXPECT_EQ(catalog->identity().created_ns, kCreated);
  EXPECT_EQ(catalog->identity().offsets_retention_ms, 10'000LL * 7 * 86'400'000);
  const log::TopicEntry orders{.name = "orders",
                               .topic_id = kOrders.id,
                               .partitions = 1,
                               .replication_factor = 0,
                               .overrides = {{"retention.ms", "-1"}, {"term.bytes", "65536"}},
                               .created_ns = kCreated};
  EXPECT_EQ(catalog->load_topic("orders"), orders);
  const auto topics = catalog->list_topics();
  ASSERT_TRUE(topics) << to_string(topics.error());
  EXPECT_THAT(*topics, SizeIs(5));
}

TEST_F(GoldenLog, OfAReplicaEveryFieldIsRead) {
  const fs::path replica = scratch_ / "replica";
  lay_out(replica, committed(), "replica/");
  fs::copy(dir() / "ringtail.toml", replica / "ringtail.toml");
  const auto catalog = log::Catalog::open(replica, false);
  ASSERT_TRUE(catalog) << to_string(catalog.error());
  const auto shipped = catalog->load_topic(kShipped.name);
  ASSERT_TRUE(shipped) << to_string(shipped.error());
  EXPECT_EQ(shipped->replication_factor, 3u);
  EXPECT_EQ(shipped->topic_id, kShipped.id);
  EXPECT_EQ(shipped->overrides, (TopicConfigs{{"min.insync.replicas", "2"}}));
  const auto epochs = log::EpochList::load(catalog->partition_dir(kShipped.name, PartitionId(0)));
  ASSERT_TRUE(epochs) << to_string(epochs.error());
  EXPECT_THAT(
      epochs->starts(),
      ElementsAre(log::EpochStart{LeaderEpoch(1), {}},
                  log::EpochStart{LeaderEpoch(4), {Position(640), Offset(10)}},
                  log::EpochStart{LeaderEpoch(5), {Position(1'000'000'000'064), Offset(1'000'000'000)}}));
}

// --- Single files --------------------------------------------------------------------------------

class GoldenSegments : public GoldenLog {
 protected:
  static format::FileHeader header(std::string_view name, format::FileKind kind) {
    const auto read = format::decode_header(std::as_bytes(std::span(file(name))), kind, name);
    EXPECT_TRUE(read) << to_string(read.error());
    return read.value_or(format::FileHeader{});
  }
};

TEST_F(GoldenSegments, EveryFieldOfTheirHeadersIsRead) {
  const std::string first = "log/topics/orders/0/00000000000000000000";
  const std::string second = "log/topics/orders/0/00000000000000000011";
  for (const format::FileKind kind :
       {format::FileKind::log, format::FileKind::index, format::FileKind::time_index}) {
    const std::string suffix = format::segment_file_name(kind, Offset(0)).substr(20);
    for (const bool is_second : {false, true}) {
      const format::FileHeader h = header((is_second ? second : first) + suffix, kind);
      EXPECT_EQ(format::identity_of(h), kOrders.identity());
      EXPECT_EQ(h.layout_version, 1u);
      EXPECT_EQ(h.header_bytes, 96u);
      EXPECT_EQ(h.compactions, 0u);
      EXPECT_EQ(h.base_offset, is_second ? 11u : 0u);
      EXPECT_EQ(h.base_position, is_second ? kSegmentBytes : 0u);
      EXPECT_EQ(h.created_ns, kCreated);
      const bool is_mark = kind == format::FileKind::index;
      EXPECT_EQ(h.synced_position, !is_mark ? 0u : is_second ? orders_tape().bytes().size() : kSegmentBytes);
      EXPECT_EQ(h.synced_offset, !is_mark ? 0u : is_second ? 17u : 11u);
      EXPECT_EQ(h.frame_words, 0u);
    }
  }
}

TEST_F(GoldenSegments, EveryFieldOfACompactedOnesHeaderIsRead) {
  const format::FileHeader h = header("log/topics/prices/0/00000000000000000000.log", format::FileKind::log);
  EXPECT_TRUE(format::is_compacted(h));
  EXPECT_EQ(h.compactions, 1u);
  EXPECT_EQ(format::segment_end(h), Position(2 * kSegmentBytes));
  EXPECT_EQ(h.synced_offset, 7u);
  EXPECT_EQ(file("log/topics/prices/0/00000000000000000000.log").size(),
            format::kBlockBytes + std::uint64_t{h.frame_words} * 8);
  EXPECT_GT(h.created_ns, kCreated) << "since when its tombstones are alone";
  EXPECT_EQ(header("log/topics/prices/0/00000000000000000000.index", format::FileKind::index).compactions,
            1u);
}

TEST_F(GoldenSegments, EveryEntryOfTheirIndexesIsRead) {
  const auto backend = io::make_backend(IoBackend::pwrite, 4);
  const fs::path path = dir() / "topics/orders/0/00000000000000000000.log";
  const format::FileHeader h = header("log/topics/orders/0/00000000000000000000.log", format::FileKind::log);
  const auto index = log::read_index(**backend, path, h);
  ASSERT_TRUE(index) << to_string(index.error());
  EXPECT_EQ(index->entries.back(), (format::IndexEntry{11, kSegmentBytes}));
  const auto times = log::read_time_index(**backend, path, h);
  ASSERT_TRUE(times) << to_string(times.error());
  EXPECT_EQ(times->back(), (format::TimeIndexEntry{time_of(10), 11}));
}

// --- What is written today -----------------------------------------------------------------------

std::set<std::string> fields_of(std::string_view text) {
  std::set<std::string> names;
  const auto json = nlohmann::json::parse(text, nullptr, false).flatten();
  for (const auto& [name, value] : json.items()) names.insert(name);
  return names;
}

// The golden decisions were written out by hand.
TEST_F(GoldenLog, ADurableTransactionOfTodayWritesTheSameFields) {
  fs::remove_all(dir() / "topics" / kTransactions.name);
  const Log log = open();
  auto producer = Producer::open(log, {.topic = "orders", .durable = true, .transactional_id = "billing-1"});
  ASSERT_TRUE(producer) << to_string(producer.error());
  auto member = Consumer::open(log, {.group_id = "billing", .enable_auto_commit = false});
  ASSERT_TRUE(member && member->subscribe("orders"));
  while (member->assignment().empty()) ASSERT_TRUE(member->poll(std::chrono::milliseconds(100)));
  const OffsetCommit read_to[] = {{{"orders", PartitionId(0)}, Offset(3)}};
  ASSERT_TRUE(producer->begin());
  ASSERT_TRUE(producer->send({.value = "now", .timestamp_ns = kTime}));
  ASSERT_TRUE(producer->add_offsets(read_to, member->group_metadata()));
  ASSERT_TRUE(producer->commit());

  auto consumer = Consumer::open(log);
  ASSERT_TRUE(consumer && consumer->assign(kTransactions.name));
  std::vector<std::pair<std::set<std::string>, std::set<std::string>>> written;
  while (written.size() < 2) {
    const auto polled = consumer->poll(std::chrono::seconds(30));
    ASSERT_TRUE(polled && !polled->empty());
    for (const Record& record : *polled) written.emplace_back(fields_of(record.key), fields_of(record.value));
  }
  const std::string& segment = file("log/topics/__transaction_state/0/00000000000000000000.log");
  std::vector<std::pair<std::set<std::string>, std::set<std::string>>> kept;
  for (std::size_t at = format::kBlockBytes; kept.size() < 2;) {
    const Record record = format::decode_record(segment.data() + at, nullptr);
    kept.emplace_back(fields_of(record.key), fields_of(record.value));
    at += format::align_frame(static_cast<std::uint32_t>(format::load_header(segment.data() + at).length));
  }
  EXPECT_EQ(written[0], kept[0]) << "that a partition has transactions";
  EXPECT_EQ(written[1], kept[1]) << "a decision";
}

}  // namespace
}  // namespace ringtail::golden

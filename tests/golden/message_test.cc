// Frames, messages between hosts and records of a cluster, as an earlier release wrote them.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "format/frame.h"
#include "golden.h"
#include "messages.h"
#include "replication/local_coordinator.h"
#include "unit/base/scratch_dir.h"

namespace ringtail::golden {
namespace {

using namespace replication;

std::vector<std::byte> bytes_of(const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}
std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(GoldenFrame, OfEveryKindIsReadWithAllItsFields) {
  std::set<std::string> kept;
  for (const auto& [name, bytes] : committed())
    if (name.starts_with("frames/")) kept.insert(name.substr(7));
  for (const KindOfFrame& kind : kinds_of_frames()) {
    SCOPED_TRACE(kind.name);
    const std::vector<std::byte> frame = bytes_of(file("frames/" + kind.name));
    EXPECT_EQ(format::check_frame(frame, 0), format::FrameFault::none);
    const std::string text = format::describe_frame(frame);
    EXPECT_EQ(text.substr(0, text.find(" crc=")), kind.description);
    kept.erase(kind.name);
  }
  EXPECT_TRUE(kept.empty()) << *kept.begin() << " is read by nobody";
}

TEST(GoldenFrame, ARecordsPartsAreThoseThatWereWritten) {
  const std::string& bytes = file("frames/data");
  const Record record = format::decode_record(bytes.data(), nullptr);
  EXPECT_EQ(record.key, "alice");
  EXPECT_EQ(record.value, "buy 10");
  EXPECT_EQ(record.timestamp_ns, kTime);
  const std::vector<Header> headers(record.headers.begin(), record.headers.end());
  ASSERT_EQ(headers.size(), 2u);
  EXPECT_EQ(headers[0].key, "src");
  EXPECT_EQ(headers[0].value, "nyse");
  EXPECT_EQ(headers[1].key, "null");
  EXPECT_EQ(headers[1].value.data(), nullptr);
  EXPECT_EQ(format::extension_of(file("frames/transactional").data()), (format::Extension{7, 1, 5, 9}));
  EXPECT_EQ(format::marker_kind(file("frames/commit").data()), format::MarkerKind::commit);
}

TEST(GoldenWire, EveryMessageIsReadWithAllItsFields) {
  for (const WireMessage& sent : wire_messages()) {
    SCOPED_TRACE(sent.name);
    const std::vector<std::byte> bytes = bytes_of(file("wire/" + sent.name));
    std::vector<std::byte> unpacked;
    const auto parsed = parse_message(bytes, unpacked);
    ASSERT_TRUE(parsed) << to_string(parsed.error());
    EXPECT_EQ(parsed->bytes, bytes.size());
    const MessageHeader& got = parsed->message.header;
    EXPECT_EQ(got.version, 2u);
    EXPECT_EQ(got.type, sent.header.type);
    EXPECT_EQ(got.compression, sent.compression);
    EXPECT_EQ(got.raw_bytes, sent.body.size());
    EXPECT_EQ(got.topic_id, sent.header.topic_id);
    EXPECT_EQ(got.partition, sent.header.partition);
    EXPECT_EQ(got.leader_epoch, sent.header.leader_epoch);
    EXPECT_EQ(got.position, sent.header.position);
    EXPECT_EQ(got.offset, sent.header.offset);
    EXPECT_EQ(got.mark_position, sent.header.mark_position);
    EXPECT_EQ(got.mark_offset, sent.header.mark_offset);
    EXPECT_EQ(got.flags, sent.header.flags);
    EXPECT_EQ(text_of(parsed->message.body), sent.body);
  }
}

TEST(GoldenWire, TheirListsOfEpochsAreRead) {
  for (const char* name : {"wire/follow", "wire/start"}) {
    const std::vector<std::byte> bytes = bytes_of(file(name));
    std::vector<std::byte> unpacked;
    const auto list = decode_epochs(parse_message(bytes, unpacked)->message.body);
    ASSERT_TRUE(list) << to_string(list.error());
    ASSERT_EQ(list->starts().size(), 2u);
    EXPECT_EQ(list->starts()[0], (log::EpochStart{LeaderEpoch(3), {}}));
    EXPECT_EQ(list->starts()[1], (log::EpochStart{LeaderEpoch(7), {Position(640), Offset(10)}}));
  }
}

TEST(GoldenCluster, EveryRecordIsReadWithAllItsFields) {
  EXPECT_EQ(decode_node("nodes/7", file("cluster/nodes/7.json")), node());
  EXPECT_EQ(decode_live("live/7", file("cluster/live/7.json")), kIncarnation);
  EXPECT_EQ(decode_topic("topics/orders", file("cluster/topics/orders.json")), topic());
  EXPECT_EQ(decode_partition("partitions/orders/2", file("cluster/partitions/orders/2.json")), partition());
  EXPECT_EQ(decode_settings("settings", file("cluster/settings.json")), kSettings);
  EXPECT_EQ(decode_identity("identity", file("cluster/identity.json")), kLogIdText);
}

TEST(GoldenCluster, TheFileOfAHostThatIsAloneIsRead) {
  const testing::ScratchDir dir;
  testing::put_file(dir / "cluster.json", file("cluster.json"));
  const auto coordinator = LocalCoordinator::open(dir.path());
  ASSERT_TRUE(coordinator) << to_string(coordinator.error());
  const auto state = (*coordinator)->state();
  EXPECT_EQ(state->cluster_id, kLogIdText);
  EXPECT_EQ(state->revision, 3);
  EXPECT_EQ(state->nodes.at(NodeId(7)), (Stored<NodeRecord>{node(), 2}));
  EXPECT_EQ(state->topics.at("orders"), (Stored<TopicRecord>{topic(), 2}));
  EXPECT_EQ(state->settings, (Stored<ClusterSettings>{kSettings, 2}));
  EXPECT_EQ(state->partitions.at({"orders", PartitionId(2)}), (Stored<PartitionRecord>{partition(), 3}));
  EXPECT_TRUE(state->malformed.empty());
}

}  // namespace
}  // namespace ringtail::golden

#include <gtest/gtest.h>

#include <cstring>

#include "golden.h"
#include "messages.h"
#include "replication/local_coordinator.h"
#include "tape.h"
#include "unit/base/scratch_dir.h"

namespace ringtail::golden {

using replication::Compression;
using replication::MessageHeader;
using replication::MessageType;
using replication::NodeId;

namespace {

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

log::EpochList epochs() {
  log::EpochList list;
  list.begin(LeaderEpoch(3), {});
  list.begin(LeaderEpoch(7), {Position(640), Offset(10)});
  return list;
}

// Of a partition, with something in every field.
MessageHeader about(MessageType type, std::uint8_t flags = 0) {
  return {.type = type,
          .topic_id = kOrders.id,
          .partition = 3,
          .leader_epoch = 9,
          .position = 4096,
          .offset = 12,
          .mark_position = 2048,
          .mark_offset = 6,
          .flags = flags};
}

}  // namespace

std::vector<WireMessage> wire_messages() {
  const std::string hello = R"({"cluster":"trading","incarnation":"fffffffffffffffe","node":7})";
  const std::string list = text_of(replication::encode_epochs(epochs()));
  Tape tape;
  for (int i = 0; i < 8; ++i)
    tape.record({.key = "alice", .value = "buy 10, and the same once more, and again"});
  const std::string frames = text_of(tape.bytes());
  return {{"hello", {.type = MessageType::hello}, hello},
          {"follow", about(MessageType::follow, replication::kCheckAll), list},
          {"start", about(MessageType::start, replication::kRestart), list},
          {"frames", about(MessageType::frames), frames},
          {"frames-unchecked", about(MessageType::frames, replication::kUnchecked), frames},
          {"frames-lz4", about(MessageType::frames), frames, Compression::lz4},
          {"frames-zstd", about(MessageType::frames), frames, Compression::zstd},
          {"ack", about(MessageType::ack), ""},
          {"refuse", about(MessageType::refuse, replication::kAskAgain), "not the leader"},
          {"ping", {.type = MessageType::ping}, ""}};
}

std::vector<KindOfFrame> kinds_of_frames() {
  const std::array headers{Header{"src", "nyse"}, Header{"null", {}}};
  const Tape::Body keyed{.key = "alice", .value = "buy 10", .headers = headers};
  std::vector<KindOfFrame> kinds;
  const auto add = [&](std::string name, std::string description, auto make) {
    Tape tape;
    make(tape);
    kinds.push_back({std::move(name), {tape.bytes().begin(), tape.bytes().end()}, std::move(description)});
  };
  const std::string time = " timestamp=2025-07-17T08:05:03.360842448Z";
  add("data", "offset=0 data length=74 key=5 value=6 headers=2" + time, [&](Tape& t) { t.record(keyed); });
  add("tombstone", "offset=0 data length=35 key=3 value=null headers=0" + time,
      [](Tape& t) { t.record({.key = "bob"}); });
  add("pad", "offset=0 pad length=72 records=0", [](Tape& t) { t.pad(72); });
  add("aborted", "offset=0 aborted length=64 records=3", [](Tape& t) { t.aborted(64, 3); });
  add("compressed", "offset=0 compressed length=74 key=5 value=6 headers=2" + time,
      [&](Tape& t) { t.record(keyed, format::FrameType::compressed); });
  add("idempotent",
      "offset=0 data length=58 key=none value=2 headers=0" + time + " producer=7 epoch=1 sequence=9",
      [](Tape& t) { t.record({.value = "v1", .of = {7, 1, 0, 9}}); });
  add("transactional",
      "offset=0 data length=59 key=1 value=2 headers=0" + time +
          " producer=7 epoch=1 transaction=5 sequence=9",
      [](Tape& t) { t.record({.key = "k", .value = "v1", .of = {7, 1, 5, 9}}); });
  add("commit", "offset=0 control length=64 marker=commit producer=7 epoch=1 transaction=5" + time,
      [](Tape& t) { t.marker(format::MarkerKind::commit, {7, 1, 5, 0}); });
  add("abort", "offset=0 control length=64 marker=abort producer=7 epoch=1 transaction=5" + time,
      [](Tape& t) { t.marker(format::MarkerKind::abort, {7, 1, 5, 0}); });
  add("abort-all", "offset=0 control length=64 marker=abort_all producer=any" + time,
      [](Tape& t) { t.marker(format::MarkerKind::abort_all, {format::kEveryProducer, 0, 0, 0}); });
  return kinds;
}

void write_messages(Tree& tree) {
  for (const KindOfFrame& kind : kinds_of_frames()) tree["frames/" + kind.name] = text_of(kind.bytes);
  for (const WireMessage& message : wire_messages()) {
    const auto body = std::as_bytes(std::span(message.body));
    std::vector<std::byte> bytes;
    if ((message.header.flags & replication::kUnchecked) != 0) {
      bytes = replication::encode_unchecked(message.header, body.size());
      bytes.insert(bytes.end(), body.begin(), body.end());
    } else {
      replication::append_message(bytes, message.header, body, message.compression);
    }
    tree["wire/" + message.name] = text_of(bytes);
  }
}

// --- Records of a cluster ------------------------------------------------------------------------

replication::NodeRecord node() {
  return {.id = NodeId(7),
          .incarnation = kIncarnation,
          .started_ns = kCreated,
          .replication = {"10.0.0.7", 9290},
          .http = {"10.0.0.7", 9464},
          .rack = "b",
          .log_id = std::string(kLogIdText),
          .life = "0f3a",
          .draining = true,
          .release = "0.1.0",
          .unreached = {{NodeId(3), "Connection refused"}}};
}

replication::TopicRecord topic() {
  return {.name = "orders",
          .topic_id = kOrders.id,
          .partitions = 3,
          .replication_factor = 2,
          .configs = {{"retention.ms", "-1"}, {"replica.ack", "memory"}},
          .created_ns = kCreated};
}

replication::PartitionRecord partition() {
  return {.topic = "orders",
          .topic_id = kOrders.id,
          .partition = PartitionId(2),
          .replicas = {NodeId(7), NodeId(3), NodeId(4)},
          .isr = {{NodeId(7), "0f3a"}, {NodeId(3), "77b1"}},
          .leader = NodeId(7),
          .leader_incarnation = kIncarnation,
          .leader_epoch = LeaderEpoch(4),
          .partition_epoch = 9,
          .unclean = true,
          .adding = {NodeId(4)},
          .removing = {NodeId(3)},
          .wanted_leader = NodeId(3)};
}

void write_cluster(Tree& tree) {
  tree["cluster/nodes/7.json"] = replication::encode(node());
  tree["cluster/live/7.json"] = replication::encode_live(kIncarnation);
  tree["cluster/topics/orders.json"] = replication::encode(topic());
  tree["cluster/partitions/orders/2.json"] = replication::encode(partition());
  tree["cluster/settings.json"] = replication::encode(kSettings);
  tree["cluster/identity.json"] = replication::encode_identity(kLogIdText, kCreated);

  const testing::ScratchDir scratch;
  testing::put_file(scratch / "cluster.json", R"({"records":{"identity":{"revision":1,"value":)" +
                                                  tree["cluster/identity.json"] +
                                                  R"(}},"revision":1,"version":1})");
  const auto coordinator = replication::LocalCoordinator::open(scratch.path());
  ASSERT_TRUE(coordinator) << to_string(coordinator.error());
  ASSERT_EQ((*coordinator)->commit(std::vector<replication::Change>{{node()}, {topic()}, {kSettings}}), true);
  ASSERT_EQ((*coordinator)->commit(std::vector<replication::Change>{{partition()}}), true);
  tree["cluster.json"] = testing::get_file(scratch / "cluster.json");
}

}  // namespace ringtail::golden

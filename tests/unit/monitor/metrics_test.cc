// A snapshot as Prometheus' text, and as JSON.
#include "monitor/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/utf8.h"
#include "monitor/state_json.h"
#include "unit/monitor/monitor_test_support.h"

namespace ringtail::monitor {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Key;
using ::testing::Not;
using ::testing::Pair;

PartitionSnapshot partition(std::uint32_t number, std::uint64_t records) {
  PartitionSnapshot p;
  p.is.partition = PartitionId(number);
  p.is.log_end_offset = Offset(records);
  p.is.log_end_position = Position(records * 40);
  p.is.durable_offset = Offset(records - records / 4);
  p.is.durable_position = Position((records - records / 4) * 40);
  p.is.ring_bytes = 16000;
  p.is.term_bytes = 4000;
  p.records_total = records;
  p.bytes_total = records * 40;
  p.repaired_records = 3;
  p.retired_rings = 1;
  return p;
}

Snapshot sample() {
  Snapshot snapshot;
  snapshot.dir = "/srv/log";
  TopicSnapshot orders;
  orders.name = "or\"ders";
  orders.partitions = {partition(0, 1000), partition(1, 12'345'678'901)};
  TopicSnapshot quotes;
  quotes.name = "quotes";
  quotes.on_disk = false;
  quotes.partitions = {partition(0, 8)};
  snapshot.topics = {orders, quotes};
  GroupDescription group;
  group.id = "billing";
  GroupPartitionDescription reads;
  reads.partition = {"quotes", PartitionId(0)};
  reads.committed = Offset(5);
  reads.lag = 3;
  group.partitions = {reads};
  snapshot.groups = {group};
  snapshot.keeper.pid = 42;
  snapshot.keeper.here = true;
  snapshot.slots = 512;
  snapshot.syncs.counts[0] = 2;
  snapshot.syncs.counts[3] = 5;
  snapshot.syncs.counts.back() = 1;
  snapshot.syncs.total_ns = 1'500'000'000;
  return snapshot;
}

ClusterFigures cluster() {
  ClusterFigures figures;
  figures.name = "main";
  figures.nodes = {{1, "a", true, false, true}, {2, "b", false, false, false}};
  ReplicaFigures p;
  p.topic = "quotes";
  p.leader = 1;
  p.replicas = {1, 2};
  p.isr = {1};
  p.epoch = LeaderEpoch(7);
  p.elections = 4;
  p.lag_records = {{2, 120}};
  figures.partitions = {p};
  return figures;
}

TEST(MetricsTest, EveryLineParsesAndHasItsFigure) {
  const auto values = parse_metrics(metrics_text(sample(), {"1.2", std::chrono::seconds(90)}, std::nullopt));
  EXPECT_THAT(values, Not(Contains(Key("?"))));
  EXPECT_THAT(values, Contains(Pair("ringtail_build_info{version=\"1.2\"}", 1)));
  EXPECT_THAT(values, Contains(Pair("ringtail_uptime_seconds", 90)));
  const std::string zero = "{topic=\"or\\\"ders\",partition=\"0\"}";
  EXPECT_THAT(values, AllOf(Contains(Pair("ringtail_partition_records_total" + zero, 1000)),
                            Contains(Pair("ringtail_partition_bytes_total" + zero, 40000)),
                            Contains(Pair("ringtail_partition_durable_lag_records" + zero, 250)),
                            Contains(Pair("ringtail_partition_durable_lag_bytes" + zero, 10000)),
                            Contains(Pair("ringtail_partition_ring_fill_ratio" + zero, 0.75)),
                            Contains(Pair("ringtail_partition_repaired_records_total" + zero, 3)),
                            Contains(Pair("ringtail_partition_retired_rings_total" + zero, 1)),
                            Contains(Pair("ringtail_partition_failed" + zero, 0))));
  // No digit is lost of large counters.
  EXPECT_THAT(values, Contains(Pair("ringtail_partition_records_total{topic=\"or\\\"ders\",partition=\"1\"}",
                                    12'345'678'901.0)));
  EXPECT_THAT(
      values,
      Contains(Pair("ringtail_group_lag_records{group=\"billing\",topic=\"quotes\",partition=\"0\"}", 3)));
  EXPECT_THAT(values,
              AllOf(Contains(Pair("ringtail_keeper_present", 1)), Contains(Pair("ringtail_keeper_pid", 42)),
                    Contains(Pair("ringtail_slots", 512))));
}

TEST(MetricsTest, CountersTellWhatHasComeAndGaugesWhereTheLogEnds) {
  Snapshot snapshot = sample();
  snapshot.topics[0].partitions[0].records_total = 1300;
  snapshot.topics[0].partitions[0].bytes_total = 52'000;
  const std::string text = metrics_text(snapshot, {}, std::nullopt);
  EXPECT_THAT(text, AllOf(HasSubstr("# TYPE ringtail_partition_records_total counter"),
                          HasSubstr("# TYPE ringtail_partition_log_end_offset gauge")));
  const auto values = parse_metrics(text);
  const std::string zero = "{topic=\"or\\\"ders\",partition=\"0\"}";
  EXPECT_THAT(values, AllOf(Contains(Pair("ringtail_partition_records_total" + zero, 1300)),
                            Contains(Pair("ringtail_partition_bytes_total" + zero, 52'000)),
                            Contains(Pair("ringtail_partition_log_end_offset" + zero, 1000))));
}

TEST(MetricsTest, LabelsAreUtf8) {
  Snapshot snapshot = sample();
  snapshot.groups[0].id = "caf\xe9";
  const std::string text = metrics_text(snapshot, {}, std::nullopt);
  EXPECT_TRUE(is_utf8(text));
  const std::string label = "{group=\"caf\xef\xbf\xbd\"";
  for (const char* name : {"members", "rebalancing", "lag_records", "committed_offset"})
    EXPECT_THAT(text, HasSubstr(std::string("ringtail_group_") + name + label)) << name;
}

TEST(MetricsTest, HistogramsAreCumulative) {
  const auto values = parse_metrics(metrics_text(sample(), {}, std::nullopt));
  EXPECT_THAT(values, AllOf(Contains(Pair("ringtail_flush_sync_seconds_count", 8)),
                            Contains(Pair("ringtail_flush_sync_seconds_sum", 1.5)),
                            Contains(Pair("ringtail_flush_sync_seconds_bucket{le=\"1e-05\"}", 2)),
                            Contains(Pair("ringtail_flush_sync_seconds_bucket{le=\"0.0001\"}", 7)),
                            Contains(Pair("ringtail_flush_sync_seconds_bucket{le=\"+Inf\"}", 8))));
}

TEST(MetricsTest, MemoryTopicsHaveNoFiguresOfTheDisk) {
  const std::string text = metrics_text(sample(), {}, std::nullopt);
  EXPECT_THAT(text, HasSubstr("ringtail_partition_records_total{topic=\"quotes\""));
  for (const char* name : {"durable_lag_records", "ring_fill_ratio", "disk_bytes"})
    EXPECT_THAT(text, Not(HasSubstr(std::string("ringtail_partition_") + name + "{topic=\"quotes\"")))
        << name;
}

TEST(MetricsTest, ReplicationIsThereOnlyInACluster) {
  EXPECT_THAT(metrics_text(sample(), {}, std::nullopt), Not(HasSubstr("ringtail_replica_")));
  const auto values = parse_metrics(metrics_text(sample(), {}, cluster()));
  const std::string labels = "{topic=\"quotes\",partition=\"0\"}";
  EXPECT_THAT(
      values,
      AllOf(Contains(Pair("ringtail_replica_isr_count" + labels, 1)),
            Contains(Pair("ringtail_replica_count" + labels, 2)),
            Contains(Pair("ringtail_replica_leader" + labels, 1)),
            Contains(Pair("ringtail_replica_leader_epoch" + labels, 7)),
            Contains(Pair("ringtail_replica_elections_total" + labels, 4)),
            Contains(Pair("ringtail_replica_lag_records{topic=\"quotes\",partition=\"0\",node=\"2\"}", 120)),
            Contains(Pair("ringtail_node_live{node=\"2\",rack=\"b\"}", 0))));
}

TEST(MetricsTest, ANodeInTroubleIsNotReady) {
  EXPECT_THAT(metrics_text(sample(), {}, std::nullopt), Not(HasSubstr("ringtail_node_ready")));
  ClusterFigures figures = cluster();
  EXPECT_THAT(parse_metrics(metrics_text(sample(), {}, figures)), Contains(Pair("ringtail_node_ready", 1)));
  figures.trouble = "fenced";
  EXPECT_THAT(parse_metrics(metrics_text(sample(), {}, figures)), Contains(Pair("ringtail_node_ready", 0)));
}

TEST(MetricsTest, APartitionThatNobodyLeadsHasLeaderZero) {
  ClusterFigures figures = cluster();
  figures.partitions[0].leader.reset();
  EXPECT_THAT(parse_metrics(metrics_text(sample(), {}, figures)),
              Contains(Pair("ringtail_replica_leader{topic=\"quotes\",partition=\"0\"}", 0)));
}

TEST(StateJsonTest, HasTheSnapshotAndTheClusterWhereThereIsOne) {
  Snapshot snapshot = sample();
  ProcessDescription strange;
  strange.name = "caf\xe9";  // no UTF-8
  snapshot.processes = {strange};
  const auto state = nlohmann::json::parse(dump(state_json(snapshot, {}, {}, std::nullopt)));
  EXPECT_EQ(state["topics"][0]["partitions"][0]["durable_lag_records"], 250);
  EXPECT_EQ(state["topics"][1]["storage"], "memory");
  EXPECT_FALSE(state["topics"][1]["partitions"][0].contains("ring_fill"));
  EXPECT_TRUE(state["topics"][0]["records_per_s"].is_null());
  EXPECT_EQ(state["groups"][0]["partitions"][0]["lag"], 3);
  EXPECT_EQ(state["keeper"]["pid"], 42);
  EXPECT_FALSE(state.contains("cluster"));

  const auto section = state_json(snapshot, {}, {}, cluster())["cluster"];
  EXPECT_EQ(section, nlohmann::json::parse(R"({"name": "main", "trouble": "",
    "nodes": [{"id": 1, "rack": "a", "live": true, "draining": false, "self": true, "trouble": ""},
              {"id": 2, "rack": "b", "live": false, "draining": false, "self": false, "trouble": ""}],
    "partitions": [{"topic": "quotes", "partition": 0, "leader": 1, "replicas": [1, 2], "isr": [1], "epoch": 7,
                    "high_watermark": 0, "elections": 4, "lag": {"2": 120}}]})"));
}

TEST(HistoryTest, RatesAreWhatCameBetweenTwoSnapshots) {
  History history;
  Snapshot snapshot = sample();
  history.add(snapshot);
  EXPECT_TRUE(history.points().empty());
  snapshot.taken_ns += 2'000'000'000;
  snapshot.topics[0].partitions[0].is.log_end_offset = Offset(1500);
  snapshot.topics[0].partitions[0].is.log_end_position = Position(60'000);
  snapshot.syncs.counts[0] += 10;
  history.add(snapshot);
  const auto points = history.points();
  ASSERT_EQ(points.size(), 1u);
  EXPECT_DOUBLE_EQ(points[0].all.records_per_s, 250);
  EXPECT_DOUBLE_EQ(points[0].all.bytes_per_s, 10'000);
  EXPECT_DOUBLE_EQ(points[0].topics.at("or\"ders").records_per_s, 250);
  EXPECT_DOUBLE_EQ(*points[0].sync_p50, 5'000);
  EXPECT_FALSE(points[0].write_p50);
}

TEST(HistoryTest, ATopicMadeAnewCountsFromZeroAndOldPointsGo) {
  History history;
  Snapshot snapshot = sample();
  history.add(snapshot);
  snapshot.topics[0].partitions[0].is.log_end_offset = Offset(1);
  for (std::size_t i = 0; i < History::kPoints + 5; ++i) {
    snapshot.taken_ns += 1'000'000'000;
    snapshot.wall_ns += 1;
    history.add(snapshot);
  }
  const auto points = history.points();
  ASSERT_EQ(points.size(), History::kPoints);
  EXPECT_EQ(points.back().wall_ns, static_cast<std::int64_t>(History::kPoints + 5));
  for (const HistoryPoint& point : points) EXPECT_EQ(point.all.records_per_s, 0);
}

}  // namespace
}  // namespace ringtail::monitor

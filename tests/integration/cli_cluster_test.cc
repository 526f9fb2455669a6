// ringtail cluster, and ringtail topic in a cluster
#include <csignal>
#include <utility>

#include "integration/cluster_cli.h"
#include "replication/placement.h"

namespace ringtail::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

TEST_F(CliClusterTest, TopicsAreCreatedAlteredAndDeletedInTheCluster) {
  start_nodes(3);
  EXPECT_EQ(cluster_ok({"topic", "create", "orders", "--partitions", "4", "--replication-factor", "3",
                        "--config", "retention.ms=1h"}),
            "created topic 'orders' with 4 partitions and 3 replicas of each in cluster 'main'\n");
  EXPECT_FALSE(std::filesystem::exists(log_dir()));  // nothing was made here
  const json topic = cluster_json({"cluster", "describe", "orders"});
  EXPECT_EQ(topic["topic"], "orders");
  EXPECT_EQ(topic["replication_factor"], 3);
  EXPECT_EQ(topic["configs"]["retention.ms"], (json{{"value", "3600000"}, {"default", false}}));
  EXPECT_EQ(topic["configs"]["on.full"], (json{{"value", "block"}, {"default", true}}));
  ASSERT_THAT(topic["partitions"], SizeIs(4));
  for (const json& partition : topic["partitions"]) {
    EXPECT_EQ(partition["leader"], partition["replicas"][0]);
    EXPECT_EQ(partition["led"], true);
    EXPECT_EQ(partition["leader_epoch"], 1);
    EXPECT_THAT(partition["isr"], SizeIs(3));
    EXPECT_EQ(partition["under_replicated"], false);
  }
  EXPECT_THAT(cluster_ok({"cluster", "describe"}),
              HasSubstr("topic 'orders': 4 partitions, replication factor 3"));

  EXPECT_EQ(cluster_ok({"topic", "alter", "orders", "--config", "retention.ms=2h"}),
            "altered topic 'orders' in cluster 'main'\n");
  EXPECT_EQ(cluster_json({"cluster", "describe", "orders"})["configs"]["retention.ms"]["value"], "7200000");

  EXPECT_EQ(cluster_ok({"topic", "alter", "orders", "--partitions", "6"}),
            "altered topic 'orders' in cluster 'main'\n");
  EXPECT_THAT(cluster_json({"cluster", "describe", "orders"})["partitions"], SizeIs(6));
  const CommandResult shrink = cluster({"topic", "alter", "orders", "--partitions", "5"});
  EXPECT_EQ(shrink.exit_code, 2);
  EXPECT_THAT(shrink.err, HasSubstr("has 6 partitions already"));

  const CommandResult again = cluster({"topic", "create", "orders", "--replication-factor", "1"});
  EXPECT_EQ(again.exit_code, 1);
  EXPECT_EQ(again.err, "ringtail: the cluster has a topic 'orders' already\n");

  EXPECT_EQ(cluster_ok({"topic", "delete", "orders"}), "deleted topic 'orders' in cluster 'main'\n");
  EXPECT_EQ(cluster_json({"cluster", "describe"}), json::array());
  EXPECT_EQ(cluster({"topic", "delete", "orders"}).exit_code, 1);
}

TEST_F(CliClusterTest, ATopicOfMorePartitionsThanOneCommitHolds) {
  start_nodes(3);
  create("wide", "300", "2");
  const json status = cluster_json({"cluster", "status"});
  EXPECT_EQ(status["partitions"], 300);
  EXPECT_EQ(status["leaderless"], json::array());
  cluster_ok({"topic", "delete", "wide"});
  EXPECT_TRUE(eventually([](const ClusterState& state) { return state.partitions.empty(); }));
}

TEST_F(CliClusterTest, WhatAnInterruptedDeletionLeftIsDeletedByTheNext) {
  start_nodes(1);
  create("wide", "3", "1");
  ASSERT_TRUE(eventually([](const ClusterState& state) { return state.topics.contains("wide"); }));
  const Stored<TopicRecord> topic = nodes_[0]->state()->topics.at("wide");
  const Change first{topic.record, topic.revision, true};
  ASSERT_THAT(nodes_[0]->commit(std::span(&first, 1)), ::testing::Optional(true));
  EXPECT_EQ(cluster_ok({"topic", "delete", "wide"}),
            "deleted what an interrupted command had left of topic 'wide' in cluster 'main'\n");
  EXPECT_TRUE(eventually([](const ClusterState& state) { return state.partitions.empty(); }));
  EXPECT_EQ(cluster({"topic", "delete", "wide"}).exit_code, 1);
}

TEST_F(CliClusterTest, WhatCannotBeCreatedIsRefusedAndLeavesNothing) {
  start_nodes(2);
  const CommandResult few = cluster({"topic", "create", "t", "--replication-factor", "3"});
  EXPECT_EQ(few.exit_code, 1);
  EXPECT_THAT(few.err, HasSubstr("3 replicas need as many nodes, and 2 are alive"));
  const CommandResult never =
      cluster({"topic", "create", "t", "--replication-factor", "1", "--config", "min.insync.replicas=2"});
  EXPECT_EQ(never.exit_code, 2);
  EXPECT_THAT(never.err, HasSubstr("min.insync.replicas=2 can never be met by 1 replica"));
  EXPECT_EQ(cluster({"topic", "create", "a/b", "--replication-factor", "1"}).exit_code, 2);
  EXPECT_EQ(cluster({"topic", "create", "t", "--replication-factor", "0"}).exit_code, 2);
  const CommandResult none = cluster({"topic", "create", "t"});
  EXPECT_EQ(none.exit_code, 2);
  EXPECT_THAT(none.err, HasSubstr("needs --replication-factor"));
  EXPECT_EQ(cluster({"topic", "alter", "t", "--partitions", "3"}).exit_code, 1);
  const CommandResult compacted =
      cluster({"topic", "create", "t", "--replication-factor", "2", "--config", "cleanup.policy=compact"});
  EXPECT_EQ(compacted.exit_code, 1);
  EXPECT_THAT(compacted.err, HasSubstr("cleanup.policy=delete"));
  EXPECT_EQ(cluster({"topic", "alter", "t", "--config", "retention.ms=1h"}).exit_code, 1);
  EXPECT_TRUE(nodes_[0]->state()->partitions.empty());
}

TEST_F(CliClusterTest, StatusAndNodesTellWhoIsThereAndWhatIsMissing) {
  start_nodes(3);
  create("orders", "3", "2");
  const json well = cluster_json({"cluster", "status"});
  EXPECT_EQ(well["cluster"], "main");
  EXPECT_EQ(well["cluster_id"], nodes_[0]->state()->cluster_id);
  EXPECT_EQ(well["etcd"]["reachable"], true);
  EXPECT_EQ(well["etcd"]["endpoints"], json::array({etcd_.endpoint()}));
  EXPECT_EQ(well["nodes"], (json{{"registered", 3}, {"live", 3}, {"draining", 0}}));
  EXPECT_EQ(well["topics"], 1);
  EXPECT_EQ(well["partitions"], 3);
  EXPECT_EQ(well["under_replicated"], json::array());
  const std::string text = cluster_ok({"cluster", "status"});
  EXPECT_THAT(text, HasSubstr("3 live of 3, 0 draining"));
  EXPECT_THAT(text, HasSubstr(etcd_.endpoint() + " answers"));

  const json nodes = cluster_json({"cluster", "nodes"});
  ASSERT_THAT(nodes, SizeIs(3));
  EXPECT_EQ(nodes[1]["node"], 2);
  EXPECT_EQ(nodes[1]["live"], true);
  EXPECT_EQ(nodes[1]["rack"], "even");
  EXPECT_EQ(nodes[1]["replication"], (json{{"host", "10.0.0.2"}, {"port", 9465}}));
  EXPECT_EQ(nodes[1]["leads"], 1);
  EXPECT_EQ(
      nodes[0]["replicas"].get<int>() + nodes[1]["replicas"].get<int>() + nodes[2]["replicas"].get<int>(), 6);
  EXPECT_THAT(cluster_ok({"cluster", "nodes"}), HasSubstr("10.0.0.3:9464"));

  stop_node(3);  // nobody is there to elect: what it led is leaderless
  const CommandResult ill = cluster({"cluster", "status", "--json"});
  EXPECT_EQ(ill.exit_code, 1);
  EXPECT_EQ(ill.err, "");
  const json status = json::parse(ill.out);
  EXPECT_THAT(status["leaderless"], SizeIs(1));
  EXPECT_EQ(status["nodes"]["live"], 2);
  EXPECT_FALSE(status["under_replicated"].empty());
  EXPECT_THAT(cluster_ok({"cluster", "nodes"}), HasSubstr("down"));
  EXPECT_THAT(cluster_ok({"cluster", "describe", "orders"}), HasSubstr("leaderless; under-replicated"));
}

TEST_F(CliClusterTest, PreferredLeadersAreWishedFor) {
  start_nodes(2);
  create("orders", "2", "2");
  EXPECT_THAT(cluster_ok({"cluster", "elect"}), HasSubstr("nothing to do"));
  const auto preferred = partition_of("orders", 0)["replicas"][0].get<std::uint32_t>();
  const std::uint32_t other = 3 - preferred;
  change("orders", 0, 0, [&](PartitionRecord& record) {
    record.leader = NodeId(other);
    record.leader_incarnation = node(other).incarnation;
  });
  const json asked =
      cluster_json({"cluster", "elect", "--preferred", "--topic", "orders", "--partition", "0"});
  EXPECT_EQ(asked["partitions"][0]["leader"], preferred);
  EXPECT_EQ(asked["partitions"][0]["elected"], true);
  EXPECT_EQ(partition_of("orders", 0)["wanted_leader"], preferred);
  EXPECT_EQ(partition_of("orders", 0)["leader"], other);  // the leader hands over, not the tool
  EXPECT_EQ(partition_of("orders", 1)["wanted_leader"], json());

  change("orders", 0, 0, [&](PartitionRecord& record) {
    record.wanted_leader.reset();
    std::erase_if(record.isr, [&](const IsrMember& member) { return member.node == NodeId(preferred); });
  });
  const CommandResult behind = cluster({"cluster", "elect"});
  EXPECT_EQ(behind.exit_code, 1);
  EXPECT_THAT(behind.out, HasSubstr("not in sync"));
}

TEST_F(CliClusterTest, AnUncleanElectionIsConfirmedFirst) {
  start_nodes(2);
  create("orders", "1", "2");
  const auto leader = partition_of("orders", 0)["leader"].get<std::uint32_t>();
  const std::uint32_t other = 3 - leader;
  EXPECT_THAT(cluster_ok({"cluster", "elect", "--unclean", "--yes"}), HasSubstr("nothing to do"));
  change("orders", 0, other - 1, [&](PartitionRecord& record) {
    std::erase_if(record.isr, [&](const IsrMember& member) { return member.node == NodeId(other); });
  });
  ASSERT_TRUE(nodes_[leader - 1]->leave());
  ASSERT_TRUE(
      eventually([&](const ClusterState& state) { return !state.live.contains(NodeId(leader)); }, other - 1));

  const CommandResult unsure = cluster({"cluster", "elect", "--unclean", "--topic", "orders"});
  EXPECT_EQ(unsure.exit_code, 2);
  EXPECT_THAT(unsure.err, HasSubstr("orders-0: node " + std::to_string(other) + " is to lead"));
  EXPECT_THAT(unsure.err, HasSubstr("and node " + std::to_string(leader) + " had are given up"));
  const CommandResult as_json = cluster({"cluster", "elect", "--unclean", "--topic", "orders", "--json"});
  EXPECT_EQ(as_json.exit_code, 2);
  EXPECT_THAT(notes_of(as_json.err),
              ElementsAre(HasSubstr("orders-0: node " + std::to_string(other) + " is to lead")));
  EXPECT_EQ(partition_of("orders", 0)["led"], false);

  const json done = cluster_json({"cluster", "elect", "--unclean", "--topic", "orders", "--yes"});
  EXPECT_EQ(done["partitions"][0]["leader"], other);
  const json partition = partition_of("orders", 0);
  EXPECT_EQ(partition["leader"], other);
  EXPECT_EQ(partition["led"], true);
  EXPECT_EQ(partition["unclean"], true);
  EXPECT_EQ(partition["leader_epoch"], 2);
  EXPECT_EQ(partition["isr"], json::array({other}));
}

TEST_F(CliClusterTest, DrainingIsSetWaitedForAndUndone) {
  start_nodes(2);
  create("orders", "1", "2");
  const auto leader = partition_of("orders", 0)["leader"].get<std::uint32_t>();
  const std::string name = std::to_string(leader);
  Command waiting(command_line(with_cluster({"cluster", "drain", name, "--wait"})), environment());
  EXPECT_TRUE(waiting.wait_for_error("node " + name + " still leads 1 partition\n"));
  EXPECT_EQ(cluster_json({"cluster", "nodes"})[leader - 1]["draining"], true);
  change("orders", 0, 0, [&](PartitionRecord& record) {
    record.leader = NodeId(3 - leader);
    record.leader_incarnation = node(3 - leader).incarnation;
  });
  const CommandResult waited = waiting.wait();
  EXPECT_EQ(waited.exit_code, 0);
  EXPECT_EQ(waited.out, "node " + name + " is draining; it leads 0 partitions\n");

  EXPECT_EQ(cluster_json({"cluster", "drain", name})["changed"], false);
  EXPECT_EQ(cluster_ok({"cluster", "drain", name, "--undo"}), "node " + name + " may lead again\n");
  EXPECT_EQ(cluster_json({"cluster", "nodes"})[leader - 1]["draining"], false);
  const CommandResult unknown = cluster({"cluster", "drain", "9"});
  EXPECT_EQ(unknown.exit_code, 1);
  EXPECT_THAT(unknown.err, HasSubstr("has no node 9; see `ringtail cluster nodes`"));
}

TEST_F(CliTest, EveryClusterCommandEndsItsHelpWithAnExampleOfItself) {
  for (const char* name : {"status", "nodes", "describe", "elect", "drain", "reassign", "throttle"}) {
    const std::string help = run_ok({"cluster", name, "--help"});
    const std::size_t example = help.rfind("Example:\n");
    ASSERT_NE(example, std::string::npos) << help;
    EXPECT_NE(help.find("ringtail cluster " + std::string(name), example), std::string::npos) << help;
    EXPECT_THAT(run_ok({"completion", "bash"}), HasSubstr("' cluster " + std::string(name) + "')"));
  }
}

TEST_F(CliClusterTest, AWaitEndsWithASignal) {
  start_nodes(1);
  create("orders", "1", "1");
  Command waiting(command_line(with_cluster({"cluster", "drain", "1", "--wait"})), environment());
  EXPECT_TRUE(waiting.wait_for_error("still leads 1 partition\n"));
  waiting.signal(SIGTERM);
  EXPECT_EQ(waiting.wait().exit_code, 143);
}

TEST_F(CliClusterTest, ReassignmentsAreBegunCancelledAndWaitedFor) {
  start_nodes(3);
  create("orders", "2", "1");
  const auto from = partition_of("orders", 0)["replicas"][0].get<std::uint32_t>();
  const std::uint32_t to = from % 3 + 1;
  const json begun =
      cluster_json({"cluster", "reassign", "orders", "--partition", "0", "--replicas", std::to_string(to)});
  EXPECT_EQ(begun["partitions"],
            json::array({{{"partition", 0}, {"from", {from}}, {"to", {to}}, {"done", false}}}));
  json partition = partition_of("orders", 0);
  EXPECT_EQ(partition["replicas"], (json{to, from}));
  EXPECT_EQ(partition["adding"], json::array({to}));
  EXPECT_EQ(partition["removing"], json::array({from}));
  EXPECT_EQ(cluster_json({"cluster", "status"})["reassigning"],
            json::array({{{"topic", "orders"}, {"partition", 0}}}));

  cluster_ok({"cluster", "reassign", "orders", "--cancel"});
  partition = partition_of("orders", 0);
  EXPECT_EQ(partition["removing"], json::array({to}));
  EXPECT_EQ(partition["adding"], json::array());
  cluster_ok({"cluster", "reassign", "orders", "--cancel"});  // is no cancelling of the cancelling
  EXPECT_EQ(partition_of("orders", 0), partition);

  // Who is away stays one of them, when what was to come in his place is cancelled.
  create("pairs", "1", "2");
  const json pair = partition_of("pairs", 0)["replicas"];
  const std::uint32_t third = 6 - pair[0].get<std::uint32_t>() - pair[1].get<std::uint32_t>();
  change("pairs", 0, 0, [](PartitionRecord& record) { record.isr.pop_back(); });
  cluster_ok({"cluster", "reassign", "pairs", "--replicas",
              std::to_string(pair[0].get<std::uint32_t>()) + "," + std::to_string(third)});
  cluster_ok({"cluster", "reassign", "pairs", "--cancel"});
  partition = partition_of("pairs", 0);
  EXPECT_EQ(partition["replicas"], (json{pair[0], pair[1], third}));
  EXPECT_EQ(partition["removing"], json::array({third}));

  // So does who came first.
  create("trios", "1", "3");
  const json trio = partition_of("trios", 0)["replicas"];
  cluster_ok({"cluster", "reassign", "trios", "--replicas", std::to_string(trio[2].get<std::uint32_t>())});
  cluster_ok({"cluster", "reassign", "trios", "--cancel"});
  EXPECT_EQ(partition_of("trios", 0)["replicas"], trio);

  // The test does what the daemons would.
  const auto catch_up = [&](std::uint32_t partition_number) {
    change("orders", partition_number, 0, [&](PartitionRecord& record) {
      for (const NodeId added : record.adding) record.isr.push_back({added, node(added.value()).log_id});
      while (const auto next = step_reassignment(record, *nodes_[0]->state())) record = *next;
    });
  };
  catch_up(0);
  EXPECT_EQ(partition_of("orders", 0)["replicas"], json::array({from}));
  Command waiting(command_line(with_cluster({"cluster", "reassign", "orders", "--replicas",
                                             std::to_string(to) + "," + std::to_string(from), "--wait"})),
                  environment());
  EXPECT_TRUE(waiting.wait_for_error("0 of 2 partitions moved\n"));
  catch_up(0);
  catch_up(1);
  const CommandResult waited = waiting.wait();
  EXPECT_EQ(waited.exit_code, 0) << waited.err;
  EXPECT_THAT(waited.out, HasSubstr("done"));
  EXPECT_EQ(partition_of("orders", 0)["replicas"], (json{to, from}));

  EXPECT_EQ(cluster_json({"cluster", "reassign", "orders", "--spread"})["partitions"].size(), 2u);
  EXPECT_EQ(cluster({"cluster", "reassign", "orders", "--replicas", "1,x"}).exit_code, 2);
  EXPECT_EQ(cluster({"cluster", "reassign", "orders", "--replicas", "1,1"}).exit_code, 2);
  EXPECT_EQ(cluster({"cluster", "reassign", "orders", "--replicas", "0"}).exit_code, 2);
  EXPECT_EQ(cluster({"cluster", "reassign", "orders"}).exit_code, 2);
  EXPECT_EQ(cluster({"cluster", "reassign", "orders", "--spread", "--cancel"}).exit_code, 2);
  const CommandResult stranger = cluster({"cluster", "reassign", "orders", "--replicas", "9"});
  EXPECT_EQ(stranger.exit_code, 2);
  EXPECT_THAT(stranger.err, HasSubstr("there is no node 9"));
}

TEST_F(CliClusterTest, TheThrottleIsShownAndSet) {
  start_nodes(1);
  EXPECT_EQ(cluster_ok({"cluster", "throttle"}), "no throttle\n");
  EXPECT_EQ(cluster_ok({"cluster", "throttle", "50MiB"}), "50.0 MiB/s for each node\n");
  EXPECT_EQ(cluster_json({"cluster", "throttle"}),
            (json{{"replication_throttle_bytes_per_s", 50 << 20}, {"changed", false}}));
  EXPECT_EQ(cluster_json({"cluster", "throttle", "none"}),
            (json{{"replication_throttle_bytes_per_s", 0}, {"changed", true}}));
  EXPECT_EQ(cluster({"cluster", "throttle", "fast"}).exit_code, 2);
  EXPECT_EQ(cluster({"cluster", "throttle", "0"}).exit_code, 2);
}

TEST_F(CliClusterTest, UnknownTopicsPartitionsAndClustersAreNamedWithTheRemedy) {
  start_nodes(1);
  create("orders", "1", "1");
  const CommandResult topic = cluster({"cluster", "describe", "other"});
  EXPECT_EQ(topic.exit_code, 1);
  EXPECT_THAT(topic.err, HasSubstr("the cluster has no topic 'other'; see `ringtail cluster describe`"));
  const CommandResult partition = cluster({"cluster", "elect", "--topic", "orders", "--partition", "1"});
  EXPECT_EQ(partition.exit_code, 1);
  EXPECT_THAT(partition.err, HasSubstr("topic 'orders' has no partition 1; it has 0 to 0"));
  EXPECT_EQ(cluster({"cluster", "elect", "--partition", "1"}).exit_code, 2);
  EXPECT_EQ(cluster({"cluster", "elect", "--unclean", "--preferred"}).exit_code, 2);
  EXPECT_EQ(cluster({"cluster", "reassign", "other", "--spread"}).exit_code, 1);
  EXPECT_EQ(cluster({"cluster", "reassign", "orders", "--spread", "--partition", "4"}).exit_code, 1);
  const CommandResult strange = run({"cluster", "status", "--etcd", etcd_.endpoint(), "--cluster", "mian"});
  EXPECT_EQ(strange.exit_code, 1);
  EXPECT_THAT(strange.err, HasSubstr("has no cluster 'mian'"));
  const json error = json::parse(cluster({"cluster", "describe", "other", "--json"}).err);
  EXPECT_EQ(error["error"]["code"], "not_found");
}

TEST_F(CliClusterTest, AnEtcdThatDoesNotAnswerIsNamed) {
  start_nodes(1);
  nodes_.clear();
  etcd_.kill();
  const CommandResult result = cluster({"cluster", "status", "--timeout", "300ms"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.out, "");
  EXPECT_THAT(result.err, HasSubstr("cannot be read from etcd at " + etcd_.endpoint()));
  // What the library warns of is an object, too, a line each.
  for (const std::string& line : lines_of(cluster({"cluster", "nodes", "--timeout", "300ms", "--json"}).err))
    EXPECT_TRUE(json::accept(line)) << line;
  EXPECT_EQ(cluster({"cluster", "status", "--timeout", "soon"}).exit_code, 2);
  EXPECT_EQ(run({"cluster", "status", "--etcd", etcd_.endpoint()}).exit_code, 2);
  EXPECT_EQ(run({"cluster", "status", "--etcd", "nowhere", "--cluster", "main"}).exit_code, 2);
}

TEST_F(CliClusterTest, TheDaemonsConfigurationNamesTheCluster) {
  start_nodes(1);
  // What a tool needs, with mistakes that are none of its business.
  const auto file = write_file("ringtaild.toml", "[cluster]\nname = \"main\"\netcd = [\"" + etcd_.endpoint() +
                                                     "\"]\n[replication]\nca = \"/nowhere\"\n");
  EXPECT_EQ(run_json({"cluster", "status", "--config", file})["cluster"], "main");
  const CommandResult by_name =
      run_command(command_line({"cluster", "throttle"}), {}, {"RINGTAILD_CONFIG=" + file.string()});
  EXPECT_EQ(by_name.exit_code, 0) << by_name.err;
  run_ok({"topic", "create", "orders", "--replication-factor", "1", "--cluster-config", file});
  run_ok({"topic", "delete", "orders", "--cluster-config", file});

  const CommandResult missing = run({"cluster", "status", "--config", directory() / "none.toml"});
  EXPECT_EQ(missing.exit_code, 2);
  EXPECT_THAT(missing.err, HasSubstr("none.toml"));
  const auto alone = write_file("alone.toml", "[log]\ndir = \"/var/lib/ringtail\"\n");
  const CommandResult lonely = run({"cluster", "status", "--config", alone});
  EXPECT_EQ(lonely.exit_code, 2);
  EXPECT_THAT(lonely.err, HasSubstr("has no table [cluster]"));
  const auto wrong = write_file("wrong.toml", "[cluster]\nname = \"main\"\netcd = [\"nowhere\"]\n");
  const CommandResult bad = run({"cluster", "status", "--config", wrong});
  EXPECT_EQ(bad.exit_code, 2);
  EXPECT_THAT(bad.err, HasSubstr("wrong.toml:3: cluster.etcd"));
}

}  // namespace
}  // namespace ringtail::test

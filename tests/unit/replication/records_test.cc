// Records as JSON and back, and what becomes of malformed ones.
#include "replication/records.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "replication/state_builder.h"
#include "unit/replication/nodes.h"
#include "unit/replication/replication_test_support.h"

namespace ringtail::replication {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;
using Json = nlohmann::json;

// The record with a field set to something else, or taken out.
std::string with(const std::string& value, const char* field, Json other) {
  Json json = Json::parse(value);
  if (other.is_discarded())
    json.erase(field);
  else
    json[field] = std::move(other);
  return json.dump();
}
Json missing() { return Json(Json::value_t::discarded); }

TEST(RecordsTest, ComeBackAsTheyWere) {
  NodeRecord node = node_record(7, "rack-b");
  node.unreached = {{NodeId(3), "TLS: no"}, {NodeId(12), "Connection refused"}};
  node.incarnation = 0xffff'ffff'ffff'fffe;
  node.draining = true;
  node.http = {};
  EXPECT_EQ(decode_node(node_key(node.id), encode(node)), node);
  EXPECT_EQ(decode_topic("topics/t", encode(topic_record("t"))), topic_record("t"));
  PartitionRecord partition = partition_record("t.u-v_w", 4095, {3, 1, 2});
  EXPECT_EQ(decode_partition("partitions/t.u-v_w/4095", encode(partition)), partition);
  EXPECT_FALSE(Json::parse(encode(partition)).contains("wanted_leader"));
  EXPECT_FALSE(Json::parse(encode(partition)).contains("origin"));
  partition.origin = {NodeId(1), NodeId(9)};  // who has gone meanwhile, too
  partition.wanted_leader = NodeId(2);
  partition.leader.reset();
  partition.isr.clear();
  partition.adding = {NodeId(1)};
  partition.removing = {NodeId(2)};
  partition.unclean = true;
  EXPECT_EQ(decode_partition("partitions/t.u-v_w/4095", encode(partition)), partition);
  const ClusterSettings settings{.replication_throttle_bytes_per_s = 1 << 30};
  EXPECT_EQ(decode_settings("settings", encode(settings)), settings);
  EXPECT_EQ(decode_live("live/1", encode_live(0xff)), 0xffu);
  EXPECT_EQ(decode_identity("identity", encode_identity(std::string(32, 'a'), 1)), std::string(32, 'a'));
}

TEST(RecordsTest, FieldsThatAreNotKnownArePassedOver) {
  const std::string value = with(encode(node_record(1)), "hue", {{"of", "tomorrow"}});
  EXPECT_EQ(decode_node("nodes/1", value), node_record(1));
}

// Whatever else it has: nothing but the version is looked at.
TEST(RecordsTest, AValueOfAnotherVersionIsRefusedWithBothVersionsAndTheRemedy) {
  const auto check = [](std::string_view key, const std::string& value, auto decode) {
    for (const std::uint64_t version : {std::uint64_t{0}, std::uint64_t{2}, ~std::uint64_t{0}}) {
      const std::string bare = Json{{"version", version}}.dump();
      for (const std::string& other : {with(value, "version", version), bare}) {
        const auto decoded = decode(key, other);
        ASSERT_FALSE(decoded) << other;
        EXPECT_EQ(decoded.error().code, Code::incompatible_layout);
        EXPECT_THAT(decoded.error().message, HasSubstr(fmt::format("'{}' has version {}", key, version)));
        EXPECT_THAT(decoded.error().message, HasSubstr("this release reads version 1"));
        EXPECT_THAT(decoded.error().message, HasSubstr("the release that wrote it"));
      }
    }
  };
  check("nodes/1", encode(node_record(1)), decode_node);
  check("topics/t", encode(topic_record("t")), decode_topic);
  check("partitions/t/0", encode(partition_record("t", 0, {1, 2})), decode_partition);
  check("settings", encode(ClusterSettings{}), decode_settings);
  check("live/1", encode_live(5), decode_live);
  check("identity", encode_identity(std::string(32, 'a'), 1), decode_identity);
}

TEST(RecordsTest, EachMissingOrMalformedFieldIsNamedTogetherWithTheKey) {
  const auto check = [](std::string_view key, const std::string& value, auto decode) {
    const Json fields = Json::parse(value);
    for (const auto& [name, ignored] : fields.items()) {
      for (const Json& other : {missing(), Json("x y"), Json(-1), Json(1e300), Json(nullptr),
                                Json::array({"a"}), Json::object({{"a", Json::array()}})}) {
        const bool may_miss =
            name == "leader" || name == "wanted_leader" || name == "replication_throttle_bytes_per_s";
        if (may_miss && other.is_discarded()) continue;
        // Any text is a rack or a release.
        if ((name == "rack" || name == "release") && other.is_string()) continue;
        const auto decoded = decode(key, with(value, name.c_str(), other));
        if (decoded) {
          ADD_FAILURE() << key << " with " << name << " = " << other << " was read";
          continue;
        }
        EXPECT_EQ(decoded.error().code, Code::corrupt);
        EXPECT_THAT(decoded.error().message, HasSubstr(std::string(key)));
        EXPECT_THAT(decoded.error().message, HasSubstr(name));
      }
    }
  };
  check("nodes/1", encode(node_record(1)), decode_node);
  check("topics/t", encode(topic_record("t")), decode_topic);
  check("partitions/t/0", encode(partition_record("t", 0, {1, 2})), decode_partition);
  check("settings", encode(ClusterSettings{}), decode_settings);
  check("live/1", encode_live(5), decode_live);
}

TEST(RecordsTest, AKeyThatDoesNotAgreeWithItsValueIsRefused) {
  EXPECT_FALSE(decode_node("nodes/2", encode(node_record(1))));
  EXPECT_FALSE(decode_node("nodes/01", encode(node_record(1))));
  EXPECT_FALSE(decode_topic("topics/u", encode(topic_record("t"))));
  EXPECT_FALSE(decode_partition("partitions/t/1", encode(partition_record("t", 0, {1}))));
  EXPECT_FALSE(node_of_live_key("live/x"));
  EXPECT_FALSE(node_of_live_key("live/0"));
  EXPECT_FALSE(node_of_live_key("live/65536"));
  EXPECT_EQ(node_of_live_key("live/65535"), NodeId(65535));
}

TEST(RecordsTest, NobodyButReplicasLeadsOrIsInSync) {
  const auto refused = [](auto change) {
    PartitionRecord record = partition_record("t", 0, {1, 2});
    change(record);
    return check_record({record}).has_value() ? "" : check_record({record}).error().message;
  };
  EXPECT_EQ(refused([](auto&) {}), "");
  EXPECT_THAT(refused([](auto& r) { r.leader = NodeId(3); }), HasSubstr("leader"));
  EXPECT_THAT(refused([](auto& r) { r.isr.push_back({NodeId(3), "00"}); }), HasSubstr("isr"));
  EXPECT_THAT(refused([](auto& r) { r.isr.push_back(r.isr.front()); }), HasSubstr("twice"));
  EXPECT_THAT(refused([](auto& r) { r.replicas.push_back(NodeId(1)); }), HasSubstr("twice"));
  EXPECT_THAT(refused([](auto& r) { r.wanted_leader = NodeId(3); }), HasSubstr("wanted_leader"));
  EXPECT_THAT(refused([](auto& r) { r.adding = {NodeId(3)}; }), HasSubstr("adding"));
  EXPECT_THAT(refused([](auto& r) { r.removing = {NodeId(3)}; }), HasSubstr("removing"));
  EXPECT_THAT(refused([](auto& r) { r.topic = "a/b"; }), HasSubstr("a/b"));
  EXPECT_THAT(refused([](auto& r) {
                r = {};
                r.topic = "t";
              }),
              HasSubstr("no replicas"));
}

TEST(RecordsTest, ATextThatIsNotUtf8CannotBeStored) {
  NodeRecord node = node_record(1);
  node.rack = "\xff\xfe";
  const Status checked = check_record({node});
  ASSERT_FALSE(checked);
  EXPECT_EQ(checked.error().code, Code::invalid_argument);
  EXPECT_THAT(checked.error().message, HasSubstr("UTF-8"));
}

TEST(StateBuilderTest, WhatIsMalformedTakesThePlaceOfWhatWasThereUntilItIsMended) {
  StateBuilder builder;
  builder.put("nodes/1", encode(node_record(1)), 2);
  builder.put("live/1", encode_live(node_record(1).incarnation), 2);
  builder.set_revision(2);
  ASSERT_NE(find_live(builder.current(), kOne), nullptr);
  builder.put("nodes/1", "{", 3);
  EXPECT_EQ(find_live(builder.current(), kOne), nullptr);
  EXPECT_THAT(builder.current().nodes, SizeIs(0));
  EXPECT_EQ(builder.current().malformed.at("nodes/1").revision, 3);
  builder.put("nodes/1", encode(node_record(1)), 4);
  EXPECT_THAT(builder.current().malformed, SizeIs(0));
  EXPECT_EQ(builder.current().nodes.at(kOne).revision, 4);
  // A strange spelling is malformed, and leaves the right one alone.
  builder.put("nodes/01", encode(node_record(1)), 5);
  EXPECT_THAT(builder.current().nodes, SizeIs(1));
  builder.remove("nodes/01");
  EXPECT_THAT(builder.current().nodes, SizeIs(1));
  EXPECT_THAT(builder.current().malformed, SizeIs(0));
}

TEST(StateBuilderTest, EachKindOfRecordCanBeRemoved) {
  StateBuilder builder;
  const std::vector<Change> changes{
      {node_record(1)}, {topic_record("t")}, {partition_record("t", 2, {1})}, {ClusterSettings{5}}};
  for (const Change& change : changes) builder.put(key_of(change), value_of(change), 8);
  builder.put("identity", encode_identity(std::string(32, 'a'), 1), 8);
  builder.put("live/1", encode_live(1), 8);
  builder.put("strange", "what others keep here", 8);
  EXPECT_THAT(builder.current().malformed, SizeIs(0));
  EXPECT_EQ(builder.current().settings.revision, 8);
  EXPECT_EQ(find_live(builder.current(), kOne),
            nullptr);  // in another incarnation than it is registered with
  for (const Change& change : changes) builder.remove(key_of(change));
  builder.remove("identity");
  builder.remove("live/1");
  const ClusterState& state = builder.current();
  EXPECT_TRUE(state.nodes.empty() && state.topics.empty() && state.partitions.empty() && state.live.empty());
  EXPECT_EQ(state.settings.revision, 0);
  EXPECT_EQ(state.cluster_id, "");
}

}  // namespace
}  // namespace ringtail::replication

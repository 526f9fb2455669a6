#include "ringtail/admin.h"

#include <unistd.h>

#include "client/log_core.h"
#include "log/ring.h"
#include "unit/client/client_test_support.h"

namespace ringtail {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Key;
using ::testing::Pair;

using AdminTest = ClientTest;

TEST_F(AdminTest, CreatesListsAndDescribes) {
  EXPECT_THAT(*admin().list_topics(), IsEmpty());
  create("zebra", {{"retention.ms", "1h"}}, 2);
  create("ant");
  EXPECT_THAT(*admin().list_topics(), ElementsAre("ant", "zebra"));
  auto described = admin().describe_topic("zebra");
  ASSERT_TRUE(described);
  EXPECT_EQ(described->name, "zebra");
  EXPECT_THAT(described->overrides, ElementsAre(Pair("retention.ms", "3600000")));
  EXPECT_THAT(described->configs, Contains(Pair("retention.ms", "3600000")));
  EXPECT_THAT(described->configs, Contains(Pair("storage", "disk")));
  ASSERT_EQ(described->partitions.size(), 2u);
  for (const PartitionDescription& partition : described->partitions) {
    EXPECT_EQ(partition.log_end_offset, Offset(0));
    EXPECT_EQ(partition.ring_generation, 1u);
    EXPECT_GT(partition.term_bytes, 0u);
    EXPECT_GT(partition.ring_bytes, partition.term_bytes);
    EXPECT_EQ(partition.ring_fill(), 0);
    EXPECT_FALSE(partition.failure);
  }
  EXPECT_EQ(admin().describe_topic("bee").error().code, Code::not_found);
}

TEST_F(AdminTest, DescribesTheThreeEnds) {
  create("t");
  create("m", {{"storage", "memory"}});
  Producer p = producer("t");
  Producer m = producer("m");
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(p.send("v") && m.send("v"));
  ASSERT_TRUE(p.flush());
  auto described = admin().describe_topic("t");
  const PartitionDescription& disk = described->partitions[0];
  EXPECT_EQ(disk.log_start_offset, Offset(0));
  EXPECT_EQ(disk.durable_offset, Offset(10));
  EXPECT_EQ(disk.high_watermark, Offset(10));
  EXPECT_EQ(disk.log_end_offset, Offset(10));
  EXPECT_EQ(disk.log_end_position, Position(400));
  EXPECT_EQ(disk.durable_position, Position(400));
  EXPECT_GT(disk.disk_bytes, 0u);
  auto in_memory = admin().describe_topic("m");
  EXPECT_EQ(in_memory->partitions[0].log_end_offset, Offset(10));
  EXPECT_EQ(in_memory->partitions[0].durable_offset, Offset(0));
}

TEST_F(AdminTest, APartitionThatIsSaidToBeOpenedIsDescribedAsItIs) {
  create("t");
  ASSERT_TRUE(producer("t").send("v"));
  const LogCore& core = *log_->core();
  const log::PartitionRef at =
      core.find_partition(core.catalog().load_topic("t").value(), PartitionId(0)).value();
  at.entry().state.store(static_cast<std::uint32_t>(shm::PartitionState::opening));
  const auto began = std::chrono::steady_clock::now();
  const auto described = admin().describe_topic("t");
  EXPECT_LT(std::chrono::steady_clock::now() - began, seconds(10));
  ASSERT_TRUE(described) << to_string(described.error());
  EXPECT_EQ(described->partitions[0].log_end_offset, Offset(1));
  EXPECT_FALSE(described->partitions[0].failure);
  // As long as it has no ring, nobody knows where it ends.
  const auto ring = log::ring_path(at.shm_dir, at.topic, at.partition), aside = shm_.path() / "aside";
  std::filesystem::rename(ring, aside);
  const auto before = admin().describe_topic("t");
  ASSERT_TRUE(before && before->partitions[0].failure);
  EXPECT_EQ(before->partitions[0].failure->code, Code::would_block);
  std::filesystem::rename(aside, ring);
  at.entry().state.store(static_cast<std::uint32_t>(shm::PartitionState::active));
}

// Four terms of 4096 bytes, at the positions from 40,960 on.
TEST(PartitionDescriptionTest, ARingIsFilledFromTheTermThatHoldsTheDurableEnd) {
  PartitionDescription p;
  p.ring_bytes = 16'384;
  p.term_bytes = 4096;
  const auto fill = [&p](std::uint64_t durable, std::uint64_t end) {
    p.durable_position = Position(durable);
    p.log_end_position = Position(end);
    return p.ring_fill();
  };
  EXPECT_EQ(fill(40'960, 40'960), 0);
  EXPECT_EQ(fill(44'000, 44'000), 0);  // all is durable
  EXPECT_EQ(fill(44'000, 43'000), 0);  // marks move while they are read
  EXPECT_EQ(fill(44'000, 45'056), 0.25);
  EXPECT_EQ(fill(45'056, 49'152), 0.25);  // the term before may be used again
  EXPECT_EQ(fill(45'055, 57'344), 1);     // full, with hardly three terms that are not durable
  EXPECT_EQ(fill(45'055, 60'000), 1);
  p.ring_bytes = p.term_bytes = 0;  // a ring that could not be opened
  EXPECT_EQ(fill(45'055, 57'344), 0);
}

TEST_F(AdminTest, ListsTheKeeperAndWhoeverIsAttachedWithWhatItHasRead) {
  create("t", {}, 2);
  const auto keeper_only = admin().list_processes();
  ASSERT_TRUE(keeper_only);
  ASSERT_EQ(keeper_only->size(), 1u);
  EXPECT_EQ(keeper_only->front().role, ProcessRole::keeper);
  EXPECT_EQ(keeper_only->front().pid, static_cast<std::uint32_t>(::getpid()));
  EXPECT_FALSE(keeper_only->front().name.empty());

  Producer p = producer("t");
  ASSERT_TRUE(p.send({.value = "v", .partition = PartitionId(1)}));
  ASSERT_TRUE(p.send({.value = "w", .partition = PartitionId(1)}));
  {
    Consumer c = consumer("t");
    EXPECT_THAT(take(c, 2), ElementsAre("v", "w"));
    ASSERT_TRUE(c.poll(seconds(0)));
    const auto all = admin().list_processes();
    ASSERT_TRUE(all);
    ASSERT_EQ(all->size(), 3u);
    EXPECT_EQ((*all)[1].role, ProcessRole::producer);
    EXPECT_THAT((*all)[1].reads, IsEmpty());
    EXPECT_TRUE((*all)[1].alive);
    EXPECT_EQ((*all)[1].name, keeper_only->front().name);
    EXPECT_GT((*all)[1].started_ns, 0);
    const ProcessDescription& reader = (*all)[2];
    EXPECT_EQ(reader.role, ProcessRole::consumer);
    ASSERT_EQ(reader.reads.size(), 2u);
    EXPECT_EQ(reader.reads[0].partition, (TopicPartition{"t", PartitionId(0)}));
    EXPECT_EQ(reader.reads[0].offset, Offset(0));
    EXPECT_EQ(reader.reads[1].partition, (TopicPartition{"t", PartitionId(1)}));
    EXPECT_EQ(reader.reads[1].offset, Offset(2));
    EXPECT_EQ(reader.reads[1].position, admin().describe_topic("t")->partitions[1].log_end_position);
  }
  EXPECT_EQ(admin().list_processes()->size(), 2u);
}

TEST_F(AdminTest, RefusesWhatMakesNoTopic) {
  create("t");
  EXPECT_EQ(admin().create_topic({.name = "t"}).error().code, Code::already_exists);
  for (const std::string& name :
       {std::string("a/b"), std::string(".."), std::string(""), std::string(300, 'x'), std::string("a b")})
    EXPECT_EQ(admin().create_topic({.name = name}).error().code, Code::invalid_argument) << name;
  EXPECT_EQ(admin().create_topic({.name = "p", .partitions = 0}).error().code, Code::invalid_argument);
  auto unknown = admin().create_topic({.name = "c", .configs = {{"no.such", "1"}}});
  EXPECT_EQ(unknown.error().code, Code::invalid_argument);
  EXPECT_THAT(unknown.error().message, HasSubstr("no.such"));
  EXPECT_EQ(admin().create_topic({.name = "c", .configs = {{"on.full", "overwrite"}}}).error().code,
            Code::invalid_argument)
      << "a disk topic does not overwrite";
  EXPECT_THAT(*admin().list_topics(), ElementsAre("t"));
}

TEST_F(AdminTest, AlteringTakesEffectOnProducersThatRun) {
  create("t", {{"max.message.bytes", "100"}});
  Producer p = producer("t");
  const std::string value(200, 'v');
  EXPECT_EQ(p.send(value).error(), SendError::record_too_large);
  ASSERT_TRUE(admin().alter_topic("t", {{"max.message.bytes", "200"}}));
  EXPECT_TRUE(p.send(value));
  ASSERT_TRUE(admin().alter_topic("t", {{"max.message.bytes", "150"}}));
  EXPECT_EQ(p.send(value).error(), SendError::record_too_large);
  ASSERT_TRUE(admin().alter_topic("t", {{"max.message.bytes", ""}}));
  EXPECT_TRUE(p.send(value));
  EXPECT_THAT(admin().describe_topic("t")->overrides, IsEmpty());
}

TEST_F(AdminTest, AlteringMinInsyncReplicasAndOnFullTakesEffectToo) {
  create("t", small({{"storage", "memory"}}));
  Producer p = producer("t", {.acks = Acks::all});
  Consumer holding = consumer("t");
  EXPECT_TRUE(p.send("v"));
  ASSERT_TRUE(admin().alter_topic("t", {{"min.insync.replicas", "2"}}));
  EXPECT_EQ(p.send("v").error(), SendError::not_enough_replicas);
  ASSERT_TRUE(admin().alter_topic("t", {{"min.insync.replicas", ""}, {"on.full", "fail"}}));
  SendResult<RecordMetadata> last;
  while ((last = p.send(std::string(1'000, 'v')))) {
  }
  EXPECT_EQ(last.error(), SendError::would_block);
}

TEST_F(AdminTest, RefusesToAlterWhatStandsForEver) {
  create("t");
  auto refused = admin().alter_topic("t", {{"term.bytes", "1MiB"}});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::invalid_argument);
  EXPECT_THAT(refused.error().message, HasSubstr("term.bytes"));
  EXPECT_EQ(admin().alter_topic("t", {{"retention.ms", "soon"}}).error().code, Code::invalid_argument);
  EXPECT_EQ(admin().alter_topic("nowhere", {{"retention.ms", "1h"}}).error().code, Code::not_found);
}

TEST_F(AdminTest, DeletesWhileOthersProduceAndConsume) {
  for (const char* storage : {"disk", "memory"}) {
    SCOPED_TRACE(storage);
    create("t", small({{"storage", storage},
                       {"on.full", std::string_view(storage) == "disk" ? "block" : "overwrite"}}));
    Producer p = producer("t");
    Consumer c = consumer("t");
    std::thread producing([&] {
      SendResult<RecordMetadata> sent;
      do sent = p.send("a record among many");
      while (sent);
      EXPECT_EQ(sent.error(), SendError::closed);
    });
    std::thread consuming([&] {
      Result<std::span<const Record>> polled;
      do polled = c.poll(seconds(60));
      while (polled);
      EXPECT_EQ(polled.error().code, Code::closed) << to_string(polled.error());
    });
    while (admin().describe_topic("t")->partitions[0].log_end_offset < Offset(10'000))
      std::this_thread::sleep_for(milliseconds(1));
    ASSERT_TRUE(admin().delete_topic("t"));
    producing.join();
    consuming.join();
    EXPECT_THAT(*admin().list_topics(), IsEmpty());
    EXPECT_EQ(admin().delete_topic("t").error().code, Code::not_found);
  }
}

TEST_F(AdminTest, ADeletedTopicLeavesNothingBehind) {
  const auto count = [this] {
    std::size_t files = 0;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(shm_.path()))
      files += entry.is_regular_file() ? 1 : 0;
    return files;
  };
  const std::size_t before = count();
  create("t", {}, 3);
  EXPECT_EQ(count(), before + 3);
  ASSERT_TRUE(producer("t").send("v"));
  ASSERT_TRUE(admin().delete_topic("t"));
  EXPECT_EQ(count(), before);
  EXPECT_FALSE(std::filesystem::exists(options().dir / "topics" / "t"));
}

// The keeper reads the catalog again without being told of another change.
TEST_F(AdminTest, WhatCouldNotBeReadForAWhileTakesEffectWhenItCanBe) {
  create("t", {{"storage", "memory"}});  // of which no file is missed
  create("other");
  Producer p = producer("t");
  ASSERT_TRUE(p.send("v"));
  const std::filesystem::path file = options().dir / "topics" / "other" / "topic.toml";
  const std::filesystem::path aside = options().dir / "aside";
  std::filesystem::rename(file, aside);
  ASSERT_TRUE(admin().delete_topic("t"));
  EXPECT_TRUE(p.send("v")) << "the keeper does not know of it yet";
  std::filesystem::rename(aside, file);
  SendResult<RecordMetadata> sent;
  for (int i = 0; i < 6'000 && (sent = p.send("v")); ++i) std::this_thread::sleep_for(milliseconds(10));
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error(), SendError::closed);
  EXPECT_TRUE(producer("other").send("v"));
}

TEST_F(AdminTest, TheReferenceKnowsEveryConfigurationThatIsDescribed) {
  create("t");
  std::map<std::string, std::string> reference;
  for (const ConfigReference& config : Admin::config_reference())
    reference[std::string(config.name)] = config.default_value;
  const auto described = admin().describe_topic("t");
  for (const auto& [name, value] : described->configs) EXPECT_THAT(reference, Contains(Key(name)));
  EXPECT_EQ(reference.size(), described->configs.size());
}

TEST_F(AdminTest, InAForkedChildIsClosed) {
  shm::Child child([&](const shm::Line&) {
    EXPECT_EQ(admin().list_topics().error().code, Code::closed);
    EXPECT_EQ(admin().create_topic({.name = "x"}).error().code, Code::closed);
    EXPECT_EQ(admin().delete_topic("x").error().code, Code::closed);
  });
  EXPECT_EQ(child.wait(), 0);
}

}  // namespace
}  // namespace ringtail

// Counters of what has come to a partition, whatever becomes of its log.
#include "monitor/totals.h"

#include <gtest/gtest.h>

namespace ringtail::monitor {
namespace {

class TotalsTest : public ::testing::Test {
 protected:
  // The next snapshot, of one partition whose log ends there.
  PartitionSnapshot look(std::uint64_t records, std::uint64_t topic_id = 7,
                         std::uint64_t ring_bytes = 16000) {
    PartitionSnapshot p;
    p.is.log_end_offset = Offset(records);
    p.is.log_end_position = Position(records * 40);
    p.is.ring_bytes = ring_bytes;
    TopicSnapshot topic;
    topic.name = "orders";
    topic.topic_id = topic_id;
    topic.partitions = {p};
    Snapshot snapshot;
    snapshot.topics = {topic};
    totals_.add(snapshot);
    return snapshot.topics[0].partitions[0];
  }

  Totals totals_;
};

TEST_F(TotalsTest, BeginWithNothingAndGrowWithTheLog) {
  EXPECT_EQ(look(1000).records_total, 0u);
  const PartitionSnapshot later = look(1300);
  EXPECT_EQ(later.records_total, 300u);
  EXPECT_EQ(later.bytes_total, 12'000u);
  EXPECT_EQ(later.is.log_end_offset, Offset(1300));
}

TEST_F(TotalsTest, DoNotFallWhenALogIsCutAndCountWhatComesThen) {
  look(1000);
  const PartitionSnapshot cut = look(900);
  EXPECT_EQ(cut.records_total, 0u);
  EXPECT_EQ(cut.bytes_total, 0u);
  EXPECT_EQ(cut.is.log_end_offset, Offset(900));
  const PartitionSnapshot later = look(950);
  EXPECT_EQ(later.records_total, 50u);
  EXPECT_EQ(later.bytes_total, 2'000u);
}

TEST_F(TotalsTest, ATopicMadeAnewBeginsAnew) {
  look(1000);
  EXPECT_EQ(look(3, 8).records_total, 3u);
  EXPECT_EQ(look(5, 8).records_total, 5u);
}

TEST_F(TotalsTest, PartitionsAreCountedEachByItself) {
  Snapshot none;
  totals_.add(none);
  Snapshot snapshot;
  TopicSnapshot topic;
  topic.topic_id = 7;
  topic.partitions.resize(2);
  for (PartitionSnapshot& p : topic.partitions) p.is.ring_bytes = 16000;
  topic.partitions[0].is.log_end_offset = Offset(10);
  topic.partitions[1].is.partition = PartitionId(1);
  topic.partitions[1].is.log_end_offset = Offset(20);
  snapshot.topics = {topic, topic};
  snapshot.topics[1].topic_id = 8;
  totals_.add(snapshot);
  EXPECT_EQ(snapshot.topics[0].partitions[0].records_total, 10u);
  EXPECT_EQ(snapshot.topics[1].partitions[1].records_total, 20u);
}

// Of a partition without its ring only the durable end is known.
TEST_F(TotalsTest, ARingThatCannotBeOpenedForAMomentCountsNothingTwice) {
  look(1000);
  EXPECT_EQ(look(800, 7, 0).records_total, 0u);
  EXPECT_EQ(look(1010).records_total, 10u);
}

TEST_F(TotalsTest, ATopicThatCouldNotBeReadForAMomentHasNotComeSince) {
  look(1000);
  look(1005);
  Snapshot without;
  without.unreadable_topics = 1;
  totals_.add(without);
  EXPECT_EQ(look(1010).records_total, 10u);
}

TEST_F(TotalsTest, ATopicThatCouldNotBeReadAtFirstHasNotComeSince) {
  Snapshot without;
  without.unreadable_topics = 1;
  totals_.add(without);
  EXPECT_EQ(look(1000).records_total, 0u);
  EXPECT_EQ(look(1010).records_total, 10u);
}

TEST_F(TotalsTest, WhatIsOnlyInARingThatIsOpenedLaterHasNotComeSince) {
  EXPECT_EQ(look(800, 7, 0).records_total, 0u);
  EXPECT_EQ(look(1000).records_total, 0u);
  EXPECT_EQ(look(1010).records_total, 10u);
}

}  // namespace
}  // namespace ringtail::monitor

// Commits of a member whose positions transactions move, too.
#include "unit/client/transaction_test_support.h"

namespace ringtail {
namespace {

class TransactionCommitTest : public TransactionTest {
 protected:
  TransactionCommitTest() {
    create("in", small());
    create("out", small());
    for (const char* value : {"1", "2", "3"}) send("in", value);
  }
  // One that has read all three.
  Consumer reader() {
    Consumer input = member("copiers", "in", {.enable_auto_commit = false});
    poll_until({&input}, [](const Got& g) { return count(g) == 3; });
    return input;
  }
  void commit_in_transaction(Producer& writer, Offset offset, const GroupMetadata& group) {
    const OffsetCommit position[] = {{partition_, offset, {}}};
    expect(writer.begin());
    ASSERT_TRUE(writer.send("v"));
    expect(writer.add_offsets(position, group));
    expect(writer.commit());
  }
  Offset committed(const Consumer& input) { return input.committed(partition_).value().value().offset; }

  const TopicPartition partition_{"in", PartitionId(0)};
};

TEST_F(TransactionCommitTest, ASeekBackIsCommittedThoughATransactionHasMovedThePositionOn) {
  Consumer input = reader();
  Producer writer = transactional("t", "out");
  const OffsetCommit start[] = {{partition_, Offset(0), {}}};
  expect(input.commit_sync(start));
  commit_in_transaction(writer, Offset(3), input.group_metadata());
  ASSERT_EQ(committed(input), Offset(3));
  expect(input.seek(partition_, Offset(0)));
  expect(input.commit_sync());
  EXPECT_EQ(committed(input), Offset(0));
}

TEST_F(TransactionCommitTest, WhatATransactionHasMovedBackIsCommittedAgainThoughNothingWasReadSince) {
  Consumer input = reader();
  Producer writer = transactional("t", "out");
  const GroupMetadata group = input.group_metadata();
  for (int round = 0; round < 2; ++round) {
    SCOPED_TRACE(round);
    expect(input.commit_async());
    ASSERT_EQ(committed(input), Offset(3));
    commit_in_transaction(writer, Offset(2), group);
    ASSERT_EQ(committed(input), Offset(2));
    expect(input.commit_async());
    EXPECT_EQ(committed(input), Offset(3));
  }
}

}  // namespace
}  // namespace ringtail

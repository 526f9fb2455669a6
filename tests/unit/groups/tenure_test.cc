// A position and the right to move it.
#include "groups/tenure.h"

#include <atomic>
#include <memory>
#include <thread>

#include <gtest/gtest.h>

namespace ringtail::groups {
namespace {

constexpr std::uint32_t kMe = 7;
constexpr std::uint32_t kOther = 8;

class TenureTest : public ::testing::Test {
 protected:
  TenureTest() : storage_(std::make_unique<shm::GroupPartition>()) {
    entry().committed.store(shm::kNoOffset);
    entry().tenure.store(0);
  }
  shm::GroupPartition& entry() { return *storage_; }
  // Makes somebody the owner; returns the tenure.
  std::uint64_t grant(std::uint32_t owner) {
    change_owner(entry(), owner);
    return load_standing(entry()).tenure;
  }
  bool commit(std::uint64_t tenure, std::uint64_t offset) {
    std::uint64_t last = load_standing(entry()).committed;
    return move_position(entry(), tenure, last, offset);
  }
  std::string metadata() { return load_metadata(entry(), load_standing(entry())); }

  std::unique_ptr<shm::GroupPartition> storage_;
};

TEST_F(TenureTest, TheOwnerMovesThePosition) {
  const std::uint64_t tenure = grant(kMe);
  std::uint64_t last = shm::kNoOffset;
  EXPECT_TRUE(move_position(entry(), tenure, last, 5));
  EXPECT_EQ(last, 5u);
  EXPECT_TRUE(move_position(entry(), tenure, last, 3));  // backwards, too
  EXPECT_EQ(load_standing(entry()).committed, 3u);
  EXPECT_EQ(load_standing(entry()).owner(), kMe);
}

TEST_F(TenureTest, WhoDoesNotKnowTheLastPositionStillMovesIt) {
  const std::uint64_t tenure = grant(kMe);
  std::uint64_t last = 99;
  EXPECT_TRUE(move_position(entry(), tenure, last, 5));
  EXPECT_EQ(last, 5u);
}

TEST_F(TenureTest, ALateCommitIsRefusedAndChangesNothing) {
  const std::uint64_t mine = grant(kMe);
  ASSERT_TRUE(commit(mine, 5));
  const std::uint64_t others = grant(kOther);
  EXPECT_FALSE(commit(mine, 9));
  EXPECT_EQ(load_standing(entry()), (Standing{5, others}));
  EXPECT_TRUE(commit(others, 6));
}

TEST_F(TenureTest, TheSameOwnerAgainIsAnotherTenure) {
  const std::uint64_t first = grant(kMe);
  change_owner(entry(), 0);
  const std::uint64_t second = grant(kMe);
  EXPECT_NE(first, second);
  EXPECT_FALSE(commit(first, 9));
  EXPECT_TRUE(commit(second, 9));
}

TEST_F(TenureTest, NobodyOwnsWhatWasTakenBack) {
  const std::uint64_t mine = grant(kMe);
  change_owner(entry(), 0);
  EXPECT_EQ(load_standing(entry()).owner(), 0u);
  EXPECT_FALSE(commit(mine, 1));
}

TEST_F(TenureTest, AMoverAndAChangeOfOwnersNeverMixTheirWords) {
  // Each tenure commits offsets whose top half tells it: what is read together belongs together.
  std::uint64_t tenure = grant(kMe);
  std::atomic<bool> stop{false};
  std::thread reader([&] {
    while (!stop.load()) {
      const Standing standing = load_standing(entry());
      const bool none = standing.committed == shm::kNoOffset;
      EXPECT_LE(none ? 0 : standing.committed >> 32, shm::tenure_number(standing.tenure));
    }
  });
  for (int round = 0; round < 20'000; ++round) {
    const std::uint64_t base = shm::tenure_number(tenure) << 32;
    ASSERT_TRUE(commit(tenure, base));
    ASSERT_TRUE(commit(tenure, base + 1));
    const std::uint64_t before = tenure;
    tenure = grant(round % 2 == 0 ? kOther : kMe);
    ASSERT_FALSE(commit(before, base + 2));
    ASSERT_EQ(load_standing(entry()).committed, base + 1);
  }
  stop.store(true);
  reader.join();
}

TEST_F(TenureTest, MetadataGoesWithItsCommit) {
  const std::uint64_t tenure = grant(kMe);
  store_metadata(entry(), tenure, 5, "five");
  EXPECT_EQ(metadata(), "");  // not committed yet
  ASSERT_TRUE(commit(tenure, 5));
  EXPECT_EQ(metadata(), "five");
  ASSERT_TRUE(commit(tenure, 6));
  EXPECT_EQ(metadata(), "");
}

TEST_F(TenureTest, MetadataTornAnywhereIsNone) {
  const std::uint64_t tenure = grant(kMe);
  store_metadata(entry(), tenure, 5, "what was said of five");
  ASSERT_TRUE(commit(tenure, 5));
  ASSERT_EQ(metadata(), "what was said of five");
  shm::OffsetMetadata& copy = entry().metadata[shm::tenure_number(tenure) % 2];
  auto* const bytes = reinterpret_cast<unsigned char*>(&copy);
  // The check, the offset, the tenure, the length and the letters: no byte of them may differ.
  const std::size_t fixed = offsetof(shm::OffsetMetadata, text);
  for (std::size_t i = 0; i < fixed + 16; ++i) {
    bytes[i] ^= 1;
    EXPECT_NE(metadata(), "what was said of five") << "byte " << i;
    bytes[i] ^= 1;
  }
  EXPECT_EQ(metadata(), "what was said of five");
}

TEST_F(TenureTest, MetadataBeingWrittenIsNone) {
  const std::uint64_t tenure = grant(kMe);
  store_metadata(entry(), tenure, 5, "five");
  ASSERT_TRUE(commit(tenure, 5));
  entry().metadata[shm::tenure_number(tenure) % 2].check.store(0);
  EXPECT_EQ(metadata(), "");
}

TEST_F(TenureTest, ALateWriterOfMetadataDoesNotHarmItsSuccessors) {
  const std::uint64_t mine = grant(kMe);
  const std::uint64_t others = grant(kOther);
  store_metadata(entry(), others, 5, "the other's");
  ASSERT_TRUE(commit(others, 5));
  store_metadata(entry(), mine, 5, "too late");
  EXPECT_FALSE(commit(mine, 5));
  EXPECT_EQ(metadata(), "the other's");
}

}  // namespace
}  // namespace ringtail::groups

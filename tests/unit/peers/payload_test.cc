// What the lab's readers check: each way in which a record can be wrong is planted, and must be found.
#include "harness/payload.h"

#include <gtest/gtest.h>

#include <vector>

namespace ringtail::peers {
namespace {

constexpr std::size_t kSize = 256;

class PayloadTest : public testing::Test {
 protected:
  static std::vector<std::byte> record(unsigned producer, std::uint64_t sequence, std::size_t size = kSize) {
    std::vector<std::byte> bytes(size);
    fill_payload(bytes.data(), size, 1'000 + sequence, producer, sequence);
    return bytes;
  }
  void take(unsigned producer, std::uint64_t sequence) { checker_.check(record(producer, sequence)); }

  Checker checker_{kSize};
};

TEST_F(PayloadTest, RecordsInOrderAreGood) {
  for (std::uint64_t n = 0; n < 1'000; ++n) {
    take(0, n);
    take(15, n);
  }
  EXPECT_TRUE(checker_.good());
  EXPECT_EQ(checker_.received(), 2'000U);
}

TEST_F(PayloadTest, CheckReturnsTheSequence) {
  EXPECT_EQ(checker_.check(record(3, 0)), 0U);
  EXPECT_EQ(checker_.check(record(3, 1)), 1U);
}

TEST_F(PayloadTest, EverySizeIsFilledToItsEnd) {
  for (const std::size_t size : {32U, 40U, 64U, 72U, 1024U, 16384U}) {
    Checker checker(size);
    checker.check(record(1, 0, size));
    EXPECT_TRUE(checker.good()) << size;
  }
}

TEST_F(PayloadTest, AMissingRecordIsLost) {
  take(0, 0);
  take(0, 1);
  take(0, 4);
  EXPECT_EQ(checker_.lost(), 2U);
  EXPECT_FALSE(checker_.good());
}

TEST_F(PayloadTest, AMissingBeginningIsLost) {
  take(2, 7);
  EXPECT_EQ(checker_.lost(), 7U);
}

TEST_F(PayloadTest, AMissingEndIsLostOnceItIsKnown) {
  take(0, 0);
  checker_.expect_end(0, 3);
  checker_.expect_end(1, 0);
  EXPECT_EQ(checker_.lost(), 2U);
}

TEST_F(PayloadTest, ARecordThatComesLateIsReorderedAndNotLost) {
  take(0, 0);
  take(0, 2);
  take(0, 3);
  take(0, 1);
  take(0, 4);
  EXPECT_EQ(checker_.reordered(), 1U);
  EXPECT_EQ(checker_.lost(), 0U);
  EXPECT_EQ(checker_.duplicated(), 0U);
}

TEST_F(PayloadTest, AGapThatIsFilledFromItsMiddleIsCountedRight) {
  take(0, 9);
  for (const std::uint64_t sequence : {4U, 0U, 8U, 5U}) take(0, sequence);
  EXPECT_EQ(checker_.reordered(), 4U);
  EXPECT_EQ(checker_.lost(), 5U);
  take(0, 4);
  EXPECT_EQ(checker_.duplicated(), 1U);
}

TEST_F(PayloadTest, ARecordThatComesTwiceIsDuplicated) {
  take(0, 0);
  take(0, 1);
  take(0, 1);
  take(0, 0);
  EXPECT_EQ(checker_.duplicated(), 2U);
  EXPECT_EQ(checker_.lost(), 0U);
}

TEST_F(PayloadTest, ProducersDoNotHideEachOthersGaps) {
  take(0, 0);
  take(1, 0);
  take(1, 1);
  take(0, 2);
  EXPECT_EQ(checker_.lost(), 1U);
}

// A word of each line is looked at: word 2, then the first of each 64 bytes, and the last.
TEST_F(PayloadTest, ADamagedWordIsCorrupt) {
  for (const std::size_t word : {1U, 2U, 8U, 16U, 24U, 31U}) {
    Checker checker(kSize);
    auto bytes = record(0, 0);
    bytes[word * 8 + 3] ^= std::byte{0x10};
    checker.check(bytes);
    EXPECT_EQ(checker.corrupt(), 1U) << "word " << word;
  }
}

TEST_F(PayloadTest, ATornRecordIsCorrupt) {
  auto bytes = record(0, 0);
  const auto next = record(0, 1);
  std::copy(next.begin() + kSize / 2, next.end(), bytes.begin() + kSize / 2);
  checker_.check(bytes);
  EXPECT_EQ(checker_.corrupt(), 1U);
}

TEST_F(PayloadTest, ARecordOfAnotherSizeIsCorrupt) {
  checker_.check(record(0, 0, kSize / 2));
  checker_.check({});
  EXPECT_EQ(checker_.corrupt(), 2U);
}

TEST_F(PayloadTest, AProducerThatCannotBeIsCorrupt) {
  checker_.check(record(kMaxProducers, 0));
  EXPECT_EQ(checker_.corrupt(), 1U);
}

}  // namespace
}  // namespace ringtail::peers

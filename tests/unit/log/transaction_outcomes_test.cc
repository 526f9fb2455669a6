#include "log/transaction_outcomes.h"

#include <gtest/gtest.h>

namespace ringtail::log {
namespace {

using format::MarkerKind;

constexpr format::Extension kFirst{1, 1, 1, 0};
constexpr format::Extension kSecond{1, 1, 2, 0};
constexpr format::Extension kAll{format::kEveryProducer, 0, 0, 0};

TEST(TransactionOutcomes, TellsEachTransactionsOwn) {
  TransactionOutcomes outcomes;
  EXPECT_EQ(outcomes.find(kFirst, Offset(0)), std::nullopt);
  outcomes.add(MarkerKind::commit, kFirst, Offset(5));
  outcomes.add(MarkerKind::abort, kSecond, Offset(6));
  EXPECT_EQ(outcomes.find(kFirst, Offset(0)), Outcome::committed);
  EXPECT_EQ(outcomes.find(kSecond, Offset(0)), Outcome::aborted);
  EXPECT_EQ(outcomes.find({2, 1, 1, 0}, Offset(0)), std::nullopt);
  EXPECT_EQ(outcomes.find({1, 2, 1, 0}, Offset(0)), std::nullopt);
}

TEST(TransactionOutcomes, TheFirstMarkerBehindARecordCounts) {
  TransactionOutcomes outcomes;
  outcomes.add(MarkerKind::commit, kFirst, Offset(5));
  outcomes.add(MarkerKind::abort_all, kAll, Offset(7));
  outcomes.add(MarkerKind::abort, kFirst, Offset(8));
  outcomes.add(MarkerKind::commit, kSecond, Offset(9));
  EXPECT_EQ(outcomes.find(kFirst, Offset(0)), Outcome::committed);
  EXPECT_EQ(outcomes.find(kSecond, Offset(6)), Outcome::aborted);
  EXPECT_EQ(outcomes.find(kSecond, Offset(8)), Outcome::committed);
  EXPECT_EQ(outcomes.find({3, 1, 1, 0}, Offset(8)), std::nullopt);
}

TEST(TransactionOutcomes, ForgetsWhatTheReaderHasPassed) {
  TransactionOutcomes outcomes;
  outcomes.add(MarkerKind::commit, kFirst, Offset(5));
  outcomes.add(MarkerKind::abort_all, kAll, Offset(7));
  outcomes.add(MarkerKind::abort_all, kAll, Offset(9));
  outcomes.forget(MarkerKind::commit, kFirst, Offset(5));
  EXPECT_EQ(outcomes.find(kFirst, Offset(4)), Outcome::aborted);
  EXPECT_EQ(outcomes.size(), 2u);
  outcomes.forget(MarkerKind::abort_all, kAll, Offset(7));
  EXPECT_EQ(outcomes.size(), 1u);
  EXPECT_EQ(outcomes.find(kFirst, Offset(8)), Outcome::aborted);
  outcomes.clear();
  EXPECT_EQ(outcomes.size(), 0u);
}

TEST(TransactionOutcomes, WhatMayHaveStoodInAGapIsLost) {
  TransactionOutcomes outcomes;
  outcomes.add(MarkerKind::commit, kFirst, Offset(5));
  outcomes.add_gap(Offset(100));
  EXPECT_EQ(outcomes.find(kFirst, Offset(0)), Outcome::committed);
  EXPECT_EQ(outcomes.find(kSecond, Offset(99)), Outcome::lost);
  EXPECT_EQ(outcomes.find(kSecond, Offset(100)), std::nullopt);
  outcomes.add(MarkerKind::commit, kSecond, Offset(110));
  EXPECT_EQ(outcomes.find(kSecond, Offset(99)), Outcome::committed);
}

}  // namespace
}  // namespace ringtail::log

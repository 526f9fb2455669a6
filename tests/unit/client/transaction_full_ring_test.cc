// Transactions whose markers find no room for a while: a memory topic's ring is full, and held by a reader.
#include <atomic>
#include <functional>

#include "unit/client/transaction_test_support.h"

namespace ringtail {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// The marker finds no room while the reader stands in front of the transaction.
class TransactionThatFillsARingTest : public TransactionTest {
 protected:
  // Sends until the ring is full, then lets `end` end it beside a reader that sleeps.
  std::vector<std::string> read_beside(const std::function<Status(Producer&)>& end) {
    create("out", {{"storage", "memory"}, {"on.full", "fail"}, {"term.bytes", "64KiB"}, {"ring.terms", "4"}});
    Consumer reader = committed_reader("out");
    EXPECT_TRUE(reader.assign("out"));
    Producer writer = transactional("t", "out");
    expect(writer.begin());
    const std::string value(4000, 'v');
    sent_ = 0;
    while (writer.send(value)) ++sent_;
    EXPECT_GT(sent_, 10u);
    std::vector<std::string> values;
    std::atomic<bool> ended{false};
    std::thread reading([&] {
      while (!ended.load()) {
        auto polled = reader.poll(seconds(1));
        ASSERT_TRUE(polled) << to_string(polled.error());
        for (const Record& record : *polled) values.emplace_back(record.value);
      }
    });
    expect(end(writer));
    ended.store(true);
    reader.wake();
    reading.join();
    for (const std::string& more : drain(reader)) values.push_back(more);
    send("out", "plain");
    EXPECT_THAT(take(reader, 1), ElementsAre("plain"));
    return values;
  }
  std::size_t sent_ = 0;
};

TEST_F(TransactionThatFillsARingTest, CanBeAborted) {
  EXPECT_THAT(read_beside([](Producer& writer) { return writer.abort(); }), IsEmpty());
}

TEST_F(TransactionThatFillsARingTest, CanBeCommitted) {
  EXPECT_EQ(read_beside([](Producer& writer) { return writer.commit(); }).size(), sent_);
}

// Two topics in one transaction: the ring of the first is full as long as its reader sleeps.
class TransactionBesideAFullRingTest : public TransactionTest {
 protected:
  void SetUp() override {
    create("full",
           {{"storage", "memory"}, {"on.full", "fail"}, {"term.bytes", "64KiB"}, {"ring.terms", "4"}});
    create("out", small());
    warm_up("out");
    reader_ = committed_reader("full");
    writer_ = transactional("t", "full", {.max_block = milliseconds(200)});
    auto opened = writer_->for_topic("out");
    ASSERT_TRUE(opened) << to_string(opened.error());
    out_ = std::move(*opened);
  }
  // Begins a transaction that fills the ring.
  void fill() {
    expect(writer_->begin());
    ASSERT_TRUE(out_->send("v"));
    const std::string value(4000, 'v');
    for (sent_ = 0; writer_->send(value);) ++sent_;
    ASSERT_EQ(writer_->send(value).error(), SendError::would_block);
  }
  static void expect_timed_out(const Status& status) {
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, Code::timed_out) << to_string(status.error());
  }

  std::optional<Consumer> reader_;
  std::optional<Producer> writer_;
  std::optional<Producer> out_;
  std::size_t sent_ = 0;
};

TEST_F(TransactionBesideAFullRingTest, TheOtherPartitionsHaveTheirMarkers) {
  Consumer of_out = committed_reader("out");
  ASSERT_NO_FATAL_FAILURE(fill());
  expect_timed_out(writer_->commit());
  EXPECT_THAT(take(of_out, 1), ElementsAre("v"));
  EXPECT_EQ(take(*reader_, sent_).size(), sent_);
}

TEST_F(TransactionBesideAFullRingTest, TheNextTransactionWaitsForTheEndOfTheLast) {
  for (const bool commits : {true, false}) {
    ASSERT_NO_FATAL_FAILURE(fill());
    expect_timed_out(commits ? writer_->commit() : writer_->abort());
    expect_timed_out(writer_->begin());
    EXPECT_EQ(writer_->commit().error().code, Code::invalid_argument);  // nothing was begun
    if (commits) {
      EXPECT_EQ(take(*reader_, sent_).size(), sent_);
    } else {
      EXPECT_THAT(drain(*reader_), IsEmpty());
    }
    Status begun = writer_->begin();
    while (!begun && begun.error().code == Code::timed_out) {
      EXPECT_THAT(drain(*reader_), IsEmpty());
      begun = writer_->begin();
    }
    expect(begun);
    expect(writer_->abort());
  }
}

}  // namespace
}  // namespace ringtail

// Attempts, delays and dead letters.
#include "ringtail/retry.h"

#include <map>
#include <stdexcept>

#include "unit/client/client_test_support.h"

namespace ringtail {
namespace {

using std::chrono::nanoseconds;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Le;
using ::testing::Pair;
using ::testing::SizeIs;

class RetryTest : public ClientTest {
 protected:
  // Delays are noted instead of waited for.
  Retrier open(RetryOptions wanted = {}) {
    wanted.sleep = [this](nanoseconds delay, const std::stop_token& stop) {
      delays_.push_back(std::chrono::duration_cast<milliseconds>(delay));
      if (delays_.size() == stop_in_delay_) stop_.request_stop();
      return !stop.stop_requested();
    };
    wanted.stop = stop_.get_token();
    auto opened = Retrier::open(*log_, std::move(wanted));
    EXPECT_TRUE(opened) << to_string(opened.error());
    return std::move(*opened);
  }
  static RetryOptions without_jitter(std::uint32_t attempts = 5) {
    RetryOptions wanted;
    wanted.policy.max_attempts = attempts;
    wanted.policy.jitter = 0;
    return wanted;
  }
  // Fails so many times, then succeeds.
  Retrier::Process failing(std::size_t times) {
    return [this, times](const Record&) -> Status {
      if (++calls_ > times) return {};
      return fail(Code::timed_out, "the bank does not answer");
    };
  }
  // The next record of `consumer`; valid until its next poll.
  static const Record& next(Consumer& consumer) {
    auto polled = consumer.poll(seconds(60));
    EXPECT_TRUE(polled && polled->size() == 1);
    return polled->front();
  }
  static std::map<std::string, std::string> headers_of(const Record& record) {
    std::map<std::string, std::string> headers;
    for (const Header& header : record.headers) headers.emplace(header.key, header.value);
    return headers;
  }

  std::vector<milliseconds> delays_;
  std::size_t stop_in_delay_ = 0;
  std::stop_source stop_;
  std::size_t calls_ = 0;
};

TEST_F(RetryTest, ARecordThatSucceedsIsProcessedOnce) {
  create("t");
  ASSERT_TRUE(producer("t").send("v"));
  Consumer c = consumer("t");
  const auto done = open().process(next(c), failing(0));
  ASSERT_TRUE(done);
  EXPECT_EQ(done->attempts, 1u);
  EXPECT_FALSE(done->dead_letter);
  EXPECT_FALSE(done->cause);
  EXPECT_EQ(calls_, 1u);
  EXPECT_THAT(delays_, IsEmpty());
}

TEST_F(RetryTest, DelaysGrowUpToTheLongest) {
  create("t");
  ASSERT_TRUE(producer("t").send("v"));
  Consumer c = consumer("t");
  const auto done = open(without_jitter(7)).process(next(c), failing(6));
  ASSERT_TRUE(done);
  EXPECT_EQ(done->attempts, 7u);
  EXPECT_FALSE(done->dead_letter);
  EXPECT_THAT(delays_, ElementsAre(milliseconds(100), milliseconds(200), milliseconds(400), milliseconds(800),
                                   milliseconds(1000), milliseconds(1000)));
}

TEST_F(RetryTest, JitterOnlyShortensDelays) {
  create("t");
  ASSERT_TRUE(producer("t").send("v"));
  Consumer c = consumer("t");
  RetryOptions wanted = without_jitter(100);
  wanted.policy.multiplier = 1;
  wanted.policy.jitter = 0.5;
  ASSERT_TRUE(open(wanted).process(next(c), failing(99)));
  EXPECT_THAT(delays_, AllOf(SizeIs(99), Each(AllOf(Ge(milliseconds(50)), Le(milliseconds(100))))));
  EXPECT_NE(*std::ranges::min_element(delays_), *std::ranges::max_element(delays_));
}

TEST_F(RetryTest, ADelayForEverIsNoneThatHasPassed) {
  create("t");
  ASSERT_TRUE(producer("t").send("v"));
  Consumer c = consumer("t");
  RetryOptions wanted = without_jitter(2);
  wanted.policy.initial_delay = wanted.policy.max_delay = milliseconds::max();
  ASSERT_TRUE(open(wanted).process(next(c), failing(1)));
  EXPECT_THAT(delays_, ElementsAre(Ge(std::chrono::hours(24))));
}

TEST_F(RetryTest, ADeadLetterIsTheRecordWithItsCause) {
  create("t", {}, 3);
  create("t.DLT", {}, 3);
  const std::vector<Header> own = {{"trace", "17"}, {"empty", {}}};
  ASSERT_TRUE(producer("t").send({.key = "alice",
                                  .value = "buy",
                                  .headers = own,
                                  .partition = PartitionId(2),
                                  .timestamp_ns = 123456789}));
  Consumer c = consumer("t");
  RetryOptions wanted = without_jitter(3);
  wanted.group = "billing";
  const auto done = open(wanted).process(next(c), failing(99));
  ASSERT_TRUE(done) << to_string(done.error());
  EXPECT_EQ(done->attempts, 3u);
  ASSERT_TRUE(done->dead_letter);
  EXPECT_EQ(done->dead_letter->partition, PartitionId(2));
  EXPECT_EQ(done->cause->code, Code::timed_out);

  Consumer letters = consumer("t.DLT");
  const Record& letter = next(letters);
  EXPECT_EQ(letter.source->partition, PartitionId(2));
  EXPECT_EQ(letter.offset, done->dead_letter->offset);
  EXPECT_EQ(letter.key, "alice");
  EXPECT_EQ(letter.value, "buy");
  EXPECT_EQ(letter.timestamp_ns, 123456789);
  EXPECT_THAT(headers_of(letter),
              ElementsAre(Pair("empty", ""), Pair("kafka_deliveryAttempt", "3"),
                          Pair("kafka_dlt-exception-fqcn", "timed_out"),
                          Pair("kafka_dlt-exception-message", "the bank does not answer"),
                          Pair("kafka_dlt-original-consumer-group", "billing"),
                          Pair("kafka_dlt-original-offset", "0"), Pair("kafka_dlt-original-partition", "2"),
                          Pair("kafka_dlt-original-timestamp", "123456789"),
                          Pair("kafka_dlt-original-topic", "t"), Pair("trace", "17")));
}

TEST_F(RetryTest, NoKeyAndNoValueStayWhatTheyAre) {
  create("t");
  create("t.DLT");
  ASSERT_TRUE(producer("t").send(ProducerRecord{}));
  Consumer c = consumer("t");
  ASSERT_TRUE(open(without_jitter(1)).process(next(c), failing(99)));
  Consumer letters = consumer("t.DLT");
  const Record& letter = next(letters);
  EXPECT_FALSE(letter.has_key());
  EXPECT_TRUE(letter.is_tombstone());
}

TEST_F(RetryTest, ExceptionsAreFailuresToo) {
  create("t");
  create("t.DLT");
  ASSERT_TRUE(producer("t").send("v"));
  ASSERT_TRUE(producer("t").send("w"));
  Consumer c = consumer("t", {.max_poll_records = 1});
  Retrier retrier = open(without_jitter(2));
  ASSERT_TRUE(
      retrier.process(next(c), [](const Record&) -> Status { throw std::out_of_range("no such bank"); }));
  ASSERT_TRUE(retrier.process(next(c), [](const Record&) -> Status { throw 42; }));
  Consumer letters = consumer("t.DLT", {.max_poll_records = 1});
  auto headers = headers_of(next(letters));
  EXPECT_EQ(headers["kafka_dlt-exception-fqcn"], "std::out_of_range");
  EXPECT_EQ(headers["kafka_dlt-exception-message"], "no such bank");
  EXPECT_EQ(headers_of(next(letters))["kafka_dlt-exception-fqcn"], "unknown");
}

TEST_F(RetryTest, WhatIsNotWorthAnotherAttemptIsSetAsideAtOnce) {
  create("t");
  create("t.DLT");
  ASSERT_TRUE(producer("t").send("v"));
  Consumer c = consumer("t");
  RetryOptions wanted = without_jitter();
  wanted.policy.is_retryable = [](const Error& error) { return error.code != Code::timed_out; };
  const auto done = open(wanted).process(next(c), failing(99));
  ASSERT_TRUE(done);
  EXPECT_EQ(done->attempts, 1u);
  EXPECT_TRUE(done->dead_letter);
  EXPECT_THAT(delays_, IsEmpty());
}

TEST_F(RetryTest, WithoutADeadLetterTopicTheRecordIsNotDealtWith) {
  create("t");
  ASSERT_TRUE(producer("t").send("v"));
  Consumer c = consumer("t");
  const auto done = open(without_jitter(1)).process(next(c), failing(99));
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Code::not_found);
  EXPECT_THAT(done.error().message, AllOf(HasSubstr("t.DLT"), HasSubstr("the bank does not answer")));
}

TEST_F(RetryTest, MakesTheDeadLetterTopicWhenAsked) {
  create("t", {}, 3);
  ASSERT_TRUE(producer("t").send({.value = "v", .partition = PartitionId(1)}));
  Consumer c = consumer("t");
  RetryOptions wanted = without_jitter(1);
  wanted.dead_letter_topic = "graveyard";
  wanted.create_dead_letter_topic = true;
  const auto done = open(wanted).process(next(c), failing(99));
  ASSERT_TRUE(done) << to_string(done.error());
  EXPECT_EQ(done->dead_letter->partition, PartitionId(1));
  EXPECT_EQ(admin().describe_topic("graveyard")->partitions.size(), 3u);
}

TEST_F(RetryTest, WhereTheDeadLetterTopicHasFewerPartitionsTheKeyDecides) {
  create("t", {}, 3);
  create("t.DLT");
  ASSERT_TRUE(producer("t").send({.key = "k", .value = "v", .partition = PartitionId(2)}));
  Consumer c = consumer("t");
  const auto done = open(without_jitter(1)).process(next(c), failing(99));
  ASSERT_TRUE(done) << to_string(done.error());
  EXPECT_EQ(done->dead_letter->partition, PartitionId(0));
}

TEST_F(RetryTest, ADeadLetterTopicMadeAnewIsFoundAgain) {
  create("t");
  create("t.DLT");
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(producer("t").send("v"));
  Consumer c = consumer("t", {.max_poll_records = 1});
  Retrier retrier = open(without_jitter(1));
  ASSERT_TRUE(retrier.process(next(c), failing(99)));
  ASSERT_TRUE(admin().delete_topic("t.DLT"));
  EXPECT_FALSE(retrier.process(next(c), failing(99)));
  create("t.DLT");
  EXPECT_TRUE(retrier.process(next(c), failing(99)));
}

TEST_F(RetryTest, AStopEndsTheDelayAndTheRecordIsNotDealtWith) {
  create("t");
  create("t.DLT");
  ASSERT_TRUE(producer("t").send("v"));
  Consumer c = consumer("t");
  stop_in_delay_ = 2;
  Retrier retrier = open(without_jitter());
  const Record& record = next(c);
  const auto done = retrier.process(record, failing(99));
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Code::closed);
  EXPECT_EQ(calls_, 2u);
  EXPECT_EQ(admin().describe_topic("t.DLT")->partitions[0].log_end_offset, Offset(0));
  // Nor is another begun.
  EXPECT_EQ(retrier.process(record, failing(99)).error().code, Code::closed);
  EXPECT_EQ(calls_, 2u);
}

TEST_F(RetryTest, AStopEndsARealDelay) {
  create("t");
  ASSERT_TRUE(producer("t").send("v"));
  Consumer c = consumer("t");
  RetryOptions wanted = without_jitter();
  wanted.policy.initial_delay = wanted.policy.max_delay = std::chrono::hours(1);
  wanted.stop = stop_.get_token();
  Retrier retrier = Retrier::open(*log_, wanted).value();
  const Record& record = next(c);
  std::jthread stopper([this] {
    std::this_thread::sleep_for(milliseconds(20));
    stop_.request_stop();
  });
  EXPECT_EQ(retrier.process(record, failing(99)).error().code, Code::closed);
}

TEST_F(RetryTest, PoliciesThatAreNoneAreRefused) {
  const auto refused = [&](auto change) {
    RetryOptions wanted;
    change(wanted.policy);
    const auto opened = Retrier::open(*log_, wanted);
    return !opened && opened.error().code == Code::invalid_argument;
  };
  EXPECT_TRUE(refused([](RetryPolicy& p) { p.max_attempts = 0; }));
  EXPECT_TRUE(refused([](RetryPolicy& p) { p.multiplier = 0.5; }));
  EXPECT_TRUE(refused([](RetryPolicy& p) { p.jitter = 1.5; }));
  EXPECT_TRUE(refused([](RetryPolicy& p) { p.jitter = -0.1; }));
  EXPECT_TRUE(refused([](RetryPolicy& p) { p.initial_delay = milliseconds(-1); }));
  EXPECT_TRUE(refused([](RetryPolicy& p) { p.max_delay = milliseconds(1); }));
}

}  // namespace
}  // namespace ringtail

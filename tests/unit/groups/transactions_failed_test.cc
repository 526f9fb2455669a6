// Transactions of a log in which a partition has failed: the others go on, and it is made up for once it is mended.
#include <fstream>

#include "unit/groups/transactions_test_support.h"

namespace ringtail::groups {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// "bad" and "out" have a record each of a transaction, "bad" also one of another, which nobody ends.
class FailedPartitionTest : public TransactionsTest {
 protected:
  void SetUp() override {
    for (const char* topic : {"bad", "out", "in"}) create(topic);
    append_stamped("bad", kDecided, "decided");
    append_stamped("bad", kOpen, "open");
    append_stamped("out", kDecided, "decided");
  }
  static constexpr std::uint64_t kDecided = 0xaa, kOpen = 0xbb;

  void append_stamped(const std::string& topic, std::uint64_t producer_id, const std::string& value) {
    auto slot = sit_as_producer();
    WallClock clock;
    log::Stamp stamp{.producer_id = producer_id, .producer_epoch = 1, .transaction = 1};
    auto appender = log::Appender::open(ref(topic), slot, clock, seconds(30));
    ASSERT_TRUE(appender) << to_string(appender.error());
    appender->set_stamp(&stamp);
    ASSERT_TRUE(appender->append({.value = value}));
  }
  // The decision about the first transaction, and its position in "in".
  void decide() {
    const std::string both =
        fmt::format(R"({{"topic_id":"{}","partition":0}},{{"topic_id":"{}","partition":0}})",
                    to_hex(topic_id("bad")), to_hex(topic_id("out")));
    append({partition("bad"),
            partition("out"),
            {key(1), fmt::format(R"({{"producer_id":"00000000000000aa","epoch":1,"transaction":1,)"
                                 R"("partitions":[{}],"offsets":[{}]}})",
                                 both, position("billing", "in", 5))}});
  }
  std::filesystem::path segment_of_bad() const {
    const auto dir = attachment_->catalog().partition_dir("bad", PartitionId(0));
    for (const auto& file : std::filesystem::directory_iterator(dir))
      if (file.path().extension() == ".log") return file.path();
    return {};
  }
  // For whoever opens it next.
  void damage() {
    stop();  // its records come to the disk
    segment_ = segment_of_bad();
    ASSERT_FALSE(segment_.empty());
    good_.resize(4096);
    ASSERT_TRUE(std::ifstream(segment_, std::ios::binary).read(good_.data(), 4096));
    write_segment(std::string(good_.size(), 'X'));
  }
  void mend() {
    stop();
    write_segment(good_);
  }
  void write_segment(const std::string& bytes) const {
    std::fstream(segment_, std::ios::binary | std::ios::in | std::ios::out) << bytes;
  }
  void expect_failed(const std::string& topic) {
    const auto slot = sit_as_producer();
    const Status refused = enlist(slot, std::to_string(ref(topic).index));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::corrupt) << to_string(refused.error());
  }
  void enlist_in(const std::string& topic) {
    const auto slot = sit_as_producer();
    const Status enlisted = enlist(slot, std::to_string(ref(topic).index));
    ASSERT_TRUE(enlisted) << to_string(enlisted.error());
  }
  // Members, commits and transactions of others.
  void expect_all_else_works() {
    auto seat = join("shipping", "in");
    ASSERT_NO_FATAL_FAILURE(settle({seat.get()}, {1}));
    // As if a transaction had moved it before.
    table().partitions[*entry_of("shipping", topic_id("in"))].transactional.store(1);
    ASSERT_TRUE((*seat)->commit((*seat)->held().front(), Offset(++shipped_)));
    const Status persisted = (*seat)->persist(seconds(30));
    ASSERT_TRUE(persisted) << to_string(persisted.error());
    const auto slot = sit_as_producer();
    const Status taken = take_id(slot, "t");
    ASSERT_TRUE(taken) << to_string(taken.error());
    enlist_in("out");
  }
  std::vector<std::string> committed_values(const std::string& topic) {
    const auto slot = sit_as_producer();
    auto reader =
        log::PartitionReader::open(ref(topic), slot.index(), 1 << 20, IsolationLevel::read_committed).value();
    std::vector<std::string> values;
    std::vector<Record> records(16);
    while (reader->offset() < reader->log_end()->offset) {
      auto polled = reader->poll(records);
      EXPECT_TRUE(polled) << to_string(polled.error());
      if (!polled) break;
      for (const Record& record : std::span(records).first(*polled)) values.emplace_back(record.value);
    }
    return values;
  }
  std::uint64_t noted() { return log_end(std::string(kTransactionsTopic)); }

  std::filesystem::path segment_;
  std::string good_;  // its beginning
  std::uint64_t shipped_ = 0;
};

TEST_F(FailedPartitionTest, HoldsUpNobodyAfterAReboot) {
  decide();
  ASSERT_NO_FATAL_FAILURE(damage());
  ASSERT_NO_FATAL_FAILURE(reboot());
  EXPECT_EQ(committed("billing", "in"), "5");
  EXPECT_THAT(committed_values("out"), ElementsAre("decided"));
  ASSERT_NO_FATAL_FAILURE(expect_all_else_works());
  ASSERT_NO_FATAL_FAILURE(expect_failed("bad"));
}

// Also if that is under a later coordinator: first the decision, then what nobody has decided.
TEST_F(FailedPartitionTest, HasItsMarkersAheadOfNewTransactionsOnceItIsMended) {
  decide();
  ASSERT_NO_FATAL_FAILURE(damage());
  ASSERT_NO_FATAL_FAILURE(reboot());
  ASSERT_NO_FATAL_FAILURE(expect_failed("bad"));
  wait([&] {
    return noted() == 4;
  });  // what is left of the decision, once "out" and the position have come to the disk
  stop();
  start();
  ASSERT_NO_FATAL_FAILURE(expect_failed("bad"));
  ASSERT_NO_FATAL_FAILURE(expect_all_else_works());
  EXPECT_EQ(noted(), 4u);
  mend();
  start();
  ASSERT_NO_FATAL_FAILURE(enlist_in("bad"));
  EXPECT_EQ(log_end("bad"), 4u);
  EXPECT_THAT(committed_values("bad"), ElementsAre("decided"));
  wait([&] { return noted() == 5; });  // complete
  ASSERT_NO_FATAL_FAILURE(enlist_in("bad"));
  EXPECT_EQ(log_end("bad"), 4u);  // each once
}

// Long after all else of it was done, when the group may be gone or elsewhere.
TEST_F(FailedPartitionTest, DoesNotKeepTheDecisionsPositions) {
  decide();
  ASSERT_NO_FATAL_FAILURE(damage());
  ASSERT_NO_FATAL_FAILURE(reboot());
  ASSERT_NO_FATAL_FAILURE(wait([&] { return noted() == 4; }));
  ASSERT_TRUE(ask(shm::GroupRequest::remove, "billing"));
  ASSERT_NO_FATAL_FAILURE(reboot());
  EXPECT_EQ(committed("billing", "in"), "none");
  ASSERT_NO_FATAL_FAILURE(expect_failed("bad"));
  mend();
  start();
  ASSERT_NO_FATAL_FAILURE(enlist_in("bad"));
  EXPECT_THAT(committed_values("bad"), ElementsAre("decided"));
  EXPECT_EQ(log_end("out"), 4u);  // of the rest it has no marker again but the one of every reboot
}

TEST_F(FailedPartitionTest, HoldsNoDecisionOpenOnceItIsDeleted) {
  decide();
  ASSERT_NO_FATAL_FAILURE(damage());
  ASSERT_NO_FATAL_FAILURE(reboot());
  ASSERT_NO_FATAL_FAILURE(wait([&] { return noted() == 4; }));
  ASSERT_TRUE(attachment_->catalog().delete_topic("bad"));
  ASSERT_TRUE(attachment_->apply_catalog());
  wait([&] { return noted() == 5; });
}

// With a decision of this boot, whose markers are in the ring.
TEST_F(FailedPartitionTest, HoldsUpNobodyAfterAKeepersTakeoverButItsDecision) {
  ASSERT_NO_FATAL_FAILURE(enlist_in("bad"));
  ASSERT_NO_FATAL_FAILURE(enlist_in("out"));
  decide();  // notes both partitions once more
  ASSERT_EQ(noted(), 5u);
  ASSERT_NO_FATAL_FAILURE(damage());
  start();
  stop_coordinator();
  ref("bad").entry().durable_position.store(0);  // as if records of it were in the ring only
  start_coordinator();
  ASSERT_NO_FATAL_FAILURE(expect_all_else_works());
  EXPECT_EQ(noted(), 5u);
  mend();
  start();
  wait([&] { return noted() == 6; });
}

}  // namespace
}  // namespace ringtail::groups

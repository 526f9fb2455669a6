// Readers of either isolation level against a model: transactions that commit, abort and stay open,
// among plain records, through small terms, rings and segments.
#include <random>

#include "log/verify.h"
#include "unit/log/transaction_test_support.h"

namespace ringtail::log {
namespace {

using format::MarkerKind;

constexpr std::uint64_t kAll = ~std::uint64_t{0};

enum class Fate { open, committed, aborted };

class RandomTransactions : public TransactionScene {
 protected:
  struct Written {
    Offset offset;
    std::uint64_t number;                // its value is value_of(number)
    std::optional<std::size_t> of = {};  // index in fates_
  };

  std::uint64_t pick(std::uint64_t n) {
    return std::uniform_int_distribution<std::uint64_t>(0, n - 1)(random_);
  }

  void begin_cast() {
    for (std::uint64_t id = 1; id <= 3; ++id) transactors_.push_back(new_transactor(id));
    under_way_.resize(transactors_.size());
    plain_ = new_producer();
  }

  void write(Appender& to, std::optional<std::size_t> of) {
    const std::uint64_t number = next_number_++;
    const std::string value = value_of(number);
    SendResult<RecordMetadata> sent;
    if (pick(10) == 0) {
      auto claim = to.claim({}, value.size());
      ASSERT_TRUE(claim);
      std::memcpy(claim->value, value.data(), value.size());
      if (pick(3) == 0) return to.abort(*claim);
      sent = to.commit(*claim);
    } else if (pick(10) == 0) {
      const std::string second = value_of(next_number_);
      const std::vector<ProducerRecord> batch{{.value = value}, {.key = "key", .value = second}};
      sent = to.append_batch(batch);
      ASSERT_TRUE(sent);
      written_.push_back({Offset(sent->offset.value() - 1), number, of});
      written_.push_back({sent->offset, next_number_++, of});
      return;
    } else {
      sent = to.append({.value = value});
    }
    ASSERT_TRUE(sent);
    written_.push_back({sent->offset, number, of});
  }

  void step() {
    const std::uint64_t who = pick(transactors_.size() + 2);
    if (who >= transactors_.size()) return write(*plain_->appender, std::nullopt);
    Transactor& transactor = *transactors_[who];
    if (!transactor.open) {
      begin(transactor);
      under_way_[who] = fates_.size();
      fates_.push_back(Fate::open);
    }
    if (pick(5) != 0) return write(*transactor.producer->appender, under_way_[who]);
    const bool commits = pick(2) == 0;
    end(transactor, commits ? MarkerKind::commit : MarkerKind::abort);
    fates_[under_way_[who]] = commits ? Fate::committed : Fate::aborted;
  }
  void end_everything() {
    abort_all();
    for (std::size_t i = 0; i < transactors_.size(); ++i) {
      if (transactors_[i]->open) fates_[under_way_[i]] = Fate::aborted;
      transactors_[i]->open = false;
    }
  }
  void steps_while_turning(std::uint64_t count) {
    std::atomic<bool> done{false};
    std::thread writing([&] {
      for (std::uint64_t i = 0; i < count; ++i) step();
      if (pick(8) == 0) end_everything();
      done.store(true);
    });
    turn_until([&] { return done.load(); });
    writing.join();
  }

  // What a reader of that level should have read from `from` on, and where it stands then.
  struct Expected {
    std::vector<Written> records;
    Offset end;
  };
  Expected expect_from(Offset from, bool committed) {
    Expected expected{{}, open_ring().claimed_end().offset};
    for (const Written& written : written_) {
      if (written.offset < from) continue;
      const Fate fate = committed && written.of ? fates_[*written.of] : Fate::committed;
      if (fate == Fate::open) {
        expected.end = written.offset;
        break;
      }
      if (fate == Fate::committed) expected.records.push_back(written);
    }
    return expected;
  }

  // Reads at most `polls` polls, or all there is.
  void read(PartitionReader& reader, bool committed, std::uint64_t polls = kAll) {
    const bool to_the_end = polls == kAll;
    const Expected expected = expect_from(reader.offset(), committed);
    std::vector<Record> records(1 + pick(40));
    auto next = expected.records.begin();
    while (reader.offset() < expected.end && polls-- > 0) {
      auto polled = reader.poll(records);
      ASSERT_TRUE(polled) << polled.error().message;
      if (*polled == 0) turn();
      for (const Record& record : std::span(records).first(*polled)) {
        ASSERT_NE(next, expected.records.end()) << "offset " << record.offset.value() << " is not to be seen";
        ASSERT_EQ(record.offset, next->offset);
        ASSERT_EQ(record.value, value_of(next->number));
        ++next;
      }
    }
    if (!to_the_end) return;
    ASSERT_EQ(next, expected.records.end());
    ASSERT_EQ(reader.poll(records).value(), 0u);
    ASSERT_EQ(reader.offset(), expected.end);
  }

  // One of each level that started at the same place, somewhere.
  void read_from_anywhere() {
    auto committed = new_committed_reader();
    auto uncommitted = new_reader();
    const Offset end = committed->log_end()->offset;
    const Offset from(pick(end.value() + 1));
    ASSERT_TRUE(committed->seek(from));
    ASSERT_TRUE(uncommitted->seek(from));
    ASSERT_EQ(uncommitted->last_stable_offset().value(), expect_from(from, true).end);
    ASSERT_NO_FATAL_FAILURE(read(*committed, true));
    ASSERT_NO_FATAL_FAILURE(read(*uncommitted, false));
  }

  void run() {
    const std::uint64_t seed = shm::print_seed();
    random_.seed(seed);
    config_.segment_bytes = 256 << 10;
    open_keeper();
    begin_cast();
    auto committed = new_committed_reader();
    auto uncommitted = new_reader();
    for (int round = 0; round < 120; ++round) {
      SCOPED_TRACE(round);
      steps_while_turning(1 + pick(80));
      if (round % 30 == 29) {
        const std::uint64_t before = generation();
        keeper_->on_slot_stuck(plain_->slot.index(), 0);
        turn_until([&] { return generation() > before; });
      }
      // Some rounds they stand still, or read only a little, and so fall behind the ring.
      const std::uint64_t mood = pick(4);
      if (mood == 0) continue;
      const std::uint64_t polls = mood == 1 ? pick(4) : kAll;
      ASSERT_NO_FATAL_FAILURE(read(*committed, true, polls));
      ASSERT_NO_FATAL_FAILURE(read(*uncommitted, false, polls));
      if (round % 4 == 0) {
        ASSERT_NO_FATAL_FAILURE(read_from_anywhere());
      }
    }
    steps_while_turning(1);
    end_everything();
    ASSERT_NO_FATAL_FAILURE(read(*committed, true));
    ASSERT_NO_FATAL_FAILURE(read(*uncommitted, false));
    EXPECT_EQ(committed->missed(), 0u);
    EXPECT_GT(list_segments(ref_.disk_dir).value().logs.size(), 1u);
    turn_until_durable(open_ring().claimed_end().offset);
    const auto verified = verify_partition(ref_.disk_dir);
    ASSERT_TRUE(verified) << verified.error().message;
    EXPECT_TRUE(verified->faults.empty()) << verified->faults.front().message;
    EXPECT_EQ(verified->total().records, written_.size());
    EXPECT_GT(verified->total().markers, 0u);
    std::printf("%zu records, %zu transactions, %llu rings\n", written_.size(), fates_.size(),
                static_cast<unsigned long long>(generation()));
  }

  std::mt19937_64 random_;
  std::vector<std::unique_ptr<Transactor>> transactors_;
  std::vector<std::size_t> under_way_;  // of each transactor: index in fates_
  std::unique_ptr<Producer> plain_;
  std::vector<Written> written_;
  std::vector<Fate> fates_;
};

TEST_F(RandomTransactions, ReadersSeeWhatTheModelSays) { run(); }

TEST_F(RandomTransactions, ReadersWhoMustNotPinForLongSeeWhatTheModelSays) {
  config_.reader_pin_ms = 1;
  run();
}

}  // namespace
}  // namespace ringtail::log

// Compaction of logs with transactions: what readers of committed records see stays the same.
#include <random>

#include "base/clock.h"
#include "compaction_test_support.h"

namespace ringtail::log {
namespace {

using format::MarkerKind;

class CompactedTransactions : public CompactionTest {
 protected:
  using Values = std::map<std::string, std::string>;

  format::Extension new_transaction() { return {7, 1, ++last_transaction_, 0}; }
  void end(MarkerKind kind, const format::Extension& of) {
    model_.add(kind, of, ring_.next_offset());
    ring_.add_marker(1000 + static_cast<std::int64_t>(appended_.size()), kind, of);
  }
  void abort_all() { end(MarkerKind::abort_all, {format::kEveryProducer, 0, 0, 0}); }

  // What becomes of a record by the markers before `limit`.
  std::optional<Outcome> fate(const KeyedRecord& record, const TransactionOutcomes& markers) const {
    if (record.of.transaction == 0) return Outcome::committed;
    return markers.find(record.of, record.offset);
  }
  // The last value of each key to a reader of committed records, who stops at the first that is open.
  Values committed_values(const std::vector<KeyedRecord>& records, const TransactionOutcomes& markers) const {
    Values values;
    for (const KeyedRecord& record : records) {
      const auto outcome = fate(record, markers);
      if (!outcome) break;
      if (*outcome != Outcome::committed || !record.key) continue;
      if (record.value) {
        values[*record.key] = *record.value;
      } else {
        values.erase(*record.key);
      }
    }
    return values;
  }
  void expect_same_to_readers(Offset from) {
    std::vector<KeyedRecord> all = appended_;
    std::erase_if(all, [&](const KeyedRecord& record) { return record.offset < from; });
    const auto left = read_all(from);
    ASSERT_TRUE(committed_values(left, markers_) == committed_values(all, model_)) << from.value();
  }

  // What the last round was to leave, tombstones and all.
  std::vector<KeyedRecord> left_by_round() const {
    std::map<std::string, Offset> last;
    const auto counts = [&](const KeyedRecord& record) {
      return record.offset < outcome_.first_dirty && fate(record, model_) == Outcome::committed;
    };
    for (const KeyedRecord& record : appended_)
      if (record.key && counts(record)) last[*record.key] = record.offset;
    std::vector<KeyedRecord> records;
    for (const KeyedRecord& record : appended_) {
      const bool settled = record.offset < outcome_.first_dirty;
      if (settled && !counts(record)) continue;
      if (settled && record.key && last.at(*record.key) != record.offset) continue;
      records.push_back(record);
    }
    return records;
  }
  std::uint64_t markers_left() const { return verify_partition(dir())->total().markers; }
  bool has_key(const std::string& key) {
    return std::ranges::count(read_all(), std::optional(key), &KeyedRecord::key) > 0;
  }
  // Another segment, a round, and then a second.
  void pass_a_second() {
    fill_segment();
    compact_now();
    now_ns_ += 1'100'000'000;
  }

  TransactionOutcomes model_;

 private:
  std::uint32_t last_transaction_ = 0;
};

TEST_F(CompactedTransactions, CommittedRecordsCountAndAbortedOnesGo) {
  open_writer(ring_);
  const auto committed = new_transaction();
  const auto aborted = new_transaction();
  append("k", "plain");
  append("k", "committed", committed);
  append("k", "aborted", aborted);
  append("dead", "plain");
  append("dead", std::nullopt, committed);
  append("alive", "plain");
  append("alive", std::nullopt, aborted);
  append(std::nullopt, "committed", committed);
  append(std::nullopt, "aborted", aborted);
  end(MarkerKind::abort, aborted);
  end(MarkerKind::commit, committed);
  fill_segment();
  compact_now();
  EXPECT_EQ(read_all(), left_by_round());
  const auto left = read_all();
  EXPECT_EQ(std::ranges::count(left, aborted, &KeyedRecord::of), 0);
  EXPECT_EQ(std::ranges::count(left, committed, &KeyedRecord::of), 3);
  EXPECT_EQ(committed_values(left, markers_).at("k"), "committed");
  EXPECT_EQ(committed_values(left, markers_).at("alive"), "plain");
  expect_sound();
}

TEST_F(CompactedTransactions, ARoundEndsAtTheFirstThatIsOpen) {
  open_writer(ring_);
  append("a", "1");
  append("a", "2");
  const auto open = new_transaction();
  const Offset first_open = ring_.next_offset();
  append("b", "of a transaction", open);
  append("a", "3");
  fill_segment();
  compact_now();
  EXPECT_EQ(outcome_.first_dirty, first_open);
  EXPECT_EQ(read_all(), left_by_round());

  fill_segment();
  const auto before = read_all();
  compact_now();
  EXPECT_EQ(outcome_.first_dirty, first_open);
  EXPECT_EQ(outcome_.records.before, 0u) << "there is nothing that it could do";
  EXPECT_EQ(read_all(), before);

  // A marker in the segment that is still written does not decide yet.
  end(MarkerKind::commit, open);
  compact_now();
  EXPECT_EQ(outcome_.first_dirty, first_open);
  fill_segment();
  compact_now();
  EXPECT_GT(outcome_.first_dirty, first_open);
  EXPECT_EQ(read_all(), left_by_round());
  expect_same_to_readers(Offset(0));
  expect_sound();
}

TEST_F(CompactedTransactions, AMarkerOutlivesItsRecordsAndThenGoes) {
  open_writer(ring_);
  const auto committed = new_transaction();
  append("k", "committed", committed);
  end(MarkerKind::commit, committed);
  const auto aborted = new_transaction();
  append("k", "aborted", aborted);
  end(MarkerKind::abort, aborted);
  pass_a_second();
  EXPECT_EQ(markers_left(), 2u);
  pass_a_second();
  EXPECT_EQ(markers_left(), 1u) << "nobody has met the aborted record for delete.retention.ms";
  pass_a_second();
  EXPECT_EQ(markers_left(), 1u) << "a record that it commits is there";
  EXPECT_EQ(committed_values(read_all(), markers_).at("k"), "committed");

  append("k", "superseded");
  pass_a_second();
  EXPECT_EQ(markers_left(), 1u) << "its record has only just gone";
  pass_a_second();
  EXPECT_EQ(markers_left(), 0u);
  EXPECT_EQ(committed_values(read_all(), markers_).at("k"), "superseded");
  expect_sound();
}

TEST_F(CompactedTransactions, ATombstoneOfATransactionGoesInTheEnd) {
  open_writer(ring_);
  append("dead", "plain");
  const auto committed = new_transaction();
  append("dead", std::nullopt, committed);
  end(MarkerKind::commit, committed);
  pass_a_second();
  EXPECT_TRUE(has_key("dead"));
  pass_a_second();
  EXPECT_FALSE(has_key("dead"));
  EXPECT_EQ(markers_left(), 1u);
  pass_a_second();
  EXPECT_EQ(markers_left(), 0u);
}

TEST_F(CompactedTransactions, AbortAllEndsWhatIsOpenAndStays) {
  open_writer(ring_);
  append("k", "plain");
  append("k", "left open", new_transaction());
  append(std::nullopt, "left open", new_transaction());
  abort_all();
  for (int i = 0; i < 4; ++i) pass_a_second();
  EXPECT_EQ(outcome_.first_dirty, writer_->segments().back().base_offset);
  EXPECT_EQ(markers_left(), 1u);
  EXPECT_EQ(committed_values(read_all(), markers_).at("k"), "plain");
  EXPECT_EQ(read_all(), left_by_round());
}

// --- Against a model -----------------------------------------------------------------------------

class RandomCompactedTransactions : public CompactedTransactions {
 protected:
  void run() {
    const auto seed = static_cast<unsigned>(wall_clock_ns());
    std::printf("seed %u\n", seed);
    random_.seed(seed);
    open_writer(ring_);
    for (int round = 0; round < 12; ++round) {
      const unsigned keys = 1 + pick(300);
      for (unsigned i = 100 + pick(1'200); i > 0; --i) step(keys);
      if (pick(4) == 0) reopen();
      flush(ring_);
      compact_all();
      if (HasFatalFailure()) return;
      check_what_is_left();
      now_ns_ += 700'000'000;
    }
  }

  unsigned pick(unsigned n) { return static_cast<unsigned>(random_() % n); }
  void step(unsigned keys) {
    const unsigned what = pick(100);
    if (what < 2 && open_.size() < 5) open_.push_back(new_transaction());
    if (what >= 2 && what < 4 && !open_.empty()) {
      const auto ended = open_.begin() + pick(static_cast<unsigned>(open_.size()));
      end(pick(2) == 0 ? MarkerKind::commit : MarkerKind::abort, *ended);
      open_.erase(ended);
    }
    if (what == 4 && pick(20) == 0) abort_all(), open_.clear();
    const bool plain = open_.empty() || pick(3) == 0;
    const format::Extension of =
        plain ? format::Extension{} : open_[pick(static_cast<unsigned>(open_.size()))];
    auto key = pick(20) == 0 ? std::nullopt : std::optional("k" + std::to_string(pick(keys)));
    const bool tombstone = key && pick(8) == 0;
    append(std::move(key),
           tombstone
               ? std::nullopt
               : std::optional(std::to_string(ring_.next_offset().value()) + std::string(pick(3'000), 'x')),
           of);
  }
  void compact_all() {
    const std::size_t max_keys = pick(3) == 0 ? 20 + pick(300) : 1'000'000;
    for (auto job = plan(); job; job = plan()) {
      job->max_keys = max_keys;
      const CompactionOutcome outcome = compact(*backend_, *job);
      ASSERT_FALSE(outcome.failure) << outcome.failure->message;
      finish(*job, outcome);
      expect_sound();
      expect_same_to_readers(Offset(0));
      for (int i = 0; i < 3; ++i) expect_same_to_readers(Offset(random_() % ring_.next_offset().value()));
      if (HasFatalFailure() || outcome.first_dirty == job->first_dirty) return;
    }
  }
  virtual void check_what_is_left() {}

  std::mt19937 random_;
  std::vector<format::Extension> open_;
};

TEST_F(RandomCompactedTransactions, ReadersSeeTheLastCommittedValues) {
  run();
  abort_all();
  fill_segment();
  compact_all();
  EXPECT_LT(read_all().size(), appended_.size());
}

class RandomLastingTombstones : public RandomCompactedTransactions {
 protected:
  void check_what_is_left() override { EXPECT_TRUE(read_all() == left_by_round()); }
};

TEST_F(RandomLastingTombstones, RoundsLeaveWhatTheModelSays) {
  config_.delete_retention_ms = 1'000'000;
  run();
}

}  // namespace
}  // namespace ringtail::log

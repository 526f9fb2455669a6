// Readers of committed records while the files they read are compacted: they and their scouts fall back from
// the ring to files, of which frames have moved or gone.
#include <random>

#include "base/clock.h"
#include "log/verify.h"
#include "unit/log/transaction_test_support.h"

namespace ringtail::log {
namespace {

using format::MarkerKind;

class CompactedIsolation : public TransactionScene {
 protected:
  using Values = std::map<std::string, std::string>;
  struct Written {
    Offset offset{0};
    std::string key;
    std::string value;
    std::optional<std::size_t> of;  // index in committed_
  };
  struct Follower {
    std::unique_ptr<PartitionReader> reader;
    Offset from{0};
    Values seen;
    std::uint64_t records = 0;
    Offset last{0};
  };

  unsigned pick(unsigned n) { return static_cast<unsigned>(random_() % n); }

  void begin_cast() {
    for (std::uint64_t id = 1; id <= 3; ++id) transactors_.push_back(new_transactor(id));
    under_way_.resize(transactors_.size());
    plain_ = new_producer();
  }
  void write(Appender& to, unsigned keys, std::optional<std::size_t> of) {
    Written written{
        .key = "k" + std::to_string(pick(keys)), .value = std::to_string(written_.size()), .of = of};
    written.value.append(pick(5'000), 'v');
    const auto sent = to.append({.key = written.key, .value = written.value});
    ASSERT_TRUE(sent) << static_cast<int>(sent.error());
    written.offset = sent->offset;
    written_.push_back(std::move(written));
  }
  void finish(std::size_t who) {
    committed_[under_way_[who]] = pick(2) == 0;
    end(*transactors_[who], committed_[under_way_[who]] ? MarkerKind::commit : MarkerKind::abort);
  }
  void step(unsigned keys) {
    const unsigned who = pick(5);
    if (who >= transactors_.size()) return write(*plain_->appender, keys, std::nullopt);
    Transactor& transactor = *transactors_[who];
    if (!transactor.open) {
      begin(transactor);
      under_way_[who] = committed_.size();
      committed_.push_back(false);
    }
    write(*transactor.producer->appender, keys, under_way_[who]);
    if (pick(8) == 0) finish(who);
  }
  // What is open at the end of a round stays so over a few, but no longer.
  void append_round(int count, unsigned keys) {
    std::atomic<bool> done{false};
    std::thread appending([&] {
      for (int i = 0; i < count; ++i) step(keys);
      for (std::size_t who = 0; who < transactors_.size(); ++who)
        if (transactors_[who]->open && pick(3) != 0) finish(who);
      done.store(true);
    });
    turn_until([&] { return done.load(); });
    appending.join();
  }
  void finish_all() {
    for (std::size_t who = 0; who < transactors_.size(); ++who)
      if (transactors_[who]->open) finish(who);
    turn_until_durable(open_ring().claimed_end().offset);
  }

  bool is_committed(const Written& written) const { return !written.of || committed_[*written.of]; }
  Values committed_from(Offset from) const {
    Values values;
    for (const Written& written : written_)
      if (written.offset >= from && is_committed(written)) values[written.key] = written.value;
    return values;
  }

  // Some records; false when there are none.
  bool follow(Follower& follower, std::size_t count) {
    std::vector<Record> records(count);
    auto polled = follower.reader->poll(records);
    EXPECT_TRUE(polled) << polled.error().message;
    if (!polled || *polled == 0) return false;
    for (const Record& record : std::span(records).first(*polled)) {
      EXPECT_TRUE(follower.records == 0 || record.offset > follower.last) << "a record came twice";
      const auto written = std::ranges::lower_bound(written_, record.offset, {}, &Written::offset);
      EXPECT_TRUE(written != written_.end() && written->offset == record.offset && is_committed(*written))
          << "offset " << record.offset.value() << " is not to be seen";
      follower.seen[std::string(record.key)] = std::string(record.value);
      follower.last = record.offset;
      ++follower.records;
    }
    return true;
  }
  void follow_to_the_end(Follower& follower) {
    const Offset end = open_ring().claimed_end().offset;
    while (follower.reader->offset() < end && !HasFailure()) {
      if (!follow(follower, 1 + pick(64))) turn();
    }
    EXPECT_TRUE(follower.seen == committed_from(follower.from)) << "from " << follower.from.value();
  }
  Follower new_follower(Offset from = Offset(0)) {
    Follower follower{.reader = new_committed_reader(), .from = from, .seen = {}};
    EXPECT_TRUE(follower.reader->seek(from));
    return follower;
  }

  std::mt19937 random_;
  std::vector<std::unique_ptr<Transactor>> transactors_;
  std::vector<std::size_t> under_way_;  // of each transactor: index in committed_
  std::unique_ptr<Producer> plain_;
  std::vector<Written> written_;
  std::vector<bool> committed_;
};

TEST_F(CompactedIsolation, FollowersSeeTheLastCommittedOfEachKeyWhateverIsCompactedMeanwhile) {
  const auto seed = static_cast<unsigned>(wall_clock_ns());
  std::printf("seed %u\n", seed);
  random_.seed(seed);
  config_.cleanup_policy = CleanupPolicy::compact;
  config_.min_cleanable_dirty_billionths = 0;
  config_.segment_ms = 40;  // so that files are compacted of which the ring still has a part
  open_keeper();
  begin_cast();
  std::vector<Follower> followers;
  for (int i = 0; i < 4; ++i) followers.push_back(new_follower());
  for (int round = 0; round < 8; ++round) {
    append_round(300, pick(2) == 0 ? 30 : 1'000);
    const std::int64_t until_ns = monotonic_ns() + 400'000'000;
    while (monotonic_ns() < until_ns && !HasFailure()) {
      turn();
      for (std::size_t i = 0; i < followers.size(); ++i)
        if (pick(static_cast<unsigned>(i * i * 20 + 1)) == 0) follow(followers[i], 1 + pick(20));
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    if (HasFailure()) return;
  }
  finish_all();
  turn_until([&] { return verify_partition(ref_.disk_dir)->total().records < written_.size(); });
  for (Follower& follower : followers) follow_to_the_end(follower);
  for (int i = 0; i < 10; ++i) {
    Follower late = new_follower(Offset(i == 0 ? 0 : random_() % written_.back().offset.value()));
    follow_to_the_end(late);
  }
  const auto verified = verify_partition(ref_.disk_dir);
  ASSERT_TRUE(verified);
  for (const VerifyFault& fault : verified->faults) ADD_FAILURE() << fault.path << ": " << fault.message;
}

}  // namespace
}  // namespace ringtail::log

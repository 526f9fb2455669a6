// A partition on a disk with faults by chance, from a seed: writes that fail, are torn or cut short, syncs that fail,
// no space, slow completions; and the power goes. What was said to be durable is there, whatever happens, and the
// partition says why it stops.
//
// RINGTAIL_SEED repeats a run; RINGTAIL_DISK_ROUNDS makes it longer.
#include <unistd.h>

#include <random>

#include "log/verify.h"
#include "support/crash_process.h"
#include "support/unreliable_backend.h"
#include "unit/log/compaction_test_support.h"
#include "unit/log/partition_test_support.h"

namespace ringtail::log {
namespace {

using testing::FaultRates;
using testing::UnreliableBackend;

class UnreliableDisk : public PartitionScene {
 protected:
  UnreliableDisk() : random_(test::print_seed()) {
    auto disk = std::make_unique<UnreliableBackend>(std::move(backend_), random_());
    disk_ = disk.get();
    backend_ = std::move(disk);
  }
  ~UnreliableDisk() override { kill_keeper(); }

  FaultRates some_rates() {
    FaultRates rates{.slow = 100, .sector = random_() % 2 == 0 ? 512u : 4096u};
    switch (random_() % 6) {
      case 0: rates.write_error = 150; break;
      case 1: rates.short_write = 300; break;
      case 2: rates.sync_error = 150; break;
      case 3: rates.write_error = rates.sync_error = rates.short_write = 60; break;
      case 4: rates.no_space = 500; break;
      default: break;
    }
    return rates;
  }

  // Appends and has it flushed until a fault stops the partition, or for a while.
  void work() {
    auto producer = new_producer(std::chrono::milliseconds(0));
    std::uint64_t left = 20 + random_() % 600;
    for (int turns = 0; turns < 3'000 && !failed(); ++turns) {
      if (turns % 8 == 0) ::usleep(100);  // for the next sync to be due
      for (std::uint64_t burst = random_() % 4; burst > 0 && left > 0; --burst) {
        const auto sent =
            (*producer)->append({.value = value_of(next_number_), .timestamp_ns = time_of(next_number_)});
        if (!sent) break;  // no room, or the partition has failed
        numbers_.emplace_back(sent->offset, next_number_++);
        --left;
      }
      turn();
      durable_ = std::max(durable_, entry().durable_offset.load());
      if (left == 0 && durable_ == next_offset()) return;
    }
  }
  std::uint64_t next_offset() const { return numbers_.empty() ? 0 : numbers_.back().first.value() + 1; }

  void cut_power() {
    reap_and_dispatch(*backend_, false);
    std::filesystem::remove(ring_path(dir_.path(), ref_.topic, ref_.partition));
    const auto retired = retired_rings(dir_.path(), ref_.topic, ref_.partition).value();
    for (const auto& path : retired) std::filesystem::remove(path);
    disk_->lose_unsynced();
  }
  // What a log that was recovered from the files has is what counts.
  void expect_promises_kept(bool lost_memory) {
    open_keeper();
    ASSERT_FALSE(failed()) << reinterpret_cast<const char*>(entry().failure_text.data());
    const std::uint64_t end = open_ring().claimed_end().offset.value();
    if (!lost_memory) {
      ASSERT_EQ(end, next_offset());
    }
    ASSERT_GE(end, durable_) << "durable records are gone";
    ASSERT_LE(end, next_offset()) << "records that nobody sent are there";
    std::erase_if(numbers_, [&](const auto& number) { return number.first.value() >= end; });
    next_number_ = numbers_.empty() ? 0 : numbers_.back().second + 1;
    expect_rest(*new_reader(), Offset(0));
    turn_until_durable(Offset(end));
    durable_ = end;
    kill_keeper();
    const auto verified = verify_partition(ref_.disk_dir);
    ASSERT_TRUE(verified);
    for (const auto& fault : verified->faults) ADD_FAILURE() << fault.path << ": " << fault.message;
  }

  std::mt19937_64 random_;
  UnreliableBackend* disk_;
  std::uint64_t durable_ = 0;
};

TEST_F(UnreliableDisk, NothingThatWasDurableIsLost) {
  const std::uint64_t rounds = test::number_from_environment("RINGTAIL_DISK_ROUNDS", 25);
  std::uint64_t failures = 0;
  for (std::uint64_t round = 0; round < rounds; ++round) {
    SCOPED_TRACE(::testing::Message() << "round " << round);
    disk_->set_rates({});
    open_keeper();
    ASSERT_FALSE(failed());
    disk_->set_rates(some_rates());
    work();
    if (failed()) {
      ++failures;
      EXPECT_NE(entry().failure_text[0], 0) << "the partition does not say why it stopped";
    }
    kill_keeper();
    disk_->set_rates({});
    const bool loses_memory = random_() % 2 == 0;
    if (loses_memory) cut_power();
    ASSERT_NO_FATAL_FAILURE(expect_promises_kept(loses_memory));
    ASSERT_FALSE(HasFailure());
  }
  const auto& counts = disk_->counts();
  std::printf(
      "%lu rounds, %lu of them ended by a fault: %u writes failed, %u were short, %u syncs failed, "
      "%u times no space, %u slow, %u sectors lost; %lu records\n",
      rounds, failures, counts.write_errors, counts.short_writes, counts.sync_errors, counts.no_space,
      counts.slow, counts.sectors_lost, next_offset());
  EXPECT_GT(counts.slow, 0u);
}

// --- Rot -----------------------------------------------------------------------------------------

// A segment that reads differently from what was written is not compacted into one that is sound.
class RottenDisk : public CompactionTest {};

TEST_F(RottenDisk, CompactionTakesOverNothingThatHasRotted) {
  config_.segment_bytes = 1 << 20;
  open_writer(ring_);
  for (int i = 0; i < 200; ++i) append("k" + std::to_string(i % 20), std::string(1'000, 'v'));
  fill_segment();
  flush(ring_);
  std::mt19937_64 random(test::print_seed());
  unsigned rotten = 0;
  for (int round = 0; round < 12; ++round) {
    UnreliableBackend disk(io::make_backend(IoBackend::pwrite, 4).value(), random());
    disk.set_rates({.rotten_read = round < 4 ? 1'000u : 200u});
    auto job = plan();
    ASSERT_TRUE(job);
    const CompactionOutcome outcome = compact(disk, *job);
    const bool has_rotted = disk.counts().rotten_reads > 0;
    rotten += has_rotted ? 1 : 0;
    writer_->replace_finished(job->segments.size(), outcome.segments);
    // Rot in the spare space behind the frames harms nothing; anywhere else it is found, and nothing is replaced.
    const auto records = read_all();
    for (const KeyedRecord& record : records) ASSERT_EQ(record, appended_[record.offset.value()]);
    expect_sound();
    if (!outcome.failure) {
      outcome_.first_dirty = writer_->segments().back().base_offset;
      ASSERT_EQ(records, latest());
      break;
    }
    EXPECT_TRUE(has_rotted) << outcome.failure->message;
  }
  EXPECT_GT(rotten, 0u);
}

}  // namespace
}  // namespace ringtail::log

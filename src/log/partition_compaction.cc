// When a partition's segments are compacted, and what becomes of the result.

#include <algorithm>

#include "base/clock.h"
#include "base/logger.h"
#include "log/partition_keeper.h"

namespace ringtail::log {

using std::memory_order_relaxed;

namespace {

constexpr std::int64_t kSecondNs = 1'000'000'000;
constexpr std::int64_t kCompactionPeriodNs = kSecondNs;
constexpr std::int64_t kOpenTransactionNs = 15 * kSecondNs;  // it stands in the way until it ends
constexpr std::int64_t kCompactionRetryNs = 60 * kSecondNs;  // what failed is looked at by somebody first

}  // namespace

void PartitionKeeper::step_compaction(std::int64_t now_ns) {
  if (!config_.compacts() || !is_disk() || compacting_ || now_ns < compaction_due_ns_) return;
  compaction_due_ns_ = now_ns + kCompactionPeriodNs;
  if (!first_dirty_) first_dirty_ = load_first_dirty(partition_.disk_dir);
  auto planned = plan_compaction(writer_->segments(), *first_dirty_, config_, wall_clock_ns());
  if (!planned) return;
  auto job = std::make_shared<CompactionJob>(std::move(*planned));
  job->dir = partition_.disk_dir;
  job->identity = {partition_.log_id, partition_.topic_id, partition_.partition};
  job->cancelled = compaction_cancelled_;
  compacting_ = true;
  context_.cleaner->submit([this, alive = alive_, job](io::Backend& backend) -> Workshop::Delivery {
    auto outcome = std::make_shared<CompactionOutcome>(compact(backend, *job));
    // A topic that was made anew under the name must not come to have this.
    if (!outcome->failure && !job->cancelled->load(memory_order_relaxed)) {
      if (auto stored = store_first_dirty(job->dir, outcome->first_dirty); !stored)
        outcome->failure = std::move(stored.error());
    }
    return [this, alive, job, outcome] {
      if (*alive) finish_compaction(*job, *outcome);
    };
  });
}

void PartitionKeeper::finish_compaction(const CompactionJob& job, const CompactionOutcome& outcome) {
  compacting_ = false;
  writer_->replace_finished(job.segments.size(), outcome.segments);
  first_dirty_ = outcome.first_dirty;
  entry_.disk_bytes.store(writer_->disk_bytes(), memory_order_relaxed);
  if (outcome.failure) {
    compaction_due_ns_ = monotonic_ns() + kCompactionRetryNs;
    if (!compaction_cancelled_->load(memory_order_relaxed))
      logger().warn("{}: compaction did not come to its end, and begins anew in a minute: {}", name(),
                    to_string(*outcome.failure));
    return;
  }
  if (outcome.first_dirty == job.first_dirty) {
    compaction_due_ns_ = monotonic_ns() + kOpenTransactionNs;
    return;
  }
  logger().info("{}: compacted up to offset {}: {} of {} records kept, {} of {} bytes, {} of {} segments",
                name(), outcome.first_dirty.value(), outcome.records.after, outcome.records.before,
                outcome.bytes.after, outcome.bytes.before, outcome.segments.size(), job.segments.size());
}

void PartitionKeeper::cancel_compaction() { compaction_cancelled_->store(true, memory_order_relaxed); }

}  // namespace ringtail::log

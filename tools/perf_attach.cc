#include "tools/perf_attach.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "tools/perf_process.h"

namespace ringtail::tools::perf {

Result<Log> attach(const RunContext& run, int cpu) {
  if (const Status pinned = pin_to_cpu(cpu); !pinned) return std::unexpected(pinned.error());
  LogOptions options;
  options.dir = run.dir;
  options.create_if_missing = false;
  options.keeper = KeeperMode::none;
  return Log::open(std::move(options));
}

Result<Consumer> open_consumer(const RunContext& run, const Log& log, const std::string& topic) {
  ConsumerOptions options;
  options.wait = run.options.wait;
  auto consumer = Consumer::open(log, options);
  if (!consumer) return consumer;
  if (const Status assigned = consumer->assign(topic); !assigned) return std::unexpected(assigned.error());
  return consumer;
}

void wait_for_start(const RunContext& run) {
  run.shared.attached.fetch_add(1, std::memory_order_release);  // SYNC: the parent's count of us
  run.shared.go.wait();
}

Result<std::span<const Record>> next_records(Consumer& consumer) {
  constexpr std::chrono::seconds kLong{1};
  for (;;) {
    auto records = consumer.poll(kLong);
    if (!records || !records->empty()) return records;
  }
}

std::uint64_t stamp_of(const Record& record) {
  std::uint64_t stamp = 0;
  std::memcpy(&stamp, record.value.data(), std::min(sizeof stamp, record.value.size()));
  return stamp;
}

}  // namespace ringtail::tools::perf

#include "tools/perf_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/topic_config.h"
#include "format/frame.h"
#include "tools/perf_process.h"

namespace ringtail::tools::perf {
namespace {

constexpr std::uint32_t kMaxBatch = 4096;

// Enough to have been once through the ring, so that every page of it is mapped.
std::uint64_t default_warmup(const PerfOptions& options) {
  constexpr std::uint64_t kRingBytes = 64 << 20;
  constexpr double kScheduledSeconds = 0.5;
  switch (options.method) {
    case Method::ping_pong: return 20'000;
    case Method::open_loop:
      return static_cast<std::uint64_t>(
          std::ceil(options.rate * std::min(kScheduledSeconds, options.seconds)));
    case Method::closed_loop: break;
  }
  return std::clamp<std::uint64_t>(kRingBytes / (options.size + 32), 1'000, 500'000);
}

// What the topic would refuse, before anything is measured.
Status check_topic(const PerfOptions& options) {
  TopicConfigs configs = options.configs;
  configs["storage"] = options.storage;
  const auto config = parse_topic_config(configs);
  if (!config) return std::unexpected(config.error());
  if (options.size > static_cast<std::uint64_t>(config->max_message_bytes))
    return fail(
        Code::invalid_argument,
        fmt::format("--size {} is more than the topic takes, {} bytes; give --config max.message.bytes=..., "
                    "at most an eighth of term.bytes",
                    options.size, config->max_message_bytes));
  const auto most = static_cast<std::uint64_t>(config->term_bytes) / 8;
  if (std::uint64_t{options.batch} * (options.size + format::kFrameHeaderBytes) > most)
    return fail(
        Code::invalid_argument,
        fmt::format(
            "a --batch of {} records of {} bytes is more than an eighth of term.bytes, {} bytes; make "
            "it smaller",
            options.batch, options.size, most));
  return {};
}

Status check(const PerfOptions& options) {
  if (options.size < kStampBytes) {
    return fail(Code::invalid_argument,
                fmt::format("--size {} is too small; a record starts with the time it "
                            "was sent, which takes {} bytes",
                            options.size, kStampBytes));
  }
  if (options.batch < 1 || options.batch > kMaxBatch) {
    return fail(Code::invalid_argument,
                fmt::format("--batch {} is not within 1 to {}", options.batch, kMaxBatch));
  }
  if (options.producers < 1 || options.producers > kMaxProducers) {
    return fail(Code::invalid_argument,
                fmt::format("--producers {} is not within 1 to {}", options.producers, kMaxProducers));
  }
  if (options.claim && options.batch > 1) {
    return fail(Code::invalid_argument, "--claim writes one record in place; it does not go with --batch");
  }
  if (options.exclusive && options.producers > 1) {
    return fail(Code::invalid_argument, "--exclusive is for one producer; leave out --producers");
  }
  if (options.method == Method::ping_pong && (options.batch > 1 || options.producers > 1)) {
    return fail(Code::invalid_argument,
                "a ping-pong has one record under way; give --rate to measure with --batch or --producers");
  }
  return check_topic(options);
}

}  // namespace

std::string_view to_string(Method method) {
  switch (method) {
    case Method::ping_pong: return "ping-pong";
    case Method::open_loop: return "open-loop";
    case Method::closed_loop: return "closed-loop";
  }
  return "unknown";
}

std::string_view to_string(WaitStrategy wait) {
  switch (wait) {
    case WaitStrategy::busy_spin: return "busy";
    case WaitStrategy::yield: return "yield";
    case WaitStrategy::futex: return "futex";
  }
  return "unknown";
}

Status PerfOptions::settle() {
  method = rate > 0 ? Method::open_loop : mode == "latency" ? Method::ping_pong : Method::closed_loop;
  if (const Status checked = check(*this); !checked) return checked;
  if (cpus.empty()) {
    cpus = allowed_cpus();
    cpus.resize(std::min<std::size_t>(cpus.size(), 2));
  }
  if (method == Method::open_loop && count == 0)
    count = static_cast<std::uint64_t>(std::ceil(rate * seconds));
  warmup = wanted_warmup ? *wanted_warmup : default_warmup(*this);
  if (!wanted_warmup) warmup_seconds = seconds;
  const std::uint64_t round = std::uint64_t{producers} * batch;
  count = (count + round - 1) / round * round;
  warmup = (warmup + round - 1) / round * round;
  return {};
}

}  // namespace ringtail::tools::perf

// What a record costs its reader: decoding a frame, and a poll that finds records.
#include <benchmark/benchmark.h>

#include <cstddef>
#include <string>
#include <vector>

#include "format/frame.h"
#include "support/cpu_counters.h"
#include "support/temporary_log.h"

namespace ringtail::bench {
namespace {

// Frames as they stand in a ring, one behind the other, 4 MiB of them.
std::vector<std::uint64_t> frames_of(std::size_t value_bytes, std::size_t& count) {
  const std::string value(value_bytes, 'x');
  const auto length = static_cast<std::uint32_t>(format::data_frame_bytes(0, value_bytes, 0));
  const std::size_t extent = format::align_frame(length);
  count = (std::size_t{4} << 20) / extent;
  std::vector<std::uint64_t> words(count * extent / sizeof(std::uint64_t));
  auto* bytes = reinterpret_cast<std::byte*>(words.data());
  for (std::size_t i = 0; i < count; ++i) {
    std::byte* frame = bytes + i * extent;
    const format::FrameHeader header{.length = static_cast<std::int32_t>(length),
                                     .type = format::FrameType::data,
                                     .attributes = 0,
                                     .reserved = 0,
                                     .offset = i,
                                     .timestamp_ns = 1,
                                     .key_length = 0,
                                     .crc32c = 0};
    std::memcpy(frame, &header, sizeof header);
    format::write_body(frame, {}, value.data(), value.size(), {});
  }
  return words;
}

void decode(benchmark::State& state) {
  std::size_t count = 0;
  const std::vector<std::uint64_t> words = frames_of(static_cast<std::size_t>(state.range(0)), count);
  const auto* begin = reinterpret_cast<const std::byte*>(words.data());
  CpuCounters counters;
  counters.start();
  for (auto _ : state) {
    const std::byte* frame = begin;
    for (std::size_t i = 0; i < count; ++i) {
      // SYNC: as a consumer reads it, with a release store of the writer; here nobody writes.
      const std::uint64_t word = format::load_state_word(frame, std::memory_order_acquire);
      benchmark::DoNotOptimize(format::decode_record(frame, nullptr));
      frame += format::word_extent(word);
    }
  }
  counters.stop();
  const std::int64_t items = state.iterations() * static_cast<std::int64_t>(count);
  state.SetItemsProcessed(items);
  counters.report(state.counters, items);
}
BENCHMARK(decode)->ArgName("bytes")->Arg(64)->Arg(1024);

// Reads what fits into a ring, over and over: only the polls are timed, the appends between are not.
void poll(benchmark::State& state) {
  constexpr std::size_t kRecords = 50'000;
  const TemporaryLog log(".");
  log.create_topic("poll", {{"storage", "memory"}});
  auto producer = value_or_die(Producer::open(log.log(), ProducerOptions{.topic = "poll"}));
  auto consumer = value_or_die(Consumer::open(log.log(), ConsumerOptions{.wait = WaitStrategy::busy_spin}));
  check_or_die(consumer.assign("poll"));
  const std::string value(static_cast<std::size_t>(state.range(0)), 'x');
  CpuCounters counters;
  for (auto _ : state) {
    for (std::size_t i = 0; i < kRecords; ++i) {
      if (!producer.send(value)) die(producer.error());
    }
    counters.start();
    const auto begin = std::chrono::steady_clock::now();
    for (std::size_t read = 0; read < kRecords;) {
      const auto records = value_or_die(consumer.poll(std::chrono::seconds(1)));
      for (const Record& record : records) benchmark::DoNotOptimize(record.value.front());
      read += records.size();
    }
    state.SetIterationTime(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    counters.stop();
  }
  const std::int64_t items = state.iterations() * static_cast<std::int64_t>(kRecords);
  state.SetItemsProcessed(items);
  counters.report(state.counters, items);
}
BENCHMARK(poll)->ArgName("bytes")->Arg(64)->UseManualTime();

}  // namespace
}  // namespace ringtail::bench

// Random rounds of a keeper's life against a model, over both real backends: appends, pumps, syncs, rolls,
// retention, and the deaths of keeper and host.
#include <cstdio>

#include "base/clock.h"
#include "segment_test_support.h"

namespace ringtail::log {
namespace {

class SegmentRoundsTest : public SegmentTest, public ::testing::WithParamInterface<IoBackend> {};

TEST_P(SegmentRoundsTest, EverythingDurableIsReadBack) {
  const auto seed = static_cast<unsigned>(wall_clock_ns());
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  const auto pick = [&](unsigned n) { return std::uniform_int_distribution<unsigned>(0, n - 1)(random); };
  make_backend(GetParam());
  config_.retention_ms = -1;
  FakeRing ring(1 << 20);
  open_writer(ring);
  for (int step = 0; step < 1'500; ++step) {
    const std::uint64_t used = ring.end() - format::block_down(writer_->durable_position());
    switch (pick(8)) {
      case 0:
      case 1:
      case 2: {
        const unsigned records = 1 + pick(20);
        for (unsigned i = 0; i < records; ++i) {
          if (ring.end() - format::block_down(writer_->durable_position()) + 10'000 > ring.bytes()) break;
          const unsigned kind = pick(20);
          if (kind == 0)
            ring.add_filler(format::FrameType::aborted, 32 + 8 * pick(100), 1 + pick(3));
          else if (kind == 1)
            ring.add_filler(format::FrameType::pad, 32 + 8 * pick(600), 0);
          else
            ring.add_record(static_cast<std::int64_t>(pick(1'000'000)),
                            std::string(pick(kind < 5 ? 9'000 : 200), 'x'));
        }
        if (const FrameRun run = ring.take_run(); run.bytes > 0) writer_->append(run);
        break;
      }
      case 3: writer_->pump(); break;
      case 4: writer_->request_sync(); break;
      case 5: reap_and_dispatch(*backend_, pick(2) == 0); break;
      case 6:
        if (writer_->wants_prepared()) {
          auto prepared = prepare_segment(*backend_, dir(), writer_->prepared_bytes());
          ASSERT_TRUE(prepared);
          writer_->offer(std::move(*prepared));
        }
        break;
      case 7:
        if (used > ring.bytes() / 2) {
          ASSERT_TRUE(writer_->flush_blocking());
        }
        if (pick(60) == 0) {
          const Position durable = writer_->durable_position();
          if (pick(2) == 0) {  // the keeper dies, the ring stays
            open_writer(ring);
            ASSERT_GE(writer_->end_position(), durable);
            ring.rewind_to(writer_->end_position());
            if (const FrameRun rest = ring.take_run(); rest.bytes > 0) writer_->append(rest);
          } else {  // the host dies
            writer_.reset();
            ASSERT_TRUE(recover({.pad_to_block = false}));
            const Position end = recovered_.end_position;
            ASSERT_TRUE(recover({.pad_to_block = true}));
            ring.lose_from(end, recovered_.end_position);
            ASSERT_EQ(ring.next_offset(), recovered_.next_offset);
            ASSERT_GE(end, durable);
            open_writer(ring);
            ASSERT_EQ(writer_->end_position(), ring.end());
          }
        }
        if (pick(40) == 0) {
          config_.retention_bytes = 1 << 20;
          writer_->update_config(config_);
          ASSERT_TRUE(writer_->enforce_retention(0));
        }
        break;
    }
    ASSERT_FALSE(writer_->failure()) << writer_->failure()->message;
    ASSERT_LE(writer_->durable_position(), writer_->written_position());
    ASSERT_LE(writer_->written_position(), writer_->end_position());
    if (step % 100 == 0) expect_readable(ring, writer_->log_start_position(), writer_->durable_position());
    if (HasFatalFailure()) return;
  }
  ASSERT_TRUE(writer_->flush_blocking());
  expect_readable(ring, writer_->log_start_position(), ring.end());
}

INSTANTIATE_TEST_SUITE_P(Backends, SegmentRoundsTest,
                         ::testing::Values(IoBackend::pwrite, IoBackend::automatic), [](const auto& param) {
                           return param.param == IoBackend::pwrite ? "pwrite" : "automatic";
                         });

}  // namespace
}  // namespace ringtail::log

#include "log/segment_writer.h"

#include <cerrno>
#include <thread>

#include "segment_test_support.h"

namespace ringtail::log {
namespace {

using testing::Op;

class SegmentWriterTest : public SegmentTest {
 protected:
  void SetUp() override { open_writer(ring_); }

  void append_value(std::size_t bytes, std::int64_t timestamp_ns = 1) {
    ring_.add_record(timestamp_ns, std::string(bytes, 'v'));
    writer_->append(ring_.take_run());
  }
  void give_prepared() {
    auto prepared = prepare_segment(*backend_, dir(), writer_->prepared_bytes());
    ASSERT_TRUE(prepared) << prepared.error().message;
    writer_->offer(std::move(*prepared));
  }
  // A first segment is there, and nothing of it in the backend's log.
  void begin_quietly() {
    append_value(10);
    ASSERT_TRUE(writer_->flush_blocking());
    backend_->clear_events();
  }

  FakeRing ring_{4 << 20};
};

TEST_F(SegmentWriterTest, AnEmptyLogMakesNoFiles) {
  writer_->request_sync();
  writer_->pump();
  EXPECT_FALSE(writer_->busy());
  EXPECT_FALSE(writer_->wants_prepared());
  EXPECT_TRUE(logs().empty());
  EXPECT_EQ(writer_->durable_position(), Position(0));
}

TEST_F(SegmentWriterTest, WaitsForAPreparedSegment) {
  append_value(100);
  writer_->request_sync();
  writer_->pump();
  EXPECT_TRUE(writer_->wants_prepared());
  EXPECT_FALSE(writer_->busy());
  EXPECT_EQ(writer_->durable_position(), Position(0));
  EXPECT_FALSE(writer_->failure());
  give_prepared();
  EXPECT_FALSE(writer_->wants_prepared());
  settle();
  EXPECT_EQ(writer_->durable_position(), ring_.end());
  EXPECT_EQ(writer_->durable_offset(), Offset(1));
  EXPECT_EQ(logs(), std::vector{Offset(0)});
}

TEST_F(SegmentWriterTest, ASmallSyncIsOneWriteWithItsSync) {
  begin_quietly();
  append_value(100);
  writer_->request_sync();
  settle();
  EXPECT_EQ(backend_->count(Op::write, ".log"), 1u);
  EXPECT_EQ(backend_->count(Op::sync, ".log"), 1u);
  EXPECT_EQ(writer_->durable_position(), ring_.end());
}

TEST_F(SegmentWriterTest, WhatIsWrittenAlreadyNeedsOnlyASync) {
  // Exactly whole blocks, enough of them to be written before anybody asks.
  append_value((512 << 10) - format::kFrameHeaderBytes);
  give_prepared();
  settle();
  EXPECT_EQ(writer_->written_position(), ring_.end());
  EXPECT_EQ(writer_->durable_position(), Position(0));
  backend_->clear_events();
  writer_->request_sync();
  settle();
  EXPECT_EQ(backend_->count(Op::write, ".log"), 0u);
  EXPECT_EQ(backend_->count(Op::sync, ".log"), 1u);
  EXPECT_EQ(writer_->durable_position(), ring_.end());
}

TEST_F(SegmentWriterTest, LargeSyncsWriteBlocksFromTheRingAndOneTail) {
  begin_quietly();
  append_value(300'000);
  writer_->request_sync();
  settle();
  EXPECT_EQ(backend_->count(Op::write, ".log"), 2u);
  EXPECT_EQ(backend_->count(Op::sync, ".log"), 1u);
  EXPECT_EQ(writer_->durable_position(), ring_.end());
  expect_readable(ring_, Position(0), ring_.end());
}

TEST_F(SegmentWriterTest, ABlockIsNotWrittenTwiceAtATime) {
  begin_quietly();
  backend_->hold(Op::write, ".log");
  append_value(100);
  writer_->request_sync();
  writer_->pump();
  ASSERT_EQ(backend_->count(Op::write, ".log"), 1u);
  append_value(400'000);
  writer_->request_sync();
  writer_->pump();
  const std::uint64_t first_block = format::kBlockBytes;
  for (const auto& event : backend_->events()) {
    if (event.op == Op::write && event.path.ends_with(".log") && event.bytes > format::kBlockBytes) {
      EXPECT_GT(event.file_offset, first_block);
    }
  }
  EXPECT_GT(backend_->count(Op::write, ".log"), 1u) << "blocks behind the held one go on";
  EXPECT_EQ(writer_->durable_offset(), Offset(1));
  backend_->release();
  settle();
  EXPECT_EQ(writer_->durable_position(), ring_.end());
  expect_readable(ring_, Position(0), ring_.end());
}

TEST_F(SegmentWriterTest, RequestsDuringASyncShareTheNext) {
  begin_quietly();
  backend_->hold(Op::write, ".log");
  append_value(10);
  writer_->request_sync();
  writer_->pump();
  const Position first = ring_.end();
  for (int i = 0; i < 20; ++i) {
    append_value(10);
    writer_->request_sync();
    writer_->pump();
  }
  EXPECT_EQ(writer_->durable_offset(), Offset(1));
  EXPECT_LT(writer_->durable_position(), first);
  backend_->release();
  settle();
  EXPECT_EQ(writer_->durable_position(), ring_.end());
  EXPECT_EQ(backend_->count(Op::sync, ".log"), 2u);
}

TEST_F(SegmentWriterTest, RollsBySizeAtAnyFrameBoundary) {
  while (writer_->segments().size() < 5) {
    append_value(3'001);
    if (ring_.frames().size() % 50 == 0) {
      ASSERT_TRUE(writer_->flush_blocking());
    }
  }
  ASSERT_TRUE(writer_->flush_blocking());
  const auto segments = writer_->segments();
  for (std::size_t i = 0; i + 1 < segments.size(); ++i) {
    EXPECT_EQ(segments[i].end_position, segments[i + 1].base_position);
    EXPECT_EQ(segments[i].next_offset, segments[i + 1].base_offset);
    EXPECT_NE(segments[i].end_position.value() % format::kBlockBytes, 0u) << "the test wants a shared block";
    EXPECT_LE(segments[i].end_position - segments[i].base_position, 1u << 20);
    EXPECT_EQ(std::filesystem::file_size(segments[i].path), segments[i].file_bytes);
    EXPECT_EQ(segments[i].file_bytes,
              format::file_offset(segments[i].base_position, segments[i].end_position));
  }
  expect_readable(ring_, Position(0), ring_.end());
}

// Without a mark on disk, what a power cut leaves of writes out of order would be taken for damage.
TEST_F(SegmentWriterTest, TheMarkIsOnDiskBeforeTheSegmentHasItsName) {
  config_.segment_bytes = 1 << 20;
  for (int i = 0; i < 3; ++i) {
    append_value(600'000);
    ASSERT_TRUE(writer_->flush_blocking());
  }
  ASSERT_EQ(logs().size(), 3u);
  const auto events = backend_->events();
  for (const Offset base : logs()) {
    const auto is = [](Op op, const std::filesystem::path& path) {
      return [op, text = path.string()](const testing::Event& event) {
        return event.op == op && event.path == text;
      };
    };
    const auto synced = std::ranges::find_if(events, is(Op::sync_file, index_file(base.value())));
    const auto named = std::ranges::find_if(events, is(Op::rename, log_file(base.value())));
    ASSERT_NE(synced, events.end()) << "the mark of segment " << base.value() << " is never synced";
    EXPECT_LT(synced, named);
  }
}

TEST_F(SegmentWriterTest, AMarkThatWasLostIsOnDiskAgainWithItsName) {
  begin_quietly();
  open_writer(ring_);
  EXPECT_EQ(backend_->count(Op::sync_file, ".index"), 0u) << "it was there";
  writer_.reset();
  std::filesystem::remove(index_file(0));
  backend_->clear_events();
  open_writer(ring_);
  const auto events = backend_->events();
  const auto synced = std::ranges::find(events, std::pair(Op::sync_file, index_file(0).string()),
                                        [](const auto& event) { return std::pair(event.op, event.path); });
  ASSERT_NE(synced, events.end());
  EXPECT_NE(std::ranges::find(synced, events.end(), Op::sync_directory, &testing::Event::op), events.end());
}

TEST_F(SegmentWriterTest, RollsByAge) {
  config_.segment_ms = 1;
  writer_->update_config(config_);
  for (int i = 0; i < 3; ++i) {
    append_value(10);
    ASSERT_TRUE(writer_->flush_blocking());
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
  }
  EXPECT_EQ(logs(), (std::vector{Offset(0), Offset(1), Offset(2)}));
}

TEST_F(SegmentWriterTest, ARunLargerThanASegmentGetsOneOfItsOwn) {
  append_value(10);
  append_value(3 << 20);
  append_value(10);
  ASSERT_TRUE(writer_->flush_blocking());
  EXPECT_EQ(logs(), (std::vector{Offset(0), Offset(1), Offset(2)}));
  expect_readable(ring_, Position(0), ring_.end());
}

TEST_F(SegmentWriterTest, ASegmentWithoutRecordsHasNoSuccessor) {
  // Its successor would have its name.
  for (int i = 0; i < 3; ++i) {
    ring_.add_filler(format::FrameType::pad, 900 << 10, 0);
    flush(ring_);
  }
  EXPECT_EQ(logs(), std::vector{Offset(0)});
  append_value(10);
  append_value(10);
  ASSERT_TRUE(writer_->flush_blocking());
  EXPECT_EQ(logs(), (std::vector{Offset(0), Offset(1)}));
  expect_readable(ring_, Position(0), ring_.end());
}

TEST_F(SegmentWriterTest, AFullDiskIsMetBeforeItHurts) {
  append_value(10);
  backend_->set_disk_full(true);
  const auto refused = prepare_segment(*backend_, dir(), writer_->prepared_bytes());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::no_space);
  EXPECT_TRUE(list_segments(dir())->prepared.empty());
  EXPECT_EQ(writer_->flush_blocking().error().code, Code::no_space);
  EXPECT_FALSE(writer_->failure());
  backend_->set_disk_full(false);
  ASSERT_TRUE(writer_->flush_blocking());
  EXPECT_EQ(writer_->durable_position(), ring_.end());
}

TEST_F(SegmentWriterTest, AFullDiskDuringARollKeepsWhatIsDurable) {
  append_value(900'000);
  ASSERT_TRUE(writer_->flush_blocking());
  const Position before = writer_->durable_position();
  append_value(900'000);
  give_prepared();
  backend_->set_disk_full(true);  // the space of the next indexes
  EXPECT_EQ(writer_->flush_blocking().error().code, Code::no_space);
  EXPECT_EQ(writer_->durable_position(), before);
  EXPECT_FALSE(writer_->failure());
  backend_->set_disk_full(false);
  ASSERT_TRUE(writer_->flush_blocking());
  expect_readable(ring_, Position(0), ring_.end());
}

TEST_F(SegmentWriterTest, AMomentWithoutDescriptorsDuringARollPasses) {
  append_value(900'000);
  ASSERT_TRUE(writer_->flush_blocking());
  const auto roll_without = [&](Op op, std::string part) {
    SCOPED_TRACE(part);
    append_value(900'000);
    give_prepared();
    backend_->fail(op, std::move(part), EMFILE);
    EXPECT_EQ(writer_->flush_blocking().error().os_errno, EMFILE);
    EXPECT_FALSE(writer_->failure());
    ASSERT_TRUE(writer_->flush_blocking());
  };
  roll_without(Op::open, ".index");
  roll_without(Op::sync_directory, "");
  expect_readable(ring_, Position(0), ring_.end());
}

TEST_F(SegmentWriterTest, AFailedWriteIsSticky) {
  begin_quietly();
  const Position before = writer_->durable_position();
  backend_->fail(Op::write, ".log", EIO);
  append_value(10);
  EXPECT_EQ(writer_->flush_blocking().error().code, Code::storage_failed);
  ASSERT_TRUE(writer_->failure());
  EXPECT_EQ(writer_->failure()->os_errno, EIO);
  EXPECT_NE(writer_->failure()->message.find("00000000000000000000.log"), std::string::npos);
  const std::size_t writes = backend_->count(Op::write);
  append_value(10);
  EXPECT_FALSE(writer_->flush_blocking());
  EXPECT_EQ(backend_->count(Op::write), writes);
  EXPECT_EQ(writer_->durable_position(), before);
  EXPECT_FALSE(writer_->busy());
}

TEST_F(SegmentWriterTest, AFailedSyncIsStickyUntilReopened) {
  begin_quietly();
  const Position before = writer_->durable_position();
  backend_->fail(Op::sync, ".log", EIO);
  append_value(10);
  EXPECT_EQ(writer_->flush_blocking().error().code, Code::storage_failed);
  EXPECT_FALSE(writer_->flush_blocking()) << "a second sync could succeed and prove nothing";
  EXPECT_EQ(writer_->durable_position(), before);
  EXPECT_FALSE(writer_->busy());
  open_writer(ring_);
  ring_.rewind_to(writer_->end_position());
  flush(ring_);
  expect_readable(ring_, Position(0), ring_.end());
}

TEST_F(SegmentWriterTest, AFailedSyncAfterLargeWritesIsSticky) {
  begin_quietly();
  const Position before = writer_->durable_position();
  backend_->fail(Op::sync, ".log", EIO);
  append_value(300'000);
  EXPECT_EQ(writer_->flush_blocking().error().code, Code::storage_failed);
  EXPECT_FALSE(writer_->flush_blocking());
  EXPECT_EQ(writer_->durable_position(), before);
}

TEST_F(SegmentWriterTest, AFailedIndexWriteIsSticky) {
  begin_quietly();
  backend_->fail(Op::write, ".index", EIO);
  append_value(10);
  EXPECT_EQ(writer_->flush_blocking().error().code, Code::storage_failed);
  EXPECT_TRUE(writer_->failure());
}

TEST_F(SegmentWriterTest, AFailureToBeginASegmentIsSticky) {
  append_value(10);
  backend_->fail(Op::rename, ".log", EIO);
  EXPECT_FALSE(writer_->flush_blocking());
  EXPECT_TRUE(writer_->failure());
  EXPECT_EQ(writer_->durable_position(), Position(0));
}

TEST_F(SegmentWriterTest, ATornTailIsCutOffAndWrittenAgain) {
  begin_quietly();
  backend_->tear_write(".log", 512);
  append_value(3'000);
  EXPECT_FALSE(writer_->flush_blocking());
  open_writer(ring_);
  EXPECT_TRUE(has_finding(RecoveryCase::torn_tail));
  EXPECT_EQ(writer_->end_offset(), Offset(1));
  ring_.rewind_to(writer_->end_position());
  flush(ring_);
  expect_readable(ring_, Position(0), ring_.end());
}

TEST_F(SegmentWriterTest, ReopensTheLastSegment) {
  for (int round = 0; round < 5; ++round) {
    append_value(1'000);
    ASSERT_TRUE(writer_->flush_blocking());
    open_writer(ring_);
    EXPECT_TRUE(report_.findings.empty()) << report_.findings.front().message;
    EXPECT_EQ(writer_->end_position(), ring_.end());
  }
  EXPECT_EQ(logs(), std::vector{Offset(0)});
  expect_readable(ring_, Position(0), ring_.end());
}

TEST_F(SegmentWriterTest, ReopensOnAFullDiskAndGoesOnWhenThereIsSpace) {
  append_value(1'000);
  ASSERT_TRUE(writer_->flush_blocking());
  writer_.reset();
  ASSERT_TRUE(recover());
  backend_->set_disk_full(true);
  auto writer = SegmentWriter::open(*backend_, kTestIdentity, dir(), config_, recovered_);
  ASSERT_TRUE(writer) << writer.error().message;
  writer_ = std::move(*writer);
  writer_->set_source(ring_.window());
  append_value(1'000);
  EXPECT_EQ(writer_->flush_blocking().error().code, Code::no_space);
  backend_->set_disk_full(false);
  ASSERT_TRUE(writer_->flush_blocking());
  expect_readable(ring_, Position(0), ring_.end());
  open_writer(ring_);
  EXPECT_EQ(writer_->end_position(), ring_.end());
}

TEST_F(SegmentWriterTest, RetentionByBytesKeepsAtLeastThatMuch) {
  for (int i = 0; i < 40; ++i) {
    ring_.add_record(1, std::string(200'000, 'r'));
    flush(ring_);
  }
  config_.retention_ms = -1;
  EXPECT_EQ(writer_->enforce_retention(0), 0u) << "unlimited by default";
  config_.retention_bytes = 3 << 20;
  writer_->update_config(config_);
  const std::size_t before = writer_->segments().size();
  EXPECT_EQ(writer_->enforce_retention(0, writer_->segments().front().end_position - 1), 0u)
      << "not all of it is confirmed";
  const auto deleted = writer_->enforce_retention(0);
  ASSERT_TRUE(deleted);
  EXPECT_GT(*deleted, 0u);
  EXPECT_EQ(writer_->segments().size(), before - *deleted);
  EXPECT_GE(writer_->disk_bytes(), 3u << 20);
  EXPECT_LT(writer_->disk_bytes() - writer_->segments().front().file_bytes, 3u << 20);
  EXPECT_EQ(logs().front(), writer_->log_start_offset());
  EXPECT_EQ(std::filesystem::exists(index_file(0)), false);
  expect_readable(ring_, writer_->log_start_position(), ring_.end());
}

TEST_F(SegmentWriterTest, RetentionByAgeNeverDeletesTheLastSegment) {
  for (int i = 0; i < 12; ++i) {
    ring_.add_record(1'000'000 * i, std::string(400'000, 'r'));
    flush(ring_);
  }
  config_.retention_ms = 5;
  writer_->update_config(config_);
  const auto deleted = writer_->enforce_retention(10'000'000);
  ASSERT_TRUE(deleted);
  EXPECT_GT(*deleted, 0u);
  EXPECT_GT(writer_->segments().front().max_timestamp_ns, 5'000'000);
  ASSERT_TRUE(writer_->enforce_retention(INT64_MAX));
  EXPECT_EQ(writer_->segments().size(), 1u);
  EXPECT_EQ(writer_->log_start_offset(), writer_->segments().front().base_offset);
  open_writer(ring_);
  EXPECT_EQ(writer_->end_position(), ring_.end()) << "the log's end survives the deletion of all it can";
}

TEST_F(SegmentWriterTest, AnUnusedPreparedFileGoesWithTheWriter) {
  give_prepared();
  ASSERT_EQ(list_segments(dir())->prepared.size(), 1u);
  writer_.reset();
  EXPECT_TRUE(list_segments(dir())->prepared.empty());
}

}  // namespace
}  // namespace ringtail::log

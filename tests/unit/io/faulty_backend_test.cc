// The faults that other tests rely on are the faults that happen.
#include "support/faulty_backend.h"

#include <cerrno>
#include <chrono>
#include <thread>

#include "unit/io/io_test_support.h"

namespace ringtail::testing {
namespace {

using io::AlignedBytes;
using io::Completion;
using io::kBlock;
using io::OpenMode;

class FaultyBackendTest : public ::testing::Test {
 protected:
  FaultyBackendTest() { io::fill_random(bytes_.all(), 1); }

  std::int64_t write(std::uint64_t at = 0) {
    backend_.submit_write(file_, bytes_.all(), at, 1);
    return io::reap_one(backend_).result;
  }
  std::int64_t write_and_sync() {
    backend_.submit_write_and_sync(file_, bytes_.all(), 0, 1);
    return io::reap_one(backend_).result;
  }
  std::int64_t sync() {
    backend_.submit_sync(file_, 1);
    return io::reap_one(backend_).result;
  }

  static constexpr std::int64_t kAll = 2 * static_cast<std::int64_t>(kBlock);
  io::TempDir dir_;
  FaultyBackend backend_{std::move(*io::make_backend(IoBackend::automatic, 4))};
  io::File file_ = std::move(*backend_.open(dir_ / "1.log", OpenMode::write_direct));
  AlignedBytes bytes_{2 * kBlock};
};

TEST_F(FaultyBackendTest, FailsTheNthMatchingOperationAsOftenAsTold) {
  backend_.fail(Op::write, ".log", EIO, 2, 2);
  backend_.fail(Op::write, ".index", ENOSPC, 1, FaultyBackend::kForever);
  EXPECT_EQ(write(), kAll);
  EXPECT_EQ(write(), -EIO);
  EXPECT_EQ(write(), -EIO);
  EXPECT_EQ(write(), kAll);
  EXPECT_EQ(sync(), 0);
  EXPECT_EQ(backend_.count(Op::write, ".log"), 4u);
  EXPECT_EQ(backend_.events()[2].injected_errno, EIO);
}

TEST_F(FaultyBackendTest, FailedWritesLeaveTheFileAlone) {
  backend_.fail(Op::write, "", EIO, 1, FaultyBackend::kForever);
  EXPECT_EQ(write(), -EIO);
  EXPECT_EQ(write_and_sync(), -EIO);
  EXPECT_EQ(std::filesystem::file_size(dir_ / "1.log"), 0u);
  backend_.clear_faults();
  EXPECT_EQ(write(), kAll);
}

TEST_F(FaultyBackendTest, AFailedSyncOfALinkedWriteComesAfterTheWrite) {
  backend_.fail(Op::sync, "1.log", EIO);
  EXPECT_EQ(write_and_sync(), -EIO);
  EXPECT_TRUE(io::equal(io::file_bytes(dir_ / "1.log"), bytes_.all()));
  EXPECT_EQ(write_and_sync(), kAll);
}

TEST_F(FaultyBackendTest, TearsAWriteAnywhere) {
  backend_.tear_write("1.log", kBlock + 5);
  EXPECT_EQ(write(), -EIO);
  EXPECT_TRUE(io::equal(io::file_bytes(dir_ / "1.log"), bytes_.part(0, kBlock + 5)));
}

TEST_F(FaultyBackendTest, WithholdsCompletionsUntilReleased) {
  backend_.hold(Op::write, "1.log");
  backend_.submit_write(file_, bytes_.all(), 0, 7);
  backend_.submit_sync(file_, 8);
  std::array<Completion, 4> out;
  ASSERT_EQ(backend_.reap(out, true), 1u);
  EXPECT_EQ(out[0].token, 8u);
  EXPECT_EQ(backend_.in_flight(), 1u);
  EXPECT_EQ(backend_.reap(out, false), 0u);
  std::jthread releaser([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    backend_.release();
  });
  ASSERT_EQ(backend_.reap(out, true), 1u);
  EXPECT_EQ(out[0].token, 7u);
  EXPECT_EQ(out[0].result, kAll);
  EXPECT_EQ(write(), kAll);
}

TEST_F(FaultyBackendTest, TheDiskFillsAndEmpties) {
  backend_.set_disk_full(true);
  const Status full = backend_.preallocate(file_, kBlock);
  ASSERT_FALSE(full.has_value());
  EXPECT_EQ(full.error().code, Code::no_space);
  backend_.set_disk_full(false);
  EXPECT_TRUE(backend_.preallocate(file_, kBlock));
}

TEST_F(FaultyBackendTest, FailsMetadataOperations) {
  const auto errno_of = [](const auto& result) { return result ? 0 : result.error().os_errno; };
  for (const Op op : {Op::open, Op::truncate, Op::sync_file, Op::rename, Op::unlink, Op::sync_directory}) {
    backend_.fail(op, "", EROFS);
  }
  EXPECT_EQ(errno_of(backend_.open(dir_ / "x", OpenMode::write_direct)), EROFS);
  EXPECT_FALSE(std::filesystem::exists(dir_ / "x"));
  EXPECT_EQ(errno_of(backend_.truncate(file_, 5)), EROFS);
  EXPECT_EQ(std::filesystem::file_size(dir_ / "1.log"), 0u);
  EXPECT_EQ(errno_of(backend_.sync_file(file_)), EROFS);
  EXPECT_EQ(errno_of(backend_.rename(dir_ / "1.log", dir_ / "y")), EROFS);
  EXPECT_EQ(errno_of(backend_.unlink(dir_ / "1.log")), EROFS);
  EXPECT_TRUE(std::filesystem::exists(dir_ / "1.log"));
  EXPECT_EQ(errno_of(backend_.sync_directory(dir_.path())), EROFS);
  EXPECT_TRUE(backend_.sync_directory(dir_.path()));
}

TEST_F(FaultyBackendTest, RecordsWhatWasAskedFor) {
  backend_.clear_events();
  EXPECT_EQ(write(kBlock), kAll);
  ASSERT_TRUE(backend_.rename(dir_ / "1.log", dir_ / "2.log"));
  EXPECT_EQ(write_and_sync(), kAll);
  const std::vector<Event> events = backend_.events();
  ASSERT_EQ(events.size(), 4u);  // write, rename, write, sync
  EXPECT_EQ(events[0].op, Op::write);
  EXPECT_EQ(events[0].file_offset, kBlock);
  EXPECT_EQ(events[0].bytes, 2 * kBlock);
  EXPECT_EQ(events[0].path, dir_ / "1.log");
  EXPECT_EQ(events[1].path, dir_ / "2.log");
  EXPECT_EQ(events[2].path, dir_ / "2.log");
  EXPECT_EQ(to_string(events[3].op), "sync");
}

}  // namespace
}  // namespace ringtail::testing

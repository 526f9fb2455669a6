// The faults by chance are those that were asked for, and a power cut takes nothing that was synced.
#include "support/unreliable_backend.h"

#include <cerrno>

#include "unit/io/io_test_support.h"

namespace ringtail::testing {
namespace {

using io::AlignedBytes;
using io::kBlock;
using io::OpenMode;

class UnreliableBackendTest : public ::testing::Test {
 protected:
  static constexpr std::size_t kBlocks = 16;

  void open(std::uint64_t seed) {
    backend_.emplace(std::move(*io::make_backend(IoBackend::pwrite, 4)), seed);
    file_ = std::move(*backend_->open(dir_ / "1.log", OpenMode::write_direct));
  }
  // Whether it said that all was written.
  bool write(std::uint64_t fill, bool syncs = false) {
    io::fill_random(bytes_.all(), fill);
    if (syncs)
      backend_->submit_write_and_sync(file_, bytes_.all(), 0, 1);
    else
      backend_->submit_write(file_, bytes_.all(), 0, 1);
    return io::reap_one(*backend_).result == static_cast<std::int64_t>(bytes_.all().size());
  }
  // Sectors of the file that are those of `fill`.
  std::size_t sectors_of(std::uint64_t fill, std::size_t sector) {
    io::fill_random(bytes_.all(), fill);
    const auto now = io::file_bytes(dir_ / "1.log");
    std::size_t same = 0;
    for (std::size_t at = 0; at < now.size(); at += sector)
      same += std::equal(now.begin() + static_cast<std::ptrdiff_t>(at),
                         now.begin() + static_cast<std::ptrdiff_t>(at + sector),
                         bytes_.all().begin() + static_cast<std::ptrdiff_t>(at))
                  ? 1
                  : 0;
    return same;
  }

  io::TempDir dir_;
  AlignedBytes bytes_{kBlocks * kBlock};
  std::optional<UnreliableBackend> backend_;
  io::File file_;
};

TEST_F(UnreliableBackendTest, APowerCutTakesSectorsThatWereNotSynced) {
  open(1);
  ASSERT_TRUE(write(1, true));
  ASSERT_TRUE(write(2));
  ASSERT_TRUE(write(3));
  EXPECT_EQ(sectors_of(3, 512), kBlocks * 8);
  backend_->lose_unsynced();
  // Each is of one of the three.
  const std::size_t one = sectors_of(1, 512), two = sectors_of(2, 512), three = sectors_of(3, 512);
  EXPECT_EQ(one + two + three, kBlocks * 8);
  EXPECT_GT(one, 0u);
  EXPECT_GT(two, 0u);
  EXPECT_GT(three, 0u);
}

TEST_F(UnreliableBackendTest, APowerCutTakesNothingThatWasSynced) {
  open(2);
  ASSERT_TRUE(write(1));
  backend_->submit_sync(file_, 1);
  ASSERT_EQ(io::reap_one(*backend_).result, 0);
  backend_->lose_unsynced();
  EXPECT_EQ(sectors_of(1, 4096), kBlocks);
  EXPECT_EQ(backend_->counts().sectors_lost, 0u);
}

TEST_F(UnreliableBackendTest, TheSameSeedBringsTheSameFaults) {
  std::vector<bool> outcomes[2];
  for (auto& outcome : outcomes) {
    open(3);
    backend_->set_rates({.write_error = 200, .short_write = 200, .sync_error = 200, .slow = 200});
    for (std::uint64_t i = 0; i < 50; ++i) outcome.push_back(write(i, true));
  }
  EXPECT_EQ(outcomes[0], outcomes[1]);
  const auto& counts = backend_->counts();
  for (const unsigned count : {counts.write_errors, counts.short_writes, counts.sync_errors, counts.slow})
    EXPECT_GT(count, 0u);
}

TEST_F(UnreliableBackendTest, RottenReadsDifferInOneBit) {
  open(4);
  ASSERT_TRUE(write(1));
  AlignedBytes read(kBlocks * kBlock);
  backend_->set_rates({.rotten_read = 1'000});
  backend_->submit_read(file_, read.all(), 0, 1);
  ASSERT_EQ(io::reap_one(*backend_).result, static_cast<std::int64_t>(read.all().size()));
  int bits = 0;
  for (std::size_t i = 0; i < read.all().size(); ++i)
    bits += __builtin_popcount(static_cast<unsigned>(read.all()[i] ^ bytes_.all()[i]));
  EXPECT_EQ(bits, 1);
}

}  // namespace
}  // namespace ringtail::testing

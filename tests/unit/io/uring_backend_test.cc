// What only the io_uring backend has: registered memory.
#include "io/uring_backend.h"

#include <sys/resource.h>

#include <thread>

#include "unit/io/io_test_support.h"

namespace ringtail::io {
namespace {

// Root may lock any amount of memory; nobody may not.
constexpr uid_t kNobody = 65534;

void drop_root() {
  if (::getuid() != 0) return;
  ASSERT_EQ(::setresuid(kNobody, kNobody, kNobody), 0);
}

std::unique_ptr<UringBackend> make_uring() {
  auto backend = UringBackend::make(4);
  if (backend) return std::move(*backend);
  std::cout << "not tested: " << backend.error().message << '\n';
  EXPECT_EQ(backend.error().code, Code::unsupported);
  return nullptr;
}

void write_and_check(UringBackend& backend, const TempDir& dir, std::span<const std::byte> bytes) {
  auto file = backend.open(dir / "a", OpenMode::write_direct);
  ASSERT_TRUE(file.has_value()) << file.error().message;
  backend.submit_write_and_sync(*file, bytes, 0, 1);
  EXPECT_EQ(reap_one(backend).result, static_cast<std::int64_t>(bytes.size()));
  EXPECT_TRUE(equal(file_bytes(dir / "a"), bytes));
}

TEST(UringBackend, FindsRegisteredRangesExactly) {
  const auto backend = make_uring();
  if (!backend) return;
  AlignedBytes memory(4 * kMiB);
  const auto left = memory.part(kMiB, kMiB), right = memory.part(2 * kMiB, kMiB);
  backend->register_buffer(left);
  backend->register_buffer(right);
  EXPECT_TRUE(backend->is_registered(left));
  EXPECT_TRUE(backend->is_registered(right));
  EXPECT_TRUE(backend->is_registered(memory.part(2 * kMiB + kBlock, kBlock)));
  EXPECT_FALSE(backend->is_registered(memory.part(0, kMiB)));
  EXPECT_FALSE(backend->is_registered(memory.part(kMiB - kBlock, 2 * kBlock)));
  EXPECT_FALSE(backend->is_registered(memory.part(2 * kMiB - kBlock, 2 * kBlock)));
  EXPECT_FALSE(backend->is_registered(memory.part(3 * kMiB, kBlock)));
  backend->unregister_buffer(left);
  EXPECT_FALSE(backend->is_registered(left));
  EXPECT_TRUE(backend->is_registered(right));
}

TEST(UringBackend, WritesAcrossRegisteredRanges) {
  const auto backend = make_uring();
  if (!backend) return;
  const TempDir dir;
  AlignedBytes memory(4 * kMiB);
  fill_random(memory.all(), print_seed());
  backend->register_buffer(memory.part(0, 2 * kMiB));
  backend->register_buffer(memory.part(2 * kMiB, 2 * kMiB));
  write_and_check(*backend, dir, memory.part(kMiB, 2 * kMiB));
}

TEST(UringBackend, ReusesSlotsOfUnregisteredMemory) {
  const auto backend = make_uring();
  if (!backend) return;
  AlignedBytes memory(kBlock);
  for (int i = 0; i < 10'000; ++i) {  // more often than there are slots
    backend->register_buffer(memory.all());
    ASSERT_TRUE(backend->is_registered(memory.all())) << i;
    backend->unregister_buffer(memory.all());
  }
}

TEST(UringBackend, WritesUnregisteredOverTheMemoryLockLimit) {
  in_child([] {
    const TempDir dir;
    if (::getuid() == 0) {
      ASSERT_EQ(::chown(dir.path().c_str(), kNobody, kNobody), 0);
    }
    const rlimit limit{64 * 1024, 64 * 1024};
    ASSERT_EQ(::setrlimit(RLIMIT_MEMLOCK, &limit), 0);
    drop_root();
    const auto backend = make_uring();
    if (!backend) return;
    AlignedBytes memory(32 * kMiB);
    fill_random(memory.part(0, kMiB), 1);
    backend->register_buffer(memory.all());
    EXPECT_FALSE(backend->is_registered(memory.all()));
    write_and_check(*backend, dir, memory.part(0, kMiB));
    backend->unregister_buffer(memory.all());
  });
}

// The soft limit may rise to the hard one without asking anybody.
TEST(UringBackend, RaisesTheSoftMemoryLockLimit) {
  in_child([] {
    rlimit limit;
    ASSERT_EQ(::getrlimit(RLIMIT_MEMLOCK, &limit), 0);
    ASSERT_GE(limit.rlim_max, 2 * kMiB);
    limit.rlim_cur = kBlock;
    ASSERT_EQ(::setrlimit(RLIMIT_MEMLOCK, &limit), 0);
    drop_root();
    const auto backend = make_uring();
    if (!backend) return;
    AlignedBytes memory(kMiB);
    backend->register_buffer(memory.all());
    EXPECT_TRUE(backend->is_registered(memory.all()));
  });
}

// The thread that submitted has ended before another reaps.
TEST(UringBackend, ChangesHandsBetweenThreads) {
  auto backend = make_uring();
  if (!backend) return;
  const TempDir dir;
  AlignedBytes memory(8 * kMiB);
  fill_random(memory.all(), print_seed());
  auto file = backend->open(dir / "a", OpenMode::write_direct);
  ASSERT_TRUE(file.has_value());
  std::jthread([&] {
    for (std::size_t at = 0; at < memory.size(); at += kMiB) {
      backend->submit_write_and_sync(*file, memory.part(at, kMiB), at, at);
    }
  }).join();
  std::array<Completion, 1> out;
  while (backend->in_flight() > 0) {
    ASSERT_EQ(backend->reap(out, true), 1u);
    EXPECT_EQ(out[0].result, static_cast<std::int64_t>(kMiB));
  }
  std::jthread([owned = std::move(backend)]() mutable { owned.reset(); }).join();
  EXPECT_TRUE(equal(file_bytes(dir / "a"), memory.all()));
}

}  // namespace
}  // namespace ringtail::io

// Choosing a backend, above all where the kernel refuses io_uring.
#include "io/backend.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstddef>
#include <sstream>

#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include "unit/io/io_test_support.h"

namespace ringtail::io {
namespace {

// From now on io_uring_setup fails with `error` in this process, as in a container's seccomp profile.
bool forbid_io_uring(int error) {
  std::array<sock_filter, 4> program{{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  }};
  const sock_fprog filter{program.size(), program.data()};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

std::size_t occurrences(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

class ForbiddenIoUring : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Errno, ForbiddenIoUring, ::testing::Values(EPERM, EACCES, ENOSYS, ENOMEM));

TEST_P(ForbiddenIoUring, FallsBackToPwriteAndSaysSoOnce) {
  in_child([] {
    ASSERT_TRUE(forbid_io_uring(GetParam()));
    std::ostringstream told;
    spdlog::register_logger(
        std::make_shared<spdlog::logger>("ringtail", std::make_shared<spdlog::sinks::ostream_sink_st>(told)));
    const TempDir dir;
    AlignedBytes bytes(kBlock);
    fill_random(bytes.all(), 1);
    for (const std::string name : {"a", "b"}) {
      const auto backend = make_backend(IoBackend::automatic, 4);
      ASSERT_TRUE(backend.has_value());
      EXPECT_EQ((*backend)->name(), "pwrite");
      const auto file = (*backend)->open(dir / name, OpenMode::write_direct);
      ASSERT_TRUE(file.has_value()) << file.error().message;
      (*backend)->submit_write_and_sync(*file, bytes.all(), 0, 1);
      EXPECT_EQ(reap_one(**backend).result, static_cast<std::int64_t>(kBlock));
      EXPECT_TRUE(equal(file_bytes(dir / name), bytes.all()));
    }
    EXPECT_EQ(occurrences(told.str(), "io_uring is not available"), 1u) << told.str();
  });
}

TEST_P(ForbiddenIoUring, IsUnsupportedWhenAskedFor) {
  in_child([] {
    ASSERT_TRUE(forbid_io_uring(GetParam()));
    const auto backend = make_backend(IoBackend::io_uring, 4);
    ASSERT_FALSE(backend.has_value());
    EXPECT_EQ(backend.error().code, Code::unsupported);
    EXPECT_EQ(backend.error().os_errno, GetParam());
  });
}

TEST(MakeBackend, GivesWhatWasAskedFor) {
  EXPECT_EQ((*make_backend(IoBackend::pwrite, 1))->name(), "pwrite");
  const auto chosen = make_backend(IoBackend::automatic, kMaxDepth);
  ASSERT_TRUE(chosen.has_value());
  const bool has_uring = make_backend(IoBackend::io_uring, 1).has_value();
  EXPECT_EQ((*chosen)->name(), has_uring ? "io_uring" : "pwrite");
}

TEST(MakeBackend, RefusesADepthOutOfRange) {
  for (const unsigned depth : {0u, kMaxDepth + 1}) {
    const auto backend = make_backend(IoBackend::automatic, depth);
    ASSERT_FALSE(backend.has_value());
    EXPECT_EQ(backend.error().code, Code::invalid_argument);
    EXPECT_NE(backend.error().message.find(std::to_string(depth)), std::string::npos);
  }
}

TEST(FileTest, ClosesItsDescriptorOnceWhenMoved) {
  const int fd = ::dup(0);
  ASSERT_GE(fd, 0);
  {
    File first(fd);
    File second(std::move(first));
    EXPECT_FALSE(first.is_open());  // NOLINT(bugprone-use-after-move): what is tested
    File third;
    third = std::move(second);
    EXPECT_EQ(third.fd(), fd);
    EXPECT_GE(::fcntl(fd, F_GETFD), 0);
    third = File();
    EXPECT_EQ(::fcntl(fd, F_GETFD), -1);
  }
}

}  // namespace
}  // namespace ringtail::io

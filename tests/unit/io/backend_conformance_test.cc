// The contract of io::Backend, checked on every implementation that this kernel allows, and on the
// fault-injecting wrapper without faults.
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <map>

#include "support/faulty_backend.h"
#include "unit/io/io_test_support.h"

namespace ringtail::io {
namespace {

struct Kind {
  std::string name;
  IoBackend backend;
  bool wrapped;
};

std::vector<Kind> kinds() {
  std::vector<Kind> all{{"pwrite", IoBackend::pwrite, false}, {"faulty_pwrite", IoBackend::pwrite, true}};
  if (const auto uring = make_backend(IoBackend::io_uring, 1)) {
    all.push_back({"io_uring", IoBackend::io_uring, false});
    all.push_back({"faulty_io_uring", IoBackend::io_uring, true});
  } else {
    std::cout << "not tested: " << uring.error().message << '\n';
  }
  return all;
}

class BackendTest : public ::testing::TestWithParam<Kind> {
 protected:
  static constexpr unsigned kDepth = 8;

  static std::unique_ptr<Backend> make() {
    auto backend = make_backend(GetParam().backend, kDepth);
    if (!backend) return nullptr;
    if (GetParam().wrapped) return std::make_unique<testing::FaultyBackend>(std::move(*backend));
    return std::move(*backend);
  }

  void SetUp() override { ASSERT_NE(backend_, nullptr); }

  File open_direct(const std::string& name) { return open(name, OpenMode::write_direct); }
  File open(const std::string& name, OpenMode mode) {
    auto file = backend_->open(dir_ / name, mode);
    EXPECT_TRUE(file.has_value()) << file.error().message;
    return file ? std::move(*file) : File();
  }
  File open_buffered(const std::string& name) {
    return File(::open((dir_ / name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  }

  TempDir dir_;
  std::unique_ptr<Backend> backend_ = make();
};

void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }

INSTANTIATE_TEST_SUITE_P(Every, BackendTest, ::testing::ValuesIn(kinds()),
                         [](const auto& tested) { return tested.param.name; });

// --- Data ----------------------------------------------------------------------------------------

TEST_P(BackendTest, GivesBackWhatWasWritten) {
  AlignedBytes written(kMiB), read(kMiB);
  fill_random(written.all(), print_seed());
  const File file = open_direct("a");
  backend_->submit_write(file, written.all(), 4 * kBlock, 17);
  const Completion write = reap_one(*backend_);
  EXPECT_EQ(write.token, 17u);
  EXPECT_EQ(write.result, static_cast<std::int64_t>(kMiB));
  backend_->submit_read(file, read.all(), 4 * kBlock, ~std::uint64_t{0});
  const Completion completion = reap_one(*backend_);
  EXPECT_EQ(completion.token, ~std::uint64_t{0});
  EXPECT_EQ(completion.result, static_cast<std::int64_t>(kMiB));
  EXPECT_TRUE(equal(written.all(), read.all()));
}

TEST_P(BackendTest, TakesAnySizeAndOffsetInBufferedFiles) {
  AlignedBytes bytes(3 * kBlock);
  fill_random(bytes.all(), print_seed());
  const File file = open_buffered("a");
  std::uint64_t at = 0;
  for (const std::size_t size : {1u, 511u, 4095u, 4097u}) {
    const auto part = bytes.part(7, size);
    backend_->submit_write(file, part, at, size);
    EXPECT_EQ(reap_one(*backend_).result, static_cast<std::int64_t>(size));
    AlignedBytes read(2 * kBlock);
    backend_->submit_read(file, read.part(3, size), at, size);
    EXPECT_EQ(reap_one(*backend_).result, static_cast<std::int64_t>(size));
    EXPECT_TRUE(equal(read.part(3, size), part));
    at += size;
  }
}

TEST_P(BackendTest, CompletesEmptyTransfersWithZero) {
  const File file = open_buffered("a");
  backend_->submit_write(file, {}, 0, 1);
  EXPECT_EQ(reap_one(*backend_).result, 0);
  backend_->submit_write_and_sync(file, {}, 0, 2);
  EXPECT_EQ(reap_one(*backend_).result, 0);
  backend_->submit_read(file, {}, 0, 3);
  EXPECT_EQ(reap_one(*backend_).result, 0);
}

// File systems that fall back to buffered I/O by themselves may accept it.
TEST_P(BackendTest, MisalignedDirectWritesAreRefusedOrDone) {
  AlignedBytes bytes(2 * kBlock);
  fill_random(bytes.all(), print_seed());
  const File file = open_direct("a");
  backend_->submit_write(file, bytes.part(1, 100), 3, 1);
  const std::int64_t result = reap_one(*backend_).result;
  if (result == 100) {
    const auto stored = file_bytes(dir_ / "a");
    ASSERT_EQ(stored.size(), 103u);
    EXPECT_TRUE(equal(std::span(stored).subspan(3), bytes.part(1, 100)));
  } else {
    EXPECT_EQ(result, -EINVAL);
    EXPECT_EQ(std::filesystem::file_size(dir_ / "a"), 0u);
  }
}

TEST_P(BackendTest, KeepsEveryCompletionWhenMoreIsSubmittedThanItsDepth) {
  constexpr std::size_t kWrites = 4 * kDepth + 3;
  AlignedBytes bytes(kWrites * kMiB);
  fill_random(bytes.all(), print_seed());
  const File file = open_direct("a");
  for (std::size_t i = 0; i < kWrites; ++i) {
    backend_->submit_write(file, bytes.part(i * kMiB, kMiB), i * kMiB, 1000 + i);
  }
  EXPECT_EQ(backend_->in_flight(), kWrites);
  std::map<std::uint64_t, std::int64_t> results;
  std::array<Completion, 5> out;
  while (backend_->in_flight() > 0) {
    const std::size_t count = backend_->reap(out, true);
    ASSERT_GT(count, 0u);
    for (std::size_t i = 0; i < count; ++i) {
      EXPECT_TRUE(results.emplace(out[i].token, out[i].result).second) << "twice: " << out[i].token;
    }
  }
  EXPECT_EQ(results.size(), kWrites);
  for (const auto& [token, result] : results) EXPECT_EQ(result, static_cast<std::int64_t>(kMiB)) << token;
  EXPECT_TRUE(equal(file_bytes(dir_ / "a"), bytes.all()));
}

TEST_P(BackendTest, MixesWritesSyncsAndReadsInFlight) {
  constexpr std::size_t kRounds = 50;
  AlignedBytes bytes(kRounds * kBlock), read(kRounds * kBlock);
  fill_random(bytes.all(), print_seed());
  const File written = open_direct("a");
  const File source = open_buffered("b");
  ASSERT_EQ(::pwrite(source.fd(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  std::array<Completion, 4 * kRounds> out;
  std::size_t reaped = 0;
  for (std::size_t i = 0; i < kRounds; ++i) {
    const std::uint64_t at = i * kBlock;
    const auto part = bytes.part(at, kBlock);
    if (i % 2 == 0) {
      backend_->submit_write(written, part, at, 4 * i);
    } else {
      backend_->submit_write_and_sync(written, part, at, 4 * i);
    }
    backend_->submit_sync(written, 4 * i + 1);
    backend_->submit_read(source, read.part(at, kBlock), at, 4 * i + 2);
    reaped += backend_->reap(std::span(out).subspan(reaped), false);
  }
  while (backend_->in_flight() > 0) reaped += backend_->reap(std::span(out).subspan(reaped), true);
  ASSERT_EQ(reaped, 3 * kRounds);
  for (const Completion& completion : std::span(out).first(reaped)) {
    EXPECT_EQ(completion.result, completion.token % 4 == 1 ? 0 : static_cast<std::int64_t>(kBlock));
  }
  EXPECT_TRUE(equal(file_bytes(dir_ / "a"), bytes.all()));
  EXPECT_TRUE(equal(read.all(), bytes.all()));
}

TEST_P(BackendTest, LinkedWriteAndSyncIsOneCompletion) {
  AlignedBytes bytes(kMiB);
  fill_random(bytes.all(), print_seed());
  const File file = open_direct("a");
  backend_->submit_write_and_sync(file, bytes.all(), 0, 5);
  const Completion completion = reap_one(*backend_);
  EXPECT_EQ(completion.token, 5u);
  EXPECT_EQ(completion.result, static_cast<std::int64_t>(kMiB));
  EXPECT_TRUE(equal(file_bytes(dir_ / "a"), bytes.all()));
}

TEST_P(BackendTest, SyncAloneCompletesWithZero) {
  const File file = open_direct("a");
  backend_->submit_sync(file, 6);
  const Completion completion = reap_one(*backend_);
  EXPECT_EQ(completion.token, 6u);
  EXPECT_EQ(completion.result, 0);
}

TEST_P(BackendTest, ReadsEndAtTheEndOfTheFile) {
  AlignedBytes bytes(5000);
  fill_random(bytes.all(), print_seed());
  const File file = open_buffered("a");
  ASSERT_EQ(::pwrite(file.fd(), bytes.data(), bytes.size(), 0), 5000);
  for (const OpenMode mode : {OpenMode::read, OpenMode::read_direct}) {
    const File reader = open("a", mode);
    AlignedBytes read(16 * kBlock);
    backend_->submit_read(reader, read.all(), 0, 1);
    EXPECT_EQ(reap_one(*backend_).result, 5000);
    EXPECT_TRUE(equal(read.part(0, 5000), bytes.all()));
    backend_->submit_read(reader, read.all(), kBlock, 2);
    EXPECT_EQ(reap_one(*backend_).result, 5000 - static_cast<std::int64_t>(kBlock));
    backend_->submit_read(reader, read.all(), 2 * kBlock, 3);
    EXPECT_EQ(reap_one(*backend_).result, 0);
  }
}

TEST_P(BackendTest, ReportsABadDescriptorInTheCompletion) {
  AlignedBytes bytes(kBlock);
  const File closed;
  backend_->submit_write(closed, bytes.all(), 0, 1);
  EXPECT_EQ(reap_one(*backend_).result, -EBADF);
  backend_->submit_write_and_sync(closed, bytes.all(), 0, 2);
  EXPECT_EQ(reap_one(*backend_).result, -EBADF);
  backend_->submit_sync(closed, 3);
  EXPECT_EQ(reap_one(*backend_).result, -EBADF);
  backend_->submit_read(closed, bytes.all(), 0, 4);
  EXPECT_EQ(reap_one(*backend_).result, -EBADF);
}

// The null device takes every write and cannot be synced.
TEST_P(BackendTest, ReportsAFailedSync) {
  AlignedBytes bytes(kBlock);
  const File null(::open("/dev/null", O_WRONLY | O_CLOEXEC));
  backend_->submit_write(null, bytes.all(), 0, 1);
  EXPECT_EQ(reap_one(*backend_).result, static_cast<std::int64_t>(kBlock));
  backend_->submit_sync(null, 2);
  EXPECT_EQ(reap_one(*backend_).result, -EINVAL);
  backend_->submit_write_and_sync(null, bytes.all(), 0, 3);
  EXPECT_EQ(reap_one(*backend_).result, -EINVAL);
}

// A write that crosses the file size limit is short; going on meets the cause. The sync that is linked
// to it must not turn that into a success.
TEST_P(BackendTest, ShortWritesAreContinuedToTheirCause) {
  in_child([&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{5 * kBlock, RLIM_INFINITY};
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
    const auto backend = make();
    AlignedBytes bytes(8 * kBlock);
    fill_random(bytes.all(), 1);
    const File file = open_buffered("a");
    backend->submit_write(file, bytes.all(), 0, 1);
    EXPECT_EQ(reap_one(*backend).result, -EFBIG);
    EXPECT_TRUE(equal(file_bytes(dir_ / "a"), bytes.part(0, 5 * kBlock)));
    backend->submit_write_and_sync(file, bytes.all(), 0, 2);
    EXPECT_EQ(reap_one(*backend).result, -EFBIG);
  });
}

TEST_P(BackendTest, ReportsMemoryThatMayNotBeRead) {
  const File file = open_direct("a");
  void* const page = ::mmap(nullptr, kBlock, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(page, MAP_FAILED);
  backend_->submit_write(file, {static_cast<const std::byte*>(page), kBlock}, 0, 1);
  EXPECT_EQ(reap_one(*backend_).result, -EFAULT);
  ::munmap(page, kBlock);
}

TEST_P(BackendTest, ReapWithoutOperationsReturnsAtOnce) {
  std::array<Completion, 1> out;
  EXPECT_EQ(backend_->reap(out, true), 0u);
  EXPECT_EQ(backend_->reap(out, false), 0u);
  EXPECT_EQ(backend_->in_flight(), 0u);
}

TEST_P(BackendTest, DestructionWaitsForOperationsInFlight) {
  AlignedBytes bytes(kDepth * kMiB);
  fill_random(bytes.all(), print_seed());
  const File file = open_direct("a");
  for (std::size_t i = 0; i < kDepth; ++i) {
    backend_->submit_write_and_sync(file, bytes.part(i * kMiB, kMiB), i * kMiB, i);
  }
  backend_.reset();
  EXPECT_TRUE(equal(file_bytes(dir_ / "a"), bytes.all()));
}

TEST_P(BackendTest, AForkedChildThatDestroysItTakesNothingFromTheParent) {
  AlignedBytes bytes(kDepth * kMiB);
  const File file = open_direct("a");
  for (std::size_t i = 0; i < kDepth; ++i) {
    backend_->submit_write(file, bytes.part(i * kMiB, kMiB), i * kMiB, i);
  }
  in_child([&] { backend_.reset(); });
  std::array<Completion, kDepth> out;
  std::size_t reaped = 0;
  while (backend_->in_flight() > 0) reaped += backend_->reap(std::span(out).subspan(reaped), true);
  EXPECT_EQ(reaped, std::size_t{kDepth});
}

TEST_P(BackendTest, WritesFromRegisteredMemory) {
  AlignedBytes ring(32 * kMiB), other(kMiB);
  fill_random(ring.part(0, 4 * kMiB), print_seed());
  const File file = open_direct("a");
  for (int round = 0; round < 3; ++round) {  // a slot is used again
    backend_->register_buffer(other.all());
    backend_->register_buffer(ring.all());
    backend_->submit_write_and_sync(file, ring.part(kBlock, kMiB), 0, 1);
    EXPECT_EQ(reap_one(*backend_).result, static_cast<std::int64_t>(kMiB));
    EXPECT_TRUE(equal(file_bytes(dir_ / "a"), ring.part(kBlock, kMiB)));
    backend_->unregister_buffer(ring.all());
    backend_->submit_write(file, ring.part(2 * kBlock, kMiB), 0, 2);
    EXPECT_EQ(reap_one(*backend_).result, static_cast<std::int64_t>(kMiB));
    EXPECT_TRUE(equal(file_bytes(dir_ / "a"), ring.part(2 * kBlock, kMiB)));
    backend_->unregister_buffer(other.all());
  }
}

// --- Metadata ------------------------------------------------------------------------------------

TEST_P(BackendTest, PreallocateSetsTheSizeReservesAndNeverShrinks) {
  const File file = open_direct("a");
  ASSERT_TRUE(backend_->preallocate(file, kMiB));
  struct stat status;
  ASSERT_EQ(::fstat(file.fd(), &status), 0);
  EXPECT_EQ(status.st_size, static_cast<off_t>(kMiB));
  EXPECT_GE(status.st_blocks * 512, static_cast<blkcnt_t>(kMiB));
  EXPECT_TRUE(equal(file_bytes(dir_ / "a"), std::vector<std::byte>(kMiB)));
  ASSERT_TRUE(backend_->preallocate(file, kBlock));
  ASSERT_TRUE(backend_->preallocate(file, 0));
  EXPECT_EQ(std::filesystem::file_size(dir_ / "a"), kMiB);
  ASSERT_TRUE(backend_->truncate(file, 100));
  EXPECT_EQ(std::filesystem::file_size(dir_ / "a"), 100u);
}

TEST_P(BackendTest, PreallocateKeepsWhatWasWritten) {
  AlignedBytes bytes(kBlock);
  fill_random(bytes.all(), print_seed());
  const File file = open_direct("a");
  backend_->submit_write(file, bytes.all(), 0, 1);
  EXPECT_EQ(reap_one(*backend_).result, static_cast<std::int64_t>(kBlock));
  ASSERT_TRUE(backend_->preallocate(file, kMiB));
  const auto stored = file_bytes(dir_ / "a");
  ASSERT_EQ(stored.size(), kMiB);
  EXPECT_TRUE(equal(std::span(stored).first(kBlock), bytes.all()));
}

TEST_P(BackendTest, RenamesUnlinksAndSyncs) {
  const File file = open_direct("a");
  EXPECT_TRUE(backend_->sync_file(file));
  EXPECT_TRUE(backend_->rename(dir_ / "a", dir_ / "b"));
  EXPECT_TRUE(backend_->sync_directory(dir_.path()));
  EXPECT_FALSE(std::filesystem::exists(dir_ / "a"));
  EXPECT_TRUE(std::filesystem::exists(dir_ / "b"));
  EXPECT_TRUE(backend_->unlink(dir_ / "b"));
  EXPECT_FALSE(std::filesystem::exists(dir_ / "b"));
}

TEST_P(BackendTest, MetadataErrorsNameTheFileAndItsCause) {
  const std::string missing = (dir_ / "missing").string();
  const auto check = [&](const auto& result, Code code) {
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error().code, code);
    EXPECT_NE(result.error().message.find(missing), std::string::npos) << result.error().message;
  };
  check(backend_->open(missing, OpenMode::read), Code::not_found);
  check(backend_->open(missing + "/a", OpenMode::write_direct), Code::not_found);
  check(backend_->rename(missing, dir_ / "b"), Code::not_found);
  check(backend_->unlink(missing), Code::not_found);
  check(backend_->sync_directory(missing), Code::not_found);
  ASSERT_TRUE(open_direct("a").is_open());
  const File reader = open("a", OpenMode::read);
  EXPECT_EQ(backend_->preallocate(reader, kBlock).error().os_errno, EBADF);
  EXPECT_EQ(backend_->truncate(reader, kBlock).error().os_errno, EINVAL);
  EXPECT_NE(backend_->truncate(reader, kBlock).error().message.find(dir_ / "a"), std::string::npos);
  EXPECT_EQ(backend_->sync_file(File()).error().os_errno, EBADF);
}

TEST_P(BackendTest, FilesAreNotInheritedByExec) {
  EXPECT_TRUE(::fcntl(open_direct("a").fd(), F_GETFD) & FD_CLOEXEC);
  EXPECT_TRUE(::fcntl(open("a", OpenMode::read).fd(), F_GETFD) & FD_CLOEXEC);
  EXPECT_TRUE(::fcntl(open("a", OpenMode::read_direct).fd(), F_GETFD) & FD_CLOEXEC);
}

// --- A full disk ---------------------------------------------------------------------------------

// Mounts a tmpfs of one MiB for this process alone. False where that is not permitted.
bool mount_small_disk(const std::filesystem::path& at) {
  if (::unshare(CLONE_NEWNS) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
  return ::mount("tmpfs", at.c_str(), "tmpfs", 0, "size=1m,mode=0700") == 0;
}

void check_small_disk(Backend& backend, const std::filesystem::path& dir) {
  AlignedBytes bytes(2 * kMiB);
  fill_random(bytes.all(), 1);
  auto file = backend.open(dir / "a", OpenMode::write_direct);
  ASSERT_TRUE(file.has_value());
  const Status full = backend.preallocate(*file, 2 * kMiB);
  ASSERT_FALSE(full.has_value());
  EXPECT_EQ(full.error().code, Code::no_space);
  EXPECT_NE(full.error().message.find("retention"), std::string::npos) << full.error().message;
  EXPECT_EQ(std::filesystem::file_size(dir / "a"), 0u);

  backend.submit_write(*file, bytes.all(), 0, 1);
  EXPECT_EQ(reap_one(backend).result, -ENOSPC);
  backend.submit_write_and_sync(*file, bytes.all(), 0, 2);
  EXPECT_EQ(reap_one(backend).result, -ENOSPC);

  ASSERT_TRUE(backend.truncate(*file, 0));  // space returns
  ASSERT_TRUE(backend.preallocate(*file, kMiB / 2));
  backend.submit_write_and_sync(*file, bytes.part(0, kMiB / 2), 0, 3);
  EXPECT_EQ(reap_one(backend).result, static_cast<std::int64_t>(kMiB / 2));
  EXPECT_TRUE(equal(file_bytes(dir / "a"), bytes.part(0, kMiB / 2)));
}

TEST_P(BackendTest, ReportsAFullDisk) {
  in_child([&] {
    if (mount_small_disk(dir_.path())) return check_small_disk(*make(), dir_.path());
    const auto backend = make();
    AlignedBytes bytes(kBlock);
    const File full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
    backend->submit_write(full, bytes.all(), 0, 1);
    EXPECT_EQ(reap_one(*backend).result, -ENOSPC);
    backend->submit_write_and_sync(full, bytes.all(), 0, 2);
    EXPECT_EQ(reap_one(*backend).result, -ENOSPC);
  });
}

}  // namespace
}  // namespace ringtail::io

#include "shm/lock_file.h"

#include <sys/syscall.h>

#include <atomic>
#include <thread>
#include <vector>

#include "unit/shm/shm_test_support.h"

namespace ringtail::shm {
namespace {

LockFile open_file(const std::filesystem::path& path) {
  auto file = LockFile::open(path);
  if (!file) {
    ADD_FAILURE() << file.error().message;
    std::abort();
  }
  return std::move(*file);
}

bool try_lock(const LockFile& file, std::uint32_t byte) {
  const auto locked = file.try_lock(byte);
  EXPECT_TRUE(locked.has_value()) << locked.error().message;
  return locked.value_or(false);
}

TEST(LockFileTest, ExcludesOthersByteByByte) {
  const TempDir dir;
  const LockFile a = open_file(dir / "lock");
  const LockFile b = open_file(dir / "lock");
  EXPECT_TRUE(try_lock(a, 5));
  EXPECT_TRUE(try_lock(a, 5)) << "again";
  EXPECT_FALSE(try_lock(b, 5));
  EXPECT_TRUE(try_lock(b, 4));
  EXPECT_TRUE(try_lock(b, 6));
  EXPECT_FALSE(try_lock(a, 6));
  a.unlock(5);
  EXPECT_TRUE(try_lock(b, 5));
}

TEST(LockFileTest, ItsLocksEndWithIt) {
  const TempDir dir;
  const LockFile b = open_file(dir / "lock");
  {
    const LockFile a = open_file(dir / "lock");
    ASSERT_TRUE(try_lock(a, 0xffffffff));
    EXPECT_FALSE(try_lock(b, 0xffffffff));
  }
  EXPECT_TRUE(try_lock(b, 0xffffffff));
}

TEST(LockFileTest, ErrorsNameTheFile) {
  const TempDir dir;
  const auto missing = LockFile::open(dir / "none" / "lock");
  ASSERT_FALSE(missing.has_value());
  EXPECT_EQ(missing.error().code, Code::not_found);
  EXPECT_NE(missing.error().message.find("none/lock"), std::string::npos) << missing.error().message;
}

TEST(LockFileTest, AForkedChildHasNoneOfIt) {
  const TempDir dir;
  const LockFile file = open_file(dir / "lock");
  ASSERT_TRUE(try_lock(file, 1));
  const std::uint32_t generation = fork_generation();
  const int number = file.fd();
  Child child([&](const Line&) {
    EXPECT_EQ(fork_generation(), generation + 1);
    EXPECT_EQ(file.fd(), -1);
    const auto locked = file.try_lock(2);
    ASSERT_FALSE(locked.has_value());
    EXPECT_EQ(locked.error().code, Code::closed);

    // The number is free for other files, which the old object must not touch.
    const LockFile own = open_file(dir / "own");
    EXPECT_EQ(own.fd(), number);
    ASSERT_TRUE(try_lock(own, 1));
    file.unlock(1);
    EXPECT_FALSE(try_lock(open_file(dir / "own"), 1));

    Child grandchild([&](const Line&) { EXPECT_EQ(fork_generation(), generation + 2); });
    EXPECT_EQ(grandchild.wait(), 0);
  });
  EXPECT_EQ(child.wait(), 0);
  EXPECT_EQ(fork_generation(), generation);
  EXPECT_FALSE(try_lock(open_file(dir / "lock"), 1)) << "the child's end is nothing to the parent's lock";
}

// A parent locks, forks, and is killed; the child lives on. Is the lock free?
bool is_free_after_death_of_parent(pid_t (*make_child)()) {
  const TempDir dir;
  const LockFile ours = open_file(dir / "lock");
  Child parent([&](const Line& line) {
    const LockFile file = open_file(dir / "lock");
    ASSERT_TRUE(try_lock(file, 0));
    if (make_child() == 0) {
      line.say('c');
      line.hear();
      ::_exit(0);
    }
    ::pause();
  });
  EXPECT_EQ(parent.line().hear(), 'c');
  EXPECT_FALSE(try_lock(ours, 0));
  parent.kill();
  const bool is_free = try_lock(ours, 0);
  EXPECT_FALSE(parent.line().is_dead()) << "the child lives";
  return is_free;
}

TEST(LockFileTest, ADeadParentsLockIsFreeWhileItsChildLives) {
  EXPECT_TRUE(is_free_after_death_of_parent([] { return ::fork(); }));
}

// Says that the handler is what does it, and what raw clones are in for, as the header tells.
TEST(LockFileTest, AChildMadeBehindOurBackKeepsTheLock) {
  EXPECT_FALSE(is_free_after_death_of_parent([] { return ::_Fork(); }));
}

TEST(LockFileTest, NoForkAmidOpeningAndClosingLeaksALock) {
  const TempDir dir;
  constexpr std::uint32_t kThreads = 3;
  std::atomic<bool> is_over{false};
  std::atomic<unsigned> opened{0};
  std::atomic<unsigned> refused{0};
  std::vector<std::jthread> threads;
  for (std::uint32_t byte = 0; byte < kThreads; ++byte) {
    threads.emplace_back([&, byte] {
      while (!is_over) {
        const LockFile file = open_file(dir / "lock");
        // Nobody else wants this byte, so the only rival is a child that has a copy of the last file: for
        // a moment, until its fork handler has run. If it kept it, this would never end.
        while (!try_lock(file, byte)) ++refused;
        ++opened;
      }
    });
  }
  // Children that live on while the threads open and lock.
  std::array<int, 2> end_of_test{};
  ASSERT_EQ(::pipe2(end_of_test.data(), O_CLOEXEC), 0);
  std::vector<pid_t> children;
  for (int i = 0; i < 100; ++i) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      char c = 0;
      ::close(end_of_test[1]);
      (void)!::read(end_of_test[0], &c, 1);
      ::_exit(0);
    }
    children.push_back(child);
  }
  is_over = true;
  threads.clear();
  std::cout << opened << " files opened, " << refused << " times refused for a moment\n";
  ::close(end_of_test[0]);
  ::close(end_of_test[1]);
  for (const pid_t child : children) EXPECT_EQ(::waitpid(child, nullptr, 0), child);
}

}  // namespace
}  // namespace ringtail::shm

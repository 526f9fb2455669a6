#include "shm/byte_lock.h"

#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "unit/shm/shm_test_support.h"

namespace ringtail::shm {
namespace {

class ByteLockTest : public ::testing::Test {
 protected:
  static ByteLockFile open(const std::filesystem::path& path) {
    auto file = ByteLockFile::open(path);
    if (!file) {
      ADD_FAILURE() << file.error().message;
      std::abort();
    }
    return std::move(*file);
  }
  static bool lock(const ByteLockFile& file, std::uint32_t index) {
    const auto locked = file.lock(index);
    EXPECT_TRUE(locked.has_value()) << locked.error().message;
    return locked.value_or(false);
  }
  static bool is_locked(const ByteLockFile& file, std::uint32_t index) {
    const auto locked = file.is_locked(index);
    EXPECT_TRUE(locked.has_value()) << locked.error().message;
    return locked.value_or(false);
  }

  TempDir dir_;
  std::filesystem::path path_ = dir_ / "slots.lock";
};

TEST_F(ByteLockTest, SeesItsOwnLocksAndThoseOfOthers) {
  const ByteLockFile a = open(path_);
  const ByteLockFile b = open(path_);
  EXPECT_FALSE(is_locked(a, 7));
  ASSERT_TRUE(lock(a, 7));
  EXPECT_TRUE(is_locked(a, 7));
  EXPECT_TRUE(is_locked(b, 7));
  EXPECT_FALSE(is_locked(b, 6));
  EXPECT_FALSE(is_locked(b, 8));
  EXPECT_FALSE(lock(b, 7));
  a.unlock(7);
  EXPECT_FALSE(is_locked(a, 7));
  EXPECT_TRUE(lock(b, 7));
}

TEST_F(ByteLockTest, LookingDoesNotDisturbALock) {
  const ByteLockFile a = open(path_);
  ASSERT_TRUE(lock(a, 1));
  {
    const ByteLockFile b = open(path_);
    EXPECT_TRUE(is_locked(b, 1));
  }
  // Process-owned (POSIX) locks would be gone now, with the first close of any descriptor of the file.
  EXPECT_TRUE(is_locked(a, 1));
  EXPECT_FALSE(lock(open(path_), 1));
}

TEST_F(ByteLockTest, ErrorsNameTheFile) {
  const auto file = ByteLockFile::open(dir_ / "none" / "slots.lock");
  ASSERT_FALSE(file.has_value());
  EXPECT_EQ(file.error().code, Code::not_found);
  EXPECT_NE(file.error().message.find("none/slots.lock"), std::string::npos);
}

TEST_F(ByteLockTest, ThreadsShareOneFile) {
  constexpr std::uint32_t kThreads = 8;
  constexpr std::uint32_t kBytes = 512;
  const ByteLockFile file = open(path_);
  {
    std::vector<std::jthread> threads;
    for (std::uint32_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (std::uint32_t i = t; i < kBytes; i += kThreads) {
          EXPECT_TRUE(lock(file, i));
          EXPECT_TRUE(is_locked(file, i));
          if (i % 3 == 0) file.unlock(i);
        }
      });
    }
  }
  const ByteLockFile other = open(path_);
  for (std::uint32_t i = 0; i < kBytes; ++i) EXPECT_EQ(is_locked(other, i), i % 3 != 0) << i;
}

// Processes with random bytes each are killed one after the other; at each moment exactly the bytes of
// the living are locked.
TEST_F(ByteLockTest, EveryDeathIsSeenAndNoneBeforeItsTime) {
  constexpr std::uint32_t kProcesses = 12;
  constexpr std::uint32_t kBytes = 512;
  std::mt19937_64 random(print_seed());
  std::vector<std::uint32_t> owner_of(kBytes);
  for (std::uint32_t& owner : owner_of) owner = static_cast<std::uint32_t>(random() % (kProcesses + 1));

  const ByteLockFile observer = open(path_);
  std::vector<std::unique_ptr<Child>> processes;
  for (std::uint32_t p = 0; p < kProcesses; ++p) {
    processes.push_back(std::make_unique<Child>([&, p](const Line& line) {
      const ByteLockFile own = open(path_);
      for (std::uint32_t i = 0; i < kBytes; ++i) {
        if (owner_of[i] == p) {
          ASSERT_TRUE(lock(own, i));
        }
      }
      line.say('l');
      line.hear();
    }));
  }
  for (const auto& process : processes) ASSERT_EQ(process->line().hear(), 'l');

  std::vector<bool> is_alive(kProcesses + 1, true);
  is_alive[kProcesses] = false;  // stands for bytes without owner
  for (std::uint32_t dead = 0; dead < kProcesses; ++dead) {
    for (std::uint32_t i = 0; i < kBytes; ++i)
      ASSERT_EQ(is_locked(observer, i), is_alive[owner_of[i]]) << "byte " << i << ", " << dead << " dead";
    std::uint32_t victim = 0;
    do {
      victim = static_cast<std::uint32_t>(random() % kProcesses);
    } while (!is_alive[victim]);
    processes[victim]->kill();
    is_alive[victim] = false;
  }
  for (std::uint32_t i = 0; i < kBytes; ++i) EXPECT_FALSE(is_locked(observer, i)) << i;
}

TEST_F(ByteLockTest, AStoppedProcessIsNotDead) {
  const ByteLockFile observer = open(path_);
  Child process([&](const Line& line) {
    const ByteLockFile own = open(path_);
    ASSERT_TRUE(lock(own, 3));
    line.say('l');
    line.hear();
  });
  ASSERT_EQ(process.line().hear(), 'l');
  ::kill(process.pid(), SIGSTOP);
  int status = 0;
  ASSERT_EQ(::waitpid(process.pid(), &status, WUNTRACED), process.pid());
  EXPECT_TRUE(WIFSTOPPED(status) && is_locked(observer, 3));
  process.kill();
  EXPECT_FALSE(is_locked(observer, 3));
}

TEST_F(ByteLockTest, AForkedChildLooksButHoldsNothing) {
  std::optional<ByteLockFile> file(open(path_));
  ASSERT_TRUE(lock(*file, 3));
  Child child([&](const Line& line) {
    EXPECT_TRUE(is_locked(*file, 3));
    file->unlock(3);
    EXPECT_TRUE(is_locked(*file, 3)) << "it is the parent's";
    const auto locked = file->lock(4);
    ASSERT_FALSE(locked.has_value());
    EXPECT_EQ(locked.error().code, Code::closed);
    line.say('c');
    line.hear();
    EXPECT_FALSE(is_locked(*file, 3)) << "the parent closed it";
    file.reset();
  });
  ASSERT_EQ(child.line().hear(), 'c');
  file.reset();
  child.line().say('g');
  EXPECT_EQ(child.wait(), 0);
}

}  // namespace
}  // namespace ringtail::shm

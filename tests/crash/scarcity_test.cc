// Disks and shared memory that fill and empty again, directories that cannot be written, and shared memory
// of another version. Each test runs in a mount namespace of its own (as root, or where users may make
// namespaces), with small file systems in it.
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

#include <fstream>

#include "crash/scene.h"

namespace ringtail::crash {
namespace {

using test::Process;
using test::SharedPage;
using test::wait_until;

constexpr std::size_t kMiB = 1 << 20;

void write_text(const char* path, const std::string& text) { std::ofstream(path) << text; }

// Makes mounts of this process its own.
bool leave_mounts() {
  const uid_t user = ::geteuid();
  const gid_t group = ::getegid();
  if (::unshare(CLONE_NEWNS) != 0) {
    if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return false;
    write_text("/proc/self/setgroups", "deny");
    write_text("/proc/self/uid_map", fmt::format("0 {} 1", user));
    write_text("/proc/self/gid_map", fmt::format("0 {} 1", group));
  }
  return ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

void mount_tmpfs(const std::filesystem::path& at, std::size_t bytes) {
  ASSERT_EQ(::mount("tmpfs", at.c_str(), "tmpfs", 0, fmt::format("size={},mode=0700", bytes).c_str()), 0)
      << std::strerror(errno);
}
void remount_read_only(const std::filesystem::path& at) {
  ASSERT_EQ(::mount("tmpfs", at.c_str(), "tmpfs", MS_REMOUNT | MS_RDONLY, nullptr), 0)
      << std::strerror(errno);
}

class ScarcityTest : public ::testing::Test {
 protected:
  // Runs `body` in a child with mounts of its own.
  void in_own_mounts(const std::function<void()>& body) {
    Process child("child", [&body] {
      if (!leave_mounts())
        ADD_FAILURE() << "needs a mount namespace of its own: run as root or allow user namespaces, and not "
                         "within a chroot";
      else
        body();
      return ::testing::Test::HasFailure() ? 1 : 0;
    });
    ASSERT_TRUE(wait_until([&] { return !child.is_running() || child.poll() != 0; }, "the test is through"));
    EXPECT_EQ(child.wait(), 0);
  }

  Log open_log() {
    auto log = scene_.open(KeeperMode::embedded);
    if (!log) ADD_FAILURE() << to_string(log.error());
    return *log;
  }
  static void create(const Log& log, TopicConfigs configs) {
    configs.insert({{"term.bytes", "64KiB"}, {"ring.terms", "4"}, {"segment.bytes", "1MiB"}});
    const Status created = Admin(log).create_topic({.name = kTopic, .configs = configs});
    ASSERT_TRUE(created) << to_string(created.error());
  }
  // Takes all but `bytes` of the file system's space.
  void take_space_but(std::size_t bytes) const {
    const int fd = ::open(ballast().c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    struct statvfs fs{};
    ::fstatvfs(fd, &fs);
    ASSERT_EQ(::posix_fallocate(fd, 0, static_cast<off_t>(fs.f_bavail * fs.f_bsize - bytes)), 0);
    ::close(fd);
  }
  void give_space_back() const { std::filesystem::remove(ballast()); }
  std::filesystem::path ballast() const { return scene_.dir() / "ballast"; }

  static std::optional<Error> failure(const Log& log) {
    auto topic = Admin(log).describe_topic(kTopic);
    return topic ? topic->partitions[0].failure : topic.error();
  }
  // That everything sent is there, once and in order, and that the files are in order.
  void check(std::uint64_t sent) {
    SharedPage<Ledger> all;
    ASSERT_NO_FATAL_FAILURE(read_all(scene_, *all));
    EXPECT_EQ(all->compare({}, std::array{sent}), "");
    ASSERT_NO_FATAL_FAILURE(verify_files(scene_, *all));
  }

  Scene scene_;
};

// --- The disk --------------------------------------------------------------------------------------------

TEST_F(ScarcityTest, ProducersOfAFullDiskWaitForSpace) {
  in_own_mounts([this] {
    ASSERT_NO_FATAL_FAILURE(mount_tmpfs(scene_.dir(), 64 * kMiB));
    std::atomic<std::uint64_t> sent{0};
    {
      const Log log = open_log();
      create(log, {});
      take_space_but(4 * kMiB);
      constexpr std::uint64_t total = 200'000;  // about 16 MiB
      std::thread sender([&] {
        auto producer = Producer::open(log, {.topic = kTopic});
        ASSERT_TRUE(producer);
        for (std::uint64_t number = 0; number < total; ++number) {
          auto done = producer->send(Value(0, number));
          ASSERT_TRUE(done) << to_string(producer->error());
          sent.store(number + 1);
        }
      });
      // Until it stands still, with no more than the disk has.
      for (std::uint64_t before = ~std::uint64_t{0}; before != sent.load();) {
        before = sent.load();
        ::usleep(300'000);
      }
      EXPECT_LT(sent.load(), total / 2);
      EXPECT_FALSE(failure(log)) << to_string(*failure(log));
      give_space_back();
      sender.join();
      EXPECT_EQ(sent.load(), total);
    }
    check(sent.load());
  });
}

TEST_F(ScarcityTest, ProducersOfAFullDiskAreRefusedIfTheyWantThat) {
  in_own_mounts([this] {
    ASSERT_NO_FATAL_FAILURE(mount_tmpfs(scene_.dir(), 64 * kMiB));
    std::uint64_t number = 0;
    {
      const Log log = open_log();
      create(log, {{"on.full", "fail"}});
      take_space_but(4 * kMiB);
      auto producer = Producer::open(log, {.topic = kTopic});
      ASSERT_TRUE(producer);
      // Refused for a while without a break: that is not the ring being flushed, but the disk being full.
      for (int refused = 0; refused < 300;) {
        auto sent = producer->send(Value(0, number));
        if (sent) {
          ++number, refused = 0;
        } else {
          ASSERT_EQ(sent.error(), SendError::would_block) << to_string(producer->error());
          ++refused;
          ::usleep(1000);
        }
        ASSERT_LT(number, 200'000u) << "the disk does not fill";
      }
      EXPECT_FALSE(failure(log));
      give_space_back();
      for (const std::uint64_t end = number + 50'000; number < end;) {
        auto sent = producer->send(Value(0, number));
        if (sent) {
          ++number;
        } else {
          ASSERT_EQ(sent.error(), SendError::would_block) << to_string(producer->error());
          ::usleep(100);
        }
      }
      ASSERT_TRUE(producer->flush());
    }
    check(number);
  });
}

TEST_F(ScarcityTest, PatienceWithAFullDiskEnds) {
  in_own_mounts([this] {
    ASSERT_NO_FATAL_FAILURE(mount_tmpfs(scene_.dir(), 64 * kMiB));
    std::uint64_t number = 0;
    {
      const Log log = open_log();
      create(log, {});
      take_space_but(4 * kMiB);
      auto producer = Producer::open(log, {.topic = kTopic, .max_block = std::chrono::milliseconds(500)});
      ASSERT_TRUE(producer);
      SendResult<RecordMetadata> last;
      RecordMetadata newest;
      for (; last; number += last ? 1 : 0) {
        last = producer->send(Value(0, number));
        if (last) newest = *last;
        ASSERT_LT(number, 200'000u) << "the disk does not fill";
      }
      EXPECT_EQ(last.error(), SendError::timed_out);
      EXPECT_EQ(producer->error().code, Code::timed_out);
      auto durable = producer->wait_durable(newest);
      ASSERT_FALSE(durable);
      EXPECT_EQ(durable.error(), SendError::timed_out);
      give_space_back();
      while (!producer->wait_durable(newest)) {
      }
    }
    check(number);
  });
}

// The keeper dies with a full ring on a full disk; the next one has what is in it.
TEST_F(ScarcityTest, AFullRingOutlivesTheKeeperOfAFullDisk) {
  in_own_mounts([this] {
    ASSERT_NO_FATAL_FAILURE(mount_tmpfs(scene_.dir(), 64 * kMiB));
    SharedPage<ProducerPage> page;
    {
      const Log log = open_log();
      create(log, {{"on.full", "fail"}});
    }
    take_space_but(4 * kMiB);
    Process victim("victim", [&]() -> int {
      const Log log = open_log();
      auto producer = Producer::open(log, {.topic = kTopic});
      for (int refused = 0; refused < 300;) {
        auto sent = producer->send(Value(0, page->returned.load()));
        if (sent)
          page->returned.fetch_add(1), refused = 0;
        else
          ++refused, ::usleep(1000);
      }
      page->done.store(true);
      for (;;) ::pause();
    });
    ASSERT_TRUE(wait_until([&] { return page->done.load(); }, "the ring is full",
                           [&] { return page->returned.load(); }));
    victim.kill();
    give_space_back();
    check(page->returned.load());
  });
}

// --- Shared memory ---------------------------------------------------------------------------------------

TEST_F(ScarcityTest, SharedMemoryTooSmallForATopic) {
  in_own_mounts([this] {
    ASSERT_NO_FATAL_FAILURE(mount_tmpfs(scene_.shm(), 14 * kMiB));
    const Log log = open_log();
    const Status created = Admin(log).create_topic({.name = kTopic});
    ASSERT_FALSE(created);
    EXPECT_EQ(created.error().code, Code::shared_memory_full) << to_string(created.error());
    EXPECT_NE(created.error().message.find("remount"), std::string::npos) << created.error().message;
    // Nothing is left behind, and what fits can be had.
    EXPECT_TRUE(Admin(log).list_topics()->empty());
    EXPECT_FALSE(std::filesystem::exists(scene_.partition_dir().parent_path()));
    for (const auto& file : std::filesystem::directory_iterator(scene_.shm_folder()))
      EXPECT_NE(file.path().extension(), ".ring") << file.path();
    create(log, {});
    auto producer = Producer::open(log, {.topic = kTopic});
    ASSERT_TRUE(producer) << to_string(producer.error());
    EXPECT_TRUE(producer->send("fits"));
  });
}

TEST_F(ScarcityTest, SharedMemoryTooSmallForAnything) {
  in_own_mounts([this] {
    ASSERT_NO_FATAL_FAILURE(mount_tmpfs(scene_.shm(), kMiB));
    auto log = Log::open(scene_.options(KeeperMode::embedded));
    ASSERT_FALSE(log);
    EXPECT_EQ(log.error().code, Code::shared_memory_full) << to_string(log.error());
    EXPECT_NE(log.error().message.find("remount"), std::string::npos) << log.error().message;
  });
}

// A ring cannot be replaced while there is no memory for its successor; it goes on when there is.
TEST_F(ScarcityTest, SharedMemoryTooSmallToReplaceARing) {
  in_own_mounts([this] {
    ASSERT_NO_FATAL_FAILURE(mount_tmpfs(scene_.shm(), 11 * kMiB));
    std::uint64_t number = 1;
    {
      const Log log = open_log();
      create(log, {{"claim.timeout.ms", "50"}});
      const auto filler = scene_.shm() / "filler";
      std::ofstream(filler) << std::string(kMiB / 2, 'x');
      struct statvfs fs{};
      ::statvfs(scene_.shm().c_str(), &fs);
      std::filesystem::resize_file(filler, 0);
      std::ofstream(filler) << std::string(fs.f_bavail * fs.f_bsize + kMiB / 2 - 64 * 1024, 'x');
      auto sleeper = Producer::open(log, {.topic = kTopic});
      auto producer = Producer::open(log, {.topic = kTopic, .max_block = std::chrono::milliseconds(300)});
      ASSERT_TRUE(sleeper && producer);
      ASSERT_TRUE(producer->send(Value(0, 0)));
      auto claim = sleeper->try_claim(64);  // which holds the whole ring once it is given up
      ASSERT_TRUE(claim);
      SendResult<RecordMetadata> last;
      for (; last; number += last ? 1 : 0) {
        last = producer->send(Value(0, number));
        ASSERT_LT(number, 100'000u) << "the ring was replaced without memory";
      }
      EXPECT_EQ(last.error(), SendError::timed_out);
      EXPECT_FALSE(failure(log));
      std::filesystem::remove(filler);
      for (const std::uint64_t end = number + 10'000; number < end;) {
        auto sent = producer->send(Value(0, number));
        if (sent) {
          ++number;
        } else {
          ASSERT_EQ(sent.error(), SendError::timed_out) << to_string(producer->error());
        }
      }
      auto late = claim->commit();
      ASSERT_FALSE(late);
      EXPECT_EQ(late.error(), SendError::claim_expired);
    }
    check(number);
  });
}

// --- Directories that cannot be written --------------------------------------------------------------------

TEST_F(ScarcityTest, AReadOnlyDirectory) {
  in_own_mounts([this] {
    ASSERT_NO_FATAL_FAILURE(mount_tmpfs(scene_.dir(), 16 * kMiB));
    create(open_log(), {});
    ASSERT_NO_FATAL_FAILURE(remount_read_only(scene_.dir()));
    auto log = Log::open(scene_.options(KeeperMode::embedded));
    ASSERT_FALSE(log);
    EXPECT_EQ(log.error().code, Code::read_only) << to_string(log.error());
    EXPECT_NE(log.error().message.find(scene_.dir().string()), std::string::npos) << log.error().message;
  });
}

TEST_F(ScarcityTest, AReadOnlyDirectoryWithoutALog) {
  in_own_mounts([this] {
    ASSERT_NO_FATAL_FAILURE(mount_tmpfs(scene_.dir(), 16 * kMiB));
    ASSERT_NO_FATAL_FAILURE(remount_read_only(scene_.dir()));
    auto log = Log::open(scene_.options(KeeperMode::embedded));
    ASSERT_FALSE(log);
    EXPECT_EQ(log.error().code, Code::read_only) << to_string(log.error());
  });
}

// --- Shared memory of another version -------------------------------------------------------------------

// Both segments begin with their magic number and their version.
void set_version(const std::filesystem::path& file, std::uint32_t version) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekp(8);
  stream.write(reinterpret_cast<const char*>(&version), sizeof version);
}

TEST_F(ScarcityTest, ARingOfAnotherVersion) {
  ASSERT_NO_FATAL_FAILURE(scene_.create_topic({}));
  const auto ring = log::ring_path(scene_.shm_folder(), kTopic, PartitionId(0));
  ASSERT_TRUE(std::filesystem::exists(ring));
  set_version(ring, log::kRingVersion + 41);
  {
    const Log log = open_log();
    auto producer = Producer::open(log, {.topic = kTopic});
    ASSERT_FALSE(producer);
    const auto cause = failure(log);
    ASSERT_TRUE(cause);
    EXPECT_EQ(cause->code, Code::incompatible_layout) << to_string(*cause);
    EXPECT_NE(cause->message.find(std::to_string(log::kRingVersion + 41)), std::string::npos)
        << cause->message;
    EXPECT_NE(cause->message.find(fmt::format("has {}", log::kRingVersion)), std::string::npos)
        << cause->message;
  }
  set_version(ring, log::kRingVersion);
  const Log log = open_log();
  auto producer = Producer::open(log, {.topic = kTopic});
  ASSERT_TRUE(producer) << to_string(producer.error());
  EXPECT_TRUE(producer->send("as before"));
}

TEST_F(ScarcityTest, AControlSegmentOfAnotherVersion) {
  ASSERT_NO_FATAL_FAILURE(scene_.create_topic({}));
  set_version(scene_.shm_folder() / "control", shm::kControlVersion + 41);
  auto log = Log::open(scene_.options(KeeperMode::embedded));
  ASSERT_FALSE(log);
  EXPECT_EQ(log.error().code, Code::incompatible_layout) << to_string(log.error());
  EXPECT_NE(log.error().message.find(std::to_string(shm::kControlVersion + 41)), std::string::npos);
}

}  // namespace
}  // namespace ringtail::crash

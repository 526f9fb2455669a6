#include "base/access.h"

#include <fcntl.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <iostream>

#include "base/files.h"
#include "scratch_dir.h"

namespace ringtail {
namespace {

using std::filesystem::path;
using testing::put_file;
using testing::ScratchDir;

// Users and groups that need no names.
constexpr uid_t kAlice = 40001;
constexpr uid_t kBob = 40002;
constexpr uid_t kMallory = 40003;
constexpr gid_t kTeam = 50001;

struct Facts {
  mode_t mode;
  uid_t owner;
  gid_t group;
  friend bool operator==(const Facts&, const Facts&) = default;
  friend std::ostream& operator<<(std::ostream& out, const Facts& facts) {
    return out << std::oct << facts.mode << std::dec << " of " << facts.owner << ':' << facts.group;
  }
};

Facts facts_of(const path& name) {
  struct stat status{};
  EXPECT_EQ(::lstat(name.c_str(), &status), 0) << name;
  return {status.st_mode & 07777, status.st_uid, status.st_gid};
}

template <class T>
void expect_refused(const Result<T>& result, Code code, std::initializer_list<std::string> words) {
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, code) << to_string(result.error());
  for (const std::string& word : words)
    EXPECT_NE(result.error().message.find(word), std::string::npos)
        << "'" << word << "' in: " << result.error().message;
}

// The umask that the test asks for, until it ends.
class Umask {
 public:
  explicit Umask(mode_t mask) : before_(::umask(mask)) {}
  Umask(const Umask&) = delete;
  Umask& operator=(const Umask&) = delete;
  ~Umask() { ::umask(before_); }

 private:
  mode_t before_;
};

// What concerns several users; only root can be all of them.
class AccessOfUsersTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "only root can act as several users";
    ASSERT_EQ(::chmod(dir_.path().c_str(), 0755), 0);
  }

  path make(const std::string& name, mode_t mode, uid_t owner, gid_t group) {
    const path made = dir_ / name;
    EXPECT_EQ(::mkdir(made.c_str(), 0700), 0);
    give(made, mode, owner, group);
    return made;
  }
  static void give(const path& name, mode_t mode, uid_t owner, gid_t group) {
    EXPECT_EQ(::lchown(name.c_str(), owner, group), 0);
    EXPECT_EQ(::chmod(name.c_str(), mode), 0);
  }
  // Runs `body` in a process of that user, who is in a group of his own number and perhaps in another.
  static void as(uid_t user, gid_t also, const std::function<void()>& body) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::umask(0077);
      if (::setgroups(also == 0 ? 0 : 1, &also) != 0 || ::setgid(user) != 0 || ::setuid(user) != 0)
        ::_exit(2);
      body();
      std::cout.flush();
      ::_exit(HasFailure() ? 1 : 0);
    }
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0) << "see what the process of user " << user << " said above";
  }

  const ScratchDir dir_;
};

// --- Modes ---------------------------------------------------------------------------------------

TEST(AccessTest, AFolderOfOneUserHasFilesOfOneUser) {
  const ScratchDir dir;
  for (const mode_t mask : {0000u, 0022u, 0077u}) {
    const Umask umask(mask);
    const auto folder = Folder::open(dir.path()).value();
    const std::string of = std::to_string(mask);
    ASSERT_TRUE(folder.create_file("file" + of, O_RDWR));
    ASSERT_TRUE(folder.make_folder("folder" + of));
    ASSERT_TRUE(write_file_atomically(dir / ("text" + of), "x"));
    EXPECT_EQ(facts_of(dir / ("file" + of)).mode, 0600u);
    EXPECT_EQ(facts_of(dir / ("folder" + of)).mode, 0700u);
    EXPECT_EQ(facts_of(dir / ("text" + of)).mode, 0600u);
  }
}

TEST(AccessTest, AFolderThatItsGroupMayWriteIsShared) {
  const ScratchDir dir;
  for (const mode_t mode : {02770u, 0770u, 02775u}) {  // the bit saves chowns, but the group decides
    ASSERT_EQ(::chmod(dir.path().c_str(), mode), 0);
    for (const mode_t mask : {0000u, 0022u, 0077u}) {
      const Umask umask(mask);
      const auto folder = Folder::open(dir.path()).value();
      EXPECT_TRUE(folder.access().shared);
      const std::string of = std::to_string(mode) + "-" + std::to_string(mask);
      ASSERT_TRUE(folder.open_or_create("file" + of, O_RDWR));
      ASSERT_TRUE(folder.make_folder("folder" + of));
      ASSERT_TRUE(folder.make_folder("folder" + of)) << "it is there already";
      ASSERT_TRUE(write_file_atomically(dir / ("text" + of), "x"));
      EXPECT_EQ(facts_of(dir / ("file" + of)).mode, 0660u);
      EXPECT_EQ(facts_of(dir / ("folder" + of)).mode, 02770u);
      EXPECT_EQ(facts_of(dir / ("text" + of)).mode, 0660u);
    }
  }
}

TEST(AccessTest, ASocketGetsTheModeOfAFile) {
  const ScratchDir dir;
  ASSERT_EQ(::chmod(dir.path().c_str(), 02770), 0);
  const Umask umask(0077);
  const Descriptor socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  std::strncpy(address.sun_path, (dir / "bell").c_str(), sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ASSERT_TRUE(Folder::open(dir.path())->give("bell"));
  EXPECT_EQ(facts_of(dir / "bell").mode, 0660u);
}

TEST(AccessTest, ANewLogDirectoryIsItsOwnersAlone) {
  const ScratchDir dir;
  const Umask umask(0000);
  ASSERT_TRUE(make_directories(dir / "above/log"));
  EXPECT_EQ(facts_of(dir / "above").mode, 0755u) << "nobody else may put another log in its place";
  EXPECT_EQ(facts_of(dir / "above/log").mode, 0700u);
  ASSERT_EQ(::chmod((dir / "above/log").c_str(), 02770), 0);
  ASSERT_TRUE(make_directories(dir / "above/log"));
  EXPECT_EQ(facts_of(dir / "above/log").mode, 02770u) << "one that exists stays as it is";
}

TEST(AccessTest, CreatesOnlyWhatIsNew) {
  const ScratchDir dir;
  const auto folder = Folder::open(dir.path()).value();
  ASSERT_TRUE(folder.create_file("a", O_RDWR));
  expect_refused(folder.create_file("a", O_RDWR), Code::already_exists, {(dir / "a").native()});
  std::filesystem::create_symlink("nowhere", dir / "dangling");
  expect_refused(folder.create_file("dangling", O_RDWR), Code::already_exists, {"dangling"});
  expect_refused(folder.open_or_create("dangling", O_RDWR), Code::corrupt, {"dangling", "symbolic link"});
  EXPECT_FALSE(std::filesystem::exists(dir / "nowhere"));
}

// --- Refusals that need one user -------------------------------------------------------------------

TEST(AccessTest, FollowsNoLinkAnywhereInAPath) {
  const ScratchDir dir;
  std::filesystem::create_directories(dir / "real/inner");
  put_file(dir / "real/inner/file", "x");
  std::filesystem::create_symlink("real", dir / "link");
  std::filesystem::create_symlink("file", dir / "real/inner/other");
  EXPECT_TRUE(open_file_of_log(dir / "real/inner/file", O_RDONLY));
  expect_refused(open_file_of_log(dir / "real/inner/other", O_RDONLY), Code::corrupt,
                 {"inner/other", "move"});
  expect_refused(open_file_of_log(dir / "link/inner/file", O_RDONLY), Code::already_exists,
                 {(dir / "link").native() + "'", "symbolic link"});
  expect_refused(write_file_atomically(dir / "link/inner/file", "y"), Code::already_exists, {"link"});
  expect_refused(make_directory(dir / "link/inner/folder"), Code::already_exists, {"link"});
  expect_refused(read_small_file(dir / "real/inner/other", 10, FileOf::log), Code::corrupt, {"other"});
  EXPECT_EQ(read_small_file(dir / "real/inner/other", 10, FileOf::user), "x")
      << "what a user names may be one";
}

TEST(AccessTest, ReplacesALinkAndNotWhatItPointsTo) {
  const ScratchDir dir;
  put_file(dir / "victim", "precious");
  std::filesystem::create_symlink("victim", dir / "a.toml.tmp");
  std::filesystem::create_symlink("victim", dir / "a.toml");
  ASSERT_TRUE(write_file_atomically(dir / "a.toml", "new"));
  EXPECT_EQ(testing::get_file(dir / "victim"), "precious");
  EXPECT_FALSE(std::filesystem::is_symlink(dir / "a.toml"));
}

TEST(AccessTest, OpensRegularFilesOnlyAndWaitsForNobody) {
  const ScratchDir dir;
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  expect_refused(open_file_of_log(dir / "pipe", O_RDONLY), Code::corrupt, {"pipe", "regular"});
  expect_refused(open_file_of_log(dir / "none", O_RDONLY), Code::not_found, {"none"});
  put_file(dir / "file", "x");
  const auto file = open_file_of_log(dir / "file", O_RDWR | O_APPEND);
  ASSERT_TRUE(file);
  EXPECT_EQ(::fcntl(file->get(), F_GETFL) & (O_NONBLOCK | O_APPEND), O_APPEND) << "io_uring looks at it";
  EXPECT_NE(::fcntl(file->get(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST(AccessTest, RefusesWhatEverybodyMayWriteTo) {
  const ScratchDir dir;
  put_file(dir / "file", "x");
  ASSERT_EQ(::chmod((dir / "file").c_str(), 0666), 0);
  expect_refused(open_file_of_log(dir / "file", O_RDONLY), Code::permission_denied,
                 {(dir / "file").native(), "chmod o-w"});
  ASSERT_EQ(::chmod((dir / "file").c_str(), 0644), 0);
  EXPECT_TRUE(open_file_of_log(dir / "file", O_RDONLY));
  for (const mode_t mode : {0707u, 01777u}) {
    ASSERT_EQ(::chmod(dir.path().c_str(), mode), 0);
    expect_refused(Folder::open(dir.path()), Code::permission_denied,
                   {"'" + dir.path().native() + "'", "everybody", "chmod o-w"});
  }
}

// --- Refusals, and sharing, among several users ----------------------------------------------------

TEST_F(AccessOfUsersTest, AnothersFolderIsRefused) {
  const path log = make("log", 0755, kAlice, kAlice);
  as(kBob, 0, [&] {
    expect_refused(Folder::open(log), Code::permission_denied,
                   {log.native(), "user 40001", "user 40002", "share"});
  });
  as(kAlice, 0, [&] { EXPECT_TRUE(Folder::open(log)); });
}

TEST_F(AccessOfUsersTest, ASharedFolderIsTheGroups) {
  const path log = make("log", 02770, kAlice, kTeam);
  as(kBob, kTeam, [&] {
    ASSERT_TRUE(write_file_atomically(log / "file", "of bob"));
    ASSERT_TRUE(make_directory(log / "folder"));
    ASSERT_TRUE(write_file_atomically(log / "folder/file", "of bob"));
  });
  EXPECT_EQ(facts_of(log / "file"), (Facts{0660, kBob, kTeam}));
  EXPECT_EQ(facts_of(log / "folder"), (Facts{02770, kBob, kTeam}));
  EXPECT_EQ(facts_of(log / "folder/file"), (Facts{0660, kBob, kTeam}));
  as(kAlice, kTeam, [&] {
    EXPECT_TRUE(open_file_of_log(log / "file", O_RDWR));
    EXPECT_EQ(read_small_file(log / "folder/file", 100, FileOf::log), "of bob");
  });
  give(log, 02775, kAlice, kTeam);
  as(kMallory, 0, [&] { expect_refused(Folder::open(log), Code::permission_denied, {"share"}); });
}

TEST_F(AccessOfUsersTest, WithoutTheBitTheGroupIsGivenAllTheSame) {
  const path log = make("log", 0770, kAlice, kTeam);
  as(kBob, kTeam, [&] { ASSERT_TRUE(write_file_atomically(log / "file", "of bob")); });
  EXPECT_EQ(facts_of(log / "file"), (Facts{0660, kBob, kTeam}));
}

TEST_F(AccessOfUsersTest, AFileOfSomebodyWithoutAPartIsRefused) {
  const path log = make("log", 0700, kAlice, kAlice);
  put_file(log / "planted", "x");
  give(log / "planted", 0644, kMallory, kMallory);
  expect_refused(open_file_of_log(log / "planted", O_RDWR), Code::permission_denied,
                 {"planted", "user 40003", "chown"});
  as(kAlice, 0, [&] {
    expect_refused(open_file_of_log(log / "planted", O_RDONLY), Code::permission_denied, {"planted"});
  });
  const path shared = make("shared", 02770, kAlice, kTeam);
  put_file(shared / "planted", "x");
  give(shared / "planted", 0664, kMallory, kMallory);
  as(kBob, kTeam, [&] {
    expect_refused(open_file_of_log(shared / "planted", O_RDONLY), Code::permission_denied, {"planted"});
  });
}

TEST_F(AccessOfUsersTest, RootLeavesNothingThatTheOwnerCannotUse) {
  const path log = make("log", 0700, kAlice, kAlice);
  ASSERT_TRUE(write_file_atomically(log / "file", "of root"));
  ASSERT_TRUE(make_directory(log / "folder"));
  ASSERT_TRUE(open_or_create_file_of_log(log / "lock", O_RDWR));
  EXPECT_EQ(facts_of(log / "file"), (Facts{0600, kAlice, kAlice}));
  EXPECT_EQ(facts_of(log / "folder"), (Facts{0700, kAlice, kAlice}));
  EXPECT_EQ(facts_of(log / "lock"), (Facts{0600, kAlice, kAlice}));
  as(kAlice, 0, [&] { EXPECT_TRUE(open_file_of_log(log / "lock", O_RDWR)); });
}

// --- The folder of shared memory, in a place where everybody makes names ------------------------------

class SharedMemoryFolderTest : public AccessOfUsersTest {
 protected:
  void SetUp() override {
    AccessOfUsersTest::SetUp();
    if (!IsSkipped()) root_ = make("shm", 01777, 0, 0);
  }

  path root_;
};

TEST_F(SharedMemoryFolderTest, IsMadeWholeForTheLogsOwner) {
  const Access log{kAlice, kAlice, false};
  as(kAlice, 0, [&] { ASSERT_TRUE(make_folder_for(log, root_, "a")); });
  EXPECT_EQ(facts_of(root_ / "a"), (Facts{0700, kAlice, kAlice}));
  ASSERT_TRUE(make_folder_for(log, root_, "b")) << "by root";
  EXPECT_EQ(facts_of(root_ / "b"), (Facts{0700, kAlice, kAlice}));
  as(kAlice, 0, [&] { EXPECT_TRUE(make_folder_for(log, root_, "b")); });
}

TEST_F(SharedMemoryFolderTest, IsMadeForTheLogsGroup) {
  const Access log{kAlice, kTeam, true};
  as(kBob, kTeam, [&] { ASSERT_TRUE(make_folder_for(log, root_, "a")); });
  EXPECT_EQ(facts_of(root_ / "a"), (Facts{02770, kBob, kTeam}));
  as(kAlice, kTeam, [&] { EXPECT_TRUE(make_folder_for(log, root_, "a")); });
}

TEST_F(SharedMemoryFolderTest, ASquattedNameIsRefused) {
  const Access log{kAlice, kAlice, false};
  as(kMallory, 0, [&] { ASSERT_EQ(::mkdir((root_ / "a").c_str(), 0700), 0); });
  const auto refused = [&] {
    expect_refused(make_folder_for(log, root_, "a"), Code::permission_denied,
                   {(root_ / "a").native(), "user 40003", "user 40001", "rm -r"});
  };
  as(kAlice, 0, refused);
  refused();  // root trusts him no more
  as(kMallory, 0, [&] { ASSERT_EQ(::chmod((root_ / "a").c_str(), 0777), 0); });
  as(kAlice, 0, refused);

  // Of a group in which both are, though the log is not shared with it.
  give(root_ / "a", 02770, kMallory, kTeam);
  as(kAlice, kTeam, refused);
  const Access with_another{kAlice, kAlice, true};
  as(kAlice, kTeam, [&] {
    expect_refused(make_folder_for(with_another, root_, "a"), Code::permission_denied, {"user 40003"});
  });
}

TEST_F(SharedMemoryFolderTest, ALinkIsRefused) {
  const Access log{kAlice, kAlice, false};
  make("alices", 0700, kAlice, kAlice);
  as(kMallory, 0, [&] { ASSERT_EQ(::symlink((dir_ / "alices").c_str(), (root_ / "a").c_str()), 0); });
  const auto refused = [&] {
    expect_refused(make_folder_for(log, root_, "a"), Code::already_exists,
                   {(root_ / "a").native(), "user 40003", "move it away"});
  };
  as(kAlice, 0, refused);
  refused();
}

TEST_F(SharedMemoryFolderTest, OneThatOthersMayWriteToIsRefused) {
  const Access log{kAlice, kAlice, false};
  const path folder = root_ / "a";
  ASSERT_TRUE(make_folder_for(log, root_, "a"));
  for (const mode_t mode : {0777u, 0720u, 02770u}) {
    give(folder, mode, kAlice, kTeam);
    as(kAlice, kTeam, [&] {
      expect_refused(make_folder_for(log, root_, "a"), Code::permission_denied, {folder.native(), "0700"});
    });
  }
}

}  // namespace
}  // namespace ringtail

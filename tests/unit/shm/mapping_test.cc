#include "shm/mapping.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <vector>

#include "unit/shm/shm_test_support.h"

namespace ringtail::shm {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

// Creates a file that says `c` all over.
Mapping create_filled(const std::filesystem::path& path, std::size_t bytes, char c) {
  auto mapping = create_shared_file(path, bytes);
  EXPECT_TRUE(mapping.has_value()) << mapping.error().message;
  if (!mapping) return {};
  std::memset(mapping->data(), c, bytes);
  return std::move(*mapping);
}

char first_byte(const Mapping& mapping) { return static_cast<char>(*mapping.data()); }

bool is_all(const Mapping& mapping, std::byte value) {
  return std::ranges::all_of(std::span(mapping.data(), mapping.size()),
                             [&](std::byte b) { return b == value; });
}

// How many pages of a mapping this process can reach without a fault.
std::size_t present_pages(const Mapping& mapping) {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  std::vector<std::uint64_t> entries((mapping.size() + page - 1) / page);
  const Descriptor pagemap(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  const auto wanted = entries.size() * sizeof(std::uint64_t);
  const auto at = reinterpret_cast<std::uintptr_t>(mapping.data()) / page * sizeof(std::uint64_t);
  EXPECT_EQ(::pread(pagemap.get(), entries.data(), wanted, static_cast<off_t>(at)),
            static_cast<ssize_t>(wanted));
  return static_cast<std::size_t>(
      std::ranges::count_if(entries, [](std::uint64_t entry) { return entry >> 63 == 1; }));
}

template <class T>
void expect_error(const Result<T>& result, Code code, const std::string& text) {
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, code) << result.error().message;
  EXPECT_NE(result.error().message.find(text), std::string::npos) << result.error().message;
}

// --- Creating and publishing ---------------------------------------------------------------------

TEST(MappingTest, IsSeenByNobodyUntilItIsPublishedWhole) {
  const TempDir dir;
  Mapping made = create_filled(dir / "a", 3 * kMiB + 5, 'x');
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
  ASSERT_TRUE(made.publish_new().has_value());

  const auto seen = open_shared_file(dir / "a", true);
  ASSERT_TRUE(seen.has_value()) << seen.error().message;
  ASSERT_EQ(seen->size(), 3 * kMiB + 5);
  EXPECT_EQ(std::memcmp(seen->data(), made.data(), made.size()), 0);
  *made.data() = std::byte{'y'};
  EXPECT_EQ(first_byte(*seen), 'y');
}

TEST(MappingTest, StartsAsZeros) {
  const TempDir dir;
  const auto made = create_shared_file(dir / "a", kMiB);
  ASSERT_TRUE(made.has_value()) << made.error().message;
  EXPECT_TRUE(is_all(*made, std::byte{0}));
}

TEST(MappingTest, IsForItsOwnerOnlyUnlessItsFolderIsShared) {
  const TempDir dir;
  ASSERT_TRUE(create_filled(dir / "a", 1, 'a').publish_new().has_value());
  ASSERT_EQ(::chmod(dir.path().c_str(), 02770), 0);
  ASSERT_TRUE(create_filled(dir / "b", 1, 'b').publish_new().has_value());
  struct stat status{};
  ASSERT_EQ(::stat((dir / "a").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777u, 0600u);
  ASSERT_EQ(::stat((dir / "b").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777u, 0660u);
}

TEST(MappingTest, PublishNewLeavesATakenNameAlone) {
  const TempDir dir;
  Mapping first = create_filled(dir / "a", kMiB, '1');
  Mapping second = create_filled(dir / "a", kMiB, '2');
  ASSERT_TRUE(first.publish_new().has_value());
  expect_error(second.publish_new(), Code::already_exists, (dir / "a").string());
  const auto seen = open_shared_file(dir / "a", true);
  ASSERT_TRUE(seen.has_value());
  EXPECT_EQ(first_byte(*seen), '1');
}

TEST(MappingTest, PublishReplacingLeavesTheOldMemoryToThoseWhoMapIt) {
  const TempDir dir;
  ASSERT_TRUE(create_filled(dir / "a", kMiB, '1').publish_replacing().has_value());
  const auto old = open_shared_file(dir / "a", true);
  ASSERT_TRUE(old.has_value());
  ASSERT_TRUE(create_filled(dir / "a", 2 * kMiB, '2').publish_replacing().has_value());
  const auto fresh = open_shared_file(dir / "a", true);
  ASSERT_TRUE(fresh.has_value());
  EXPECT_EQ(first_byte(*old), '1');
  EXPECT_EQ(first_byte(*fresh), '2');
  EXPECT_EQ(fresh->size(), 2 * kMiB);
}

TEST(MappingTest, PublishReplacingOvercomesWhatADeadProcessLeft) {
  const TempDir dir;
  Mapping left_over = create_filled(dir / "a.tmp", 10, '0');
  ASSERT_TRUE(left_over.publish_new().has_value());
  ASSERT_TRUE(create_filled(dir / "a", kMiB, '1').publish_replacing().has_value());
  EXPECT_FALSE(std::filesystem::exists(dir / "a.tmp"));
  EXPECT_EQ(std::filesystem::file_size(dir / "a"), kMiB);
}

TEST(MappingTest, PublishingWhereTheDirectoryIsGoneFails) {
  const TempDir dir;
  std::filesystem::create_directory(dir / "gone");
  Mapping made = create_filled(dir / "gone" / "a", kMiB, '1');
  std::filesystem::remove(dir / "gone");
  expect_error(made.publish_new(), Code::not_found, "gone/a");
  expect_error(made.publish_replacing(), Code::not_found, "gone/a");
}

TEST(MappingTest, LeavesNothingWhenItsCreatorDies) {
  const TempDir dir;
  Child creator([&](const Line& line) {
    const Mapping made = create_filled(dir / "a", 64 * kMiB, '1');
    line.say('c');
    line.hear();
  });
  ASSERT_EQ(creator.line().hear(), 'c');
  creator.kill();
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(MappingTest, ReadersNeverSeeAHalfMadeFile) {
  const TempDir dir;
  constexpr std::size_t kBytes = 256 * 1024;
  ASSERT_TRUE(create_filled(dir / "a", kBytes, '!').publish_new().has_value());
  Child writer([&](const Line&) {
    for (char c = '"'; c < '~'; ++c)
      ASSERT_TRUE(create_filled(dir / "a", kBytes, c).publish_replacing().has_value());
  });
  unsigned looks = 0;
  do {
    const auto file = open_shared_file(dir / "a", true);
    ASSERT_TRUE(file.has_value()) << file.error().message;
    ASSERT_EQ(file->size(), kBytes);
    ASSERT_TRUE(is_all(*file, *file->data()));
    ++looks;
  } while (!writer.line().is_dead());
  EXPECT_EQ(writer.wait(), 0);
  std::cout << looks << " looks\n";
}

// --- Residence -----------------------------------------------------------------------------------

TEST(MappingTest, ANewFileIsReservedAndPresent) {
  const TempDir dir;
  auto made = create_shared_file(dir / "a", 5 * kMiB);
  ASSERT_TRUE(made.has_value()) << made.error().message;
  EXPECT_EQ(present_pages(*made), 5 * kMiB / 4096);
  ASSERT_TRUE(made->publish_new().has_value());
  struct stat status{};
  ASSERT_EQ(::stat((dir / "a").c_str(), &status), 0);
  EXPECT_GE(static_cast<std::size_t>(status.st_blocks) * 512, 5 * kMiB);
}

TEST(MappingTest, AnOpenedFileIsPresent) {
  const TempDir dir;
  Mapping made = create_filled(dir / "a", 5 * kMiB, 'x');
  ASSERT_TRUE(made.publish_new().has_value());
  for (const bool read_only : {true, false}) {
    const auto opened = open_shared_file(dir / "a", read_only);
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    EXPECT_EQ(present_pages(*opened), 5 * kMiB / 4096);
  }
}

TEST(MappingTest, AReadOnlyMappingCannotBeWritten) {
  const TempDir dir;
  Mapping made = create_filled(dir / "a", 4096, 'x');
  ASSERT_TRUE(made.publish_new().has_value());
  const auto reader = open_shared_file(dir / "a", true);
  const auto writer = open_shared_file(dir / "a", false);
  ASSERT_TRUE(reader.has_value() && writer.has_value());
  // The kernel writing in our place reports what would be a SIGSEGV here.
  EXPECT_EQ(::syscall(SYS_getrandom, reader->data(), 1, 0), -1);
  EXPECT_EQ(errno, EFAULT);
  EXPECT_EQ(::syscall(SYS_getrandom, writer->data(), 1, 0), 1);
}

TEST(MappingTest, MovesLeaveNothingBehind) {
  const TempDir dir;
  Mapping a = create_filled(dir / "a", 4096, 'x');
  std::byte* data = a.data();
  Mapping b = std::move(a);
  EXPECT_FALSE(static_cast<bool>(a));  // NOLINT(bugprone-use-after-move): that is the question
  EXPECT_EQ(b.data(), data);
  a = std::move(b);
  EXPECT_EQ(a.data(), data);
  EXPECT_TRUE(a.publish_new().has_value());
}

// --- What can go wrong ---------------------------------------------------------------------------

TEST(MappingTest, TellsWhatIsMissingWhenThereIsNoRoom) {
  const TempDir dir;
  struct statvfs fs{};
  ASSERT_EQ(::statvfs(dir.path().c_str(), &fs), 0);
  const std::size_t bytes = (fs.f_blocks + 1) * fs.f_frsize;
  const auto made = create_shared_file(dir / "a", bytes);
  expect_error(made, Code::shared_memory_full, (dir / "a").string());
  const std::string& message = made.error().message;
  EXPECT_NE(message.find(std::to_string(bytes)), std::string::npos) << message;
  EXPECT_NE(message.find("mount -o remount,size="), std::string::npos) << message;
  EXPECT_NE(message.find("M /dev/shm`"), std::string::npos) << message;
  EXPECT_NE(message.find("term.bytes"), std::string::npos) << message;
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

// Mounts a tmpfs of 8 MiB, for this process and its children alone. False, with a word about it, where
// that is not permitted.
bool mount_small(const std::filesystem::path& at) {
  if (::unshare(CLONE_NEWNS) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) {
    std::cout << "not tested: mounts are not permitted here\n";
    return false;
  }
  EXPECT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
  EXPECT_EQ(::mount("tmpfs", at.c_str(), "tmpfs", 0, "size=8m,mode=0700"), 0);
  return true;
}

TEST(MappingTest, RivalsForTheLastMemoryGetAnErrorAndNoSignal) {
  const TempDir dir;
  Child world([&](const Line&) {
    if (!mount_small(dir.path())) return;
    const auto rival = [&](const std::string& name) {
      return [&dir, name](const Line&) {
        for (int i = 0; i < 300; ++i) {
          const auto made = create_shared_file(dir / name, 6 * kMiB);
          if (made) {
            std::memset(made->data(), 1, made->size());
          } else {
            ASSERT_EQ(made.error().code, Code::shared_memory_full) << made.error().message;
          }
        }
      };
    };
    Child a(rival("a"));
    Child b(rival("b"));
    EXPECT_EQ(a.wait(), 0);
    EXPECT_EQ(b.wait(), 0);
    EXPECT_TRUE(create_shared_file(dir / "c", 7 * kMiB).has_value());
  });
  EXPECT_EQ(world.wait(), 0);
}

TEST(MappingTest, AFileWithoutMemoryBehindItIsCorruptAndNoSignal) {
  const TempDir dir;
  Child world([&](const Line&) {
    if (!mount_small(dir.path())) return;
    const Descriptor sparse(::open((dir / "a").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    ASSERT_EQ(::ftruncate(sparse.get(), 16 * kMiB), 0);
    expect_error(open_shared_file(dir / "a", false), Code::corrupt, (dir / "a").string());
    expect_error(open_shared_file(dir / "a", true), Code::corrupt, (dir / "a").string());
  });
  EXPECT_EQ(world.wait(), 0);
}

TEST(MappingTest, OpensNoMoreThanIsAskedFor) {
  const TempDir dir;
  ASSERT_TRUE(create_filled(dir / "a", kMiB, 'x').publish_new().has_value());
  const auto part = open_shared_file(dir / "a", true, 1, 4096);
  ASSERT_TRUE(part.has_value()) << part.error().message;
  EXPECT_EQ(part->size(), 4096u);
  EXPECT_EQ(first_byte(*part), 'x');
  const auto whole = open_shared_file(dir / "a", true, 1, 2 * kMiB);
  ASSERT_TRUE(whole.has_value()) << whole.error().message;
  EXPECT_EQ(whole->size(), kMiB);
  expect_error(open_shared_file(dir / "a", true, 2 * kMiB, 4096), Code::corrupt, "2097152 are needed");
}

TEST(MappingTest, RefusesWhatIsNoSharedFile) {
  const TempDir dir;
  expect_error(open_shared_file(dir / "none", true), Code::not_found, "none");
  expect_error(create_shared_file(dir / "none" / "a", kMiB), Code::not_found, "none");

  ::close(::open((dir / "empty").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  expect_error(open_shared_file(dir / "empty", true), Code::corrupt, "0 bytes");

  ASSERT_TRUE(create_filled(dir / "short", 4095, 'x').publish_new().has_value());
  expect_error(open_shared_file(dir / "short", false, 4096), Code::corrupt, "4096 are needed");
  EXPECT_TRUE(open_shared_file(dir / "short", false, 4095).has_value());

  std::filesystem::create_directory(dir / "dir");
  expect_error(open_shared_file(dir / "dir", true), Code::corrupt, "dir");
  ASSERT_EQ(::mkfifo((dir / "fifo").c_str(), 0600), 0);
  expect_error(open_shared_file(dir / "fifo", true), Code::corrupt, "fifo");
  expect_error(open_shared_file(dir / "fifo", false), Code::corrupt, "fifo");
  std::filesystem::create_symlink(dir / "short", dir / "symlink");
  expect_error(open_shared_file(dir / "symlink", true), Code::corrupt, "symlink");
}

// --- Names ---------------------------------------------------------------------------------------

TEST(SharedDirectoryTest, IsMadeForWhomTheLogAdmits) {
  const TempDir root;
  const Access alone{::geteuid(), ::getegid(), false};
  const Access shared{::geteuid(), ::getegid(), true};
  for (int i = 0; i < 2; ++i) {
    const auto dir = make_shared_directory(root.path(), "0123", alone);
    ASSERT_TRUE(dir.has_value()) << dir.error().message;
    EXPECT_EQ(*dir, root / "ringtail-0123");
    ASSERT_TRUE(make_shared_directory(root.path(), "4567", shared).has_value());
  }
  struct stat status{};
  ASSERT_EQ(::stat((root / "ringtail-0123").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777u, 0700u);
  ASSERT_EQ(::stat((root / "ringtail-4567").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777u, 02770u);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(root.path()), {}), 2) << "nothing is left over";
}

TEST(SharedDirectoryTest, RefusesWhatIsNoFolder) {
  const TempDir root;
  const Access log{::geteuid(), ::getegid(), false};
  expect_error(make_shared_directory(root / "none", "1", log), Code::not_found, "none");
  ASSERT_TRUE(create_filled(root / "ringtail-1", 1, 'x').publish_new().has_value());
  expect_error(make_shared_directory(root.path(), "1", log), Code::already_exists, "ringtail-1");
  std::filesystem::create_directory(root / "target");
  std::filesystem::create_symlink(root / "target", root / "ringtail-2");
  expect_error(make_shared_directory(root.path(), "2", log), Code::already_exists, "ringtail-2");
}

TEST(SharedNamesTest, LinkAndUnlinkNameThePathInErrors) {
  const TempDir dir;
  ASSERT_TRUE(create_filled(dir / "a", 1, 'x').publish_new().has_value());
  EXPECT_TRUE(link_path(dir / "a", dir / "b").has_value());
  expect_error(link_path(dir / "a", dir / "b"), Code::already_exists, (dir / "b").string());
  expect_error(link_path(dir / "none", dir / "c"), Code::not_found, (dir / "none").string());
  EXPECT_TRUE(unlink_path(dir / "a").has_value());
  expect_error(unlink_path(dir / "a"), Code::not_found, (dir / "a").string());
  EXPECT_TRUE(std::filesystem::exists(dir / "b"));
}

}  // namespace
}  // namespace ringtail::shm

// The power goes, on a real file system: the log is on an ext4 of its own, in an image behind a loop device. At
// some of the system calls by which a log's process changes files it is stopped, and the image is copied as it is then,
// without what the kernel has not written yet. The copy is mounted, its journal is replayed, and the log there must
// open, hold what had been promised, and go on. In the last test the file system is full meanwhile.
//
// Skipped where images cannot be mounted, with the reason. RINGTAIL_POWER_CUTS: how many copies (kCopies unless told).
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

#include <random>

#include "crash/story.h"
#include "support/run_command.h"
#include "support/tracer.h"

namespace ringtail::crash {
namespace {

namespace fs = std::filesystem;

using test::Call;
using test::Process;
using test::run_command;
using test::SharedPage;
using test::Tracer;

constexpr std::uint64_t kCopies = 4;

// An image that is mounted for as long as this lives.
class Mounted {
 public:
  Mounted(const fs::path& image, fs::path at) : at_(std::move(at)) {
    fs::create_directories(at_);
    const auto mounted = run_command({"mount", "-o", "loop", image.string(), at_.string()});
    trouble_ = mounted.exit_code == 0 ? "" : "cannot mount an image: " + mounted.err;
  }
  Mounted(const Mounted&) = delete;
  Mounted& operator=(const Mounted&) = delete;
  ~Mounted() {
    if (trouble_.empty()) ::umount2(at_.c_str(), MNT_DETACH);
  }
  const std::string& trouble() const { return trouble_; }
  const fs::path& path() const { return at_; }

 private:
  fs::path at_;
  std::string trouble_;
};

struct Kind {
  const char* name;
  std::vector<std::string> make;
  std::uintmax_t image_bytes;
  StoryKind story;
};
void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }

class DeviceTest : public ::testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    random_.seed(test::print_seed());
    folder_ = make_directory("/dev/shm/ringtail-device-XXXXXX");
    // Mounts are of this process, and end with it.
    if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
      GTEST_SKIP() << "needs mounts of its own, so root: " << std::strerror(errno);
    {
      const io::File image(::open(image_file().c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    }
    fs::resize_file(image_file(), GetParam().image_bytes);
    std::vector<std::string> command = GetParam().make;
    command.push_back(image_file());
    if (const auto made = run_command(command); made.exit_code != 0)
      GTEST_SKIP() << "needs " << command[0] << ": " << made.err;
    disk_.emplace(image_file(), folder_ / "disk");
    if (!disk_->trouble().empty()) GTEST_SKIP() << disk_->trouble();
    scene_.emplace(disk_->path(), IoBackend::pwrite);
    // The directory was there before the story.
    const io::File disk(::open(disk_->path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ASSERT_EQ(::syncfs(disk.fd()), 0);
  }
  ~DeviceTest() override {
    scene_.reset();
    disk_.reset();
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }

  fs::path image_file() const { return folder_ / "image"; }

  // On the image as it is now, with what had been promised by now.
  void expect_promises_kept_in_a_copy(const std::function<void(const fs::path&)>& before_opening = {}) {
    const fs::path copy = folder_ / "copy";
    fs::copy_file(image_file(), copy, fs::copy_options::overwrite_existing);
    const Mounted disk(copy, folder_ / "disk-of-the-copy");
    ASSERT_EQ(disk.trouble(), "");
    if (before_opening) before_opening(disk.path());
    const Scene scene("/dev/shm", IoBackend::pwrite);
    const fs::path dir = disk.path() / scene_->dir().filename();
    ASSERT_EQ(::mount(dir.c_str(), scene.dir().c_str(), nullptr, MS_BIND, nullptr), 0)
        << std::strerror(errno);
    SharedPage<StoryPage> page;
    page->store(page_->load());
    const auto story = GetParam().story.make();
    EXPECT_EQ(story->check(scene, *page, Loss::host), "");
    if (!HasFailure()) {
      EXPECT_EQ(story->tell(scene, KeeperMode::embedded, *page), "");
      EXPECT_EQ(story->check(scene, *page, Loss::process), "");
    }
    ::umount2(scene.dir().c_str(), MNT_DETACH);
  }

  std::mt19937_64 random_;
  fs::path folder_;
  std::optional<Mounted> disk_;
  std::optional<Scene> scene_;
  SharedPage<StoryPage> page_;
};

TEST_P(DeviceTest, WhatWasPromisedIsThereAfterThePowerWent) {
  const std::uint64_t copies =
      std::max<std::uint64_t>(1, test::number_from_environment("RINGTAIL_POWER_CUTS", kCopies));
  Process teller("teller", [this] {
    test::offer_calls();
    return tell(*GetParam().story.make(), *scene_, KeeperMode::embedded, *page_);
  });
  Tracer tracer(teller);
  std::uint64_t made = 0;
  std::uint64_t stops = 0;
  while (const auto call = tracer.next()) {
    if (!Tracer::changes_files(*call) || !tracer.path_of(*call).starts_with(scene_->dir().native())) continue;
    // Mostly where something is or was just made durable.
    const bool is_sync = call->number == SYS_fdatasync || call->number == SYS_fsync;
    if (++stops < 5 || made == copies || random_() % (is_sync ? 8 : 24) != 0) continue;
    ++made;
    tracer.freeze();
    SCOPED_TRACE(fmt::format("the power goes at stop {}, the {} of {} '{}'", stops,
                             call->ended ? "end" : "beginning", test::name_of_call(call->number),
                             tracer.path_of(*call)));
    ASSERT_NO_FATAL_FAILURE(expect_promises_kept_in_a_copy());
    ASSERT_FALSE(HasFailure());
  }
  ASSERT_EQ(tracer.exit_code(), 0) << page_->error;
  ASSERT_GT(made, 0u);
  std::cout << made << " power cuts at " << stops << " stops\n";
}

const std::vector<std::string> kExt4{"mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0"};
constexpr std::uintmax_t kMiB = 1 << 20;

INSTANTIATE_TEST_SUITE_P(Crash, DeviceTest,
                         ::testing::Values(Kind{"SegmentsOnExt4", kExt4, 64 * kMiB, kStories[0]},
                                           Kind{"CompactionOnExt4", kExt4, 64 * kMiB, kStories[1]},
                                           Kind{"TransactionsOnExt4", kExt4, 160 * kMiB, kStories[2]},
                                           Kind{"GroupsOnExt4", kExt4, 96 * kMiB, kStories[3]},
                                           Kind{"CatalogOnExt4", kExt4, 64 * kMiB, kStories[4]}),
                         [](const auto& kind) { return std::string(kind.param.name); });

// --- Full ----------------------------------------------------------------------------------------

class FullDeviceTest : public DeviceTest {};

// Nothing fails; who sends waits. The power goes, space returns: what was durable is there, and the log goes on.
TEST_P(FullDeviceTest, AFullDiskLosesNothingWhenThePowerGoes) {
  const fs::path ballast = disk_->path() / "ballast";
  {
    struct statvfs space{};
    ASSERT_EQ(::statvfs(disk_->path().c_str(), &space), 0);
    const io::File file(::open(ballast.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    const std::uint64_t left = 8 * kMiB / 5;  // for the beginning, not for a second segment
    ASSERT_EQ(::posix_fallocate(file.fd(), 0, static_cast<off_t>(space.f_bfree * space.f_frsize - left)), 0);
    ASSERT_EQ(::fsync(file.fd()), 0);
  }
  Process teller("teller",
                 [this] { return tell(*GetParam().story.make(), *scene_, KeeperMode::embedded, *page_); });
  // Until it stands still.
  std::uint64_t before = 0;
  for (std::uint64_t now = ~std::uint64_t{0}; teller.is_running() && (now == 0 || now != before);) {
    before = now;
    ::usleep(400'000);
    ASSERT_EQ(teller.poll(), 0) << page_->error;
    now = page_->load()[1];
  }
  ASSERT_TRUE(teller.is_running()) << "the disk did not fill";
  teller.kill();
  expect_promises_kept_in_a_copy([](const fs::path& disk) { fs::remove(disk / "ballast"); });
}

INSTANTIATE_TEST_SUITE_P(Crash, FullDeviceTest,
                         ::testing::Values(Kind{"SegmentsOnExt4", kExt4, 64 * kMiB, kStories[0]}),
                         [](const auto& kind) { return std::string(kind.param.name); });

}  // namespace
}  // namespace ringtail::crash

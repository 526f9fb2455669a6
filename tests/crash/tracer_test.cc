// What the tests of crashes and power cuts rely on: a process stands still where it was led to, and the disk that is
// laid out has what was synced, and of the rest no more than was written.
#include "support/tracer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "crash/scene.h"
#include "support/disk_trace.h"

namespace ringtail::crash {
namespace {

namespace fs = std::filesystem;

using test::Call;
using test::DiskTrace;
using test::PowerCut;
using test::Process;
using test::SharedPage;
using test::Tracer;

class TracerTest : public ::testing::Test {
 protected:
  TracerTest() : dir_(make_directory("/dev/shm/ringtail-tracer-XXXXXX")) { fs::create_directory(root()); }
  ~TracerTest() override { fs::remove_all(dir_); }

  fs::path root() const { return dir_ / "disk"; }
  fs::path at(const char* name) const { return root() / name; }

  static std::string text_of(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  // --- What a child does with files ---
  int open(const char* name) const { return ::open(at(name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600); }
  static bool write(int file, const std::string& text, off_t offset) {
    return ::pwrite(file, text.data(), text.size(), offset) == static_cast<ssize_t>(text.size());
  }
  bool sync_directory() const {
    const int directory = ::open(root().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const bool synced = ::fsync(directory) == 0;
    ::close(directory);
    return synced;
  }

  // Records all of what a child does.
  void record(DiskTrace& disk, const std::function<bool()>& body) {
    Process child("child", [&body] {
      test::offer_calls();
      return body() ? 0 : 1;
    });
    Tracer tracer(child);
    while (const auto call = tracer.next()) disk.note(tracer, *call);
    ASSERT_EQ(tracer.exit_code(), 0);
  }
  // The files that a power cut behind so many events leaves.
  std::map<std::string, std::string> after(const DiskTrace& disk, std::size_t events, PowerCut cut) {
    const fs::path to = dir_ / "after";
    fs::remove_all(to);
    disk.lay_out(events, cut, random_, to);
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::directory_iterator(to))
      files[entry.path().filename()] = entry.is_directory() ? "a directory" : text_of(entry.path());
    return files;
  }

  fs::path dir_;
  std::mt19937_64 random_{1};
};

// --- Leading -------------------------------------------------------------------------------------

TEST_F(TracerTest, WhoIsKilledAtTheBeginningOfACallHasNotMadeItAtItsEndHasAndNoMore) {
  for (std::uint64_t stop = 1; stop <= 4; ++stop) {
    fs::remove(at("one"));
    fs::remove(at("two"));
    Process child("child", [this] {
      test::offer_calls(std::array<long, 1>{SYS_mkdir});
      ::mkdir(at("one").c_str(), 0700);
      ::mkdir(at("two").c_str(), 0700);
      return 0;
    });
    Tracer tracer(child);
    EXPECT_EQ(tracer.lead(stop), stop);
    tracer.kill();
    EXPECT_FALSE(tracer.is_tracing());
    EXPECT_EQ(fs::exists(at("one")), stop >= 2);
    EXPECT_EQ(fs::exists(at("two")), stop >= 4);
  }
}

TEST_F(TracerTest, AFrozenProcessDoesNothingInAnyThreadUntilItIsLedOn) {
  SharedPage<std::atomic<std::uint64_t>> count;
  SharedPage<std::atomic<bool>> enough;
  Process child("child", [&] {
    test::offer_calls(std::array<long, 1>{SYS_mkdir});
    std::thread counter([&] {
      while (!enough->load()) count->fetch_add(1);
    });
    while (count->load() < 1'000) ::usleep(100);
    ::mkdir(at("one").c_str(), 0700);
    enough->store(true);
    counter.join();
    return 7;
  });
  Tracer tracer(child);
  const auto call = tracer.next();
  ASSERT_TRUE(call);
  EXPECT_EQ(call->number, SYS_mkdir);
  EXPECT_EQ(tracer.path_of(*call), at("one").native());
  tracer.freeze();
  const std::uint64_t before = count->load();
  ::usleep(20'000);
  EXPECT_EQ(count->load(), before);
  EXPECT_FALSE(fs::exists(at("one")));
  while (tracer.next()) {
  }
  EXPECT_TRUE(fs::exists(at("one")));
  EXPECT_EQ(tracer.exit_code(), 7);
}

TEST_F(TracerTest, AProcessThatRunsIsAttachedToAndLetGo) {
  SharedPage<std::atomic<std::uint64_t>> count;
  Process child("child", [&] {
    for (std::uint64_t i = 0;; ++i) {
      ::mkdir(at("one").c_str(), 0700);
      ::rmdir(at("one").c_str());
      count->store(i);
    }
    return 0;
  });
  while (count->load() < 10) ::usleep(100);
  {
    Tracer tracer(child.pid(), std::array<long, 1>{SYS_rmdir});
    ASSERT_TRUE(tracer.is_tracing());
    for (int i = 0; i < 10; ++i) {
      const auto call = tracer.next();
      ASSERT_TRUE(call);
      EXPECT_EQ(call->number, SYS_rmdir);
      EXPECT_EQ(fs::exists(at("one")), !call->ended);
    }
    tracer.freeze();
    tracer.let_go();
  }
  const std::uint64_t before = count->load();
  while (count->load() < before + 10) ::usleep(100);
  Tracer tracer(child.pid(), std::array<long, 1>{SYS_rmdir});
  tracer.kill();
  EXPECT_EQ(child.wait(), -1 - SIGKILL);
}

// --- Power cuts ----------------------------------------------------------------------------------

TEST_F(TracerTest, APowerCutLeavesWhatWasSyncedWithItsName) {
  DiskTrace disk(root());
  ASSERT_NO_FATAL_FAILURE(record(disk, [this] {
    const int file = open("a");                                   // 0
    const bool first = write(file, "first", 0);                   // 1
    const bool synced = ::fdatasync(file) == 0;                   // 2
    const bool named = sync_directory();                          // 3
    return first && synced && named && write(file, "second", 5);  // 4
  }));
  ASSERT_EQ(disk.size(), 5u);
  using Files = std::map<std::string, std::string>;
  // Synced or not, a file without a name is not there.
  for (std::size_t events = 0; events < 4; ++events)
    EXPECT_EQ(after(disk, events, PowerCut::loses_all), Files{}) << events;
  EXPECT_EQ(after(disk, 5, PowerCut::loses_all), (Files{{"a", "first"}}));
  EXPECT_EQ(after(disk, 5, PowerCut::keeps_all), (Files{{"a", "firstsecond"}}));
  EXPECT_EQ(after(disk, 2, PowerCut::keeps_all), (Files{{"a", "first"}}));
}

TEST_F(TracerTest, WhatWasThereBeforeIsOnTheDisk) {
  std::ofstream(at("old")) << "as it was";
  DiskTrace disk(root());
  ASSERT_NO_FATAL_FAILURE(record(disk, [this] {
    return ::rename(at("old").c_str(), at("new").c_str()) == 0 && ::unlink(at("new").c_str()) == 0;
  }));
  using Files = std::map<std::string, std::string>;
  EXPECT_EQ(after(disk, 2, PowerCut::loses_all), (Files{{"old", "as it was"}}));
  EXPECT_EQ(after(disk, 1, PowerCut::keeps_all), (Files{{"new", "as it was"}}));
  EXPECT_EQ(after(disk, 2, PowerCut::keeps_all), Files{});
}

TEST_F(TracerTest, ATornWriteHasSectorsOfItInAnyOrder) {
  std::ofstream(at("a")) << std::string(8192, 'o');
  DiskTrace disk(root());
  ASSERT_NO_FATAL_FAILURE(record(disk, [this] { return write(open("a"), std::string(8192, 'n'), 0); }));
  ASSERT_EQ(disk.size(), 1u);
  std::set<std::string> seen;
  for (int i = 0; i < 200; ++i) {
    std::string sectors;
    const std::string text = after(disk, 1, PowerCut::tears_512).at("a");
    ASSERT_EQ(text.size(), 8192u);
    for (std::size_t at = 0; at < text.size(); at += 512) {
      EXPECT_EQ(text.substr(at, 512), std::string(512, text[at]));
      sectors += text[at];
    }
    seen.insert(sectors);
  }
  EXPECT_TRUE(seen.contains(std::string(16, 'o')));
  EXPECT_TRUE(seen.contains(std::string(16, 'n')));
  EXPECT_GT(seen.size(), 50u);
}

}  // namespace
}  // namespace ringtail::crash

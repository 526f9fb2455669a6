// Stories: what a process does with a log, part by part, so that a test can interrupt it at any point; and what must be
// true of the log afterwards, whoever was interrupted where.
//
// A story notes in a page, which outlives the process, what it is about to do and what it was told is done. The check
// compares the log with that, goes on with the log for a little, and brings the page up to date, so that the story can
// be told again from there.
//
// Thread safety: none. `tell` is for child processes, `check` for the test while no child has the log open.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "crash/scene.h"

namespace ringtail::crash {

struct StoryPage {
  static constexpr std::size_t kMarks = 16;
  std::array<std::atomic<std::uint64_t>, kMarks> marks{};
  char error[512] = {};

  using Marks = std::array<std::uint64_t, kMarks>;
  Marks load() const {
    Marks copy{};
    for (std::size_t i = 0; i < kMarks; ++i) copy[i] = marks[i].load();
    return copy;
  }
  void store(const Marks& from) {
    for (std::size_t i = 0; i < kMarks; ++i) marks[i].store(from[i]);
  }
};

// What is left of a log's process, or of its host.
enum class Loss : std::uint8_t {
  process,  // shared memory is as it was
  host,     // only what was synced is there
};

class Story {
 public:
  virtual ~Story() = default;
  // Empty, or what has gone wrong.
  virtual std::string tell(const Scene& scene, KeeperMode mode, StoryPage& page) = 0;
  // Empty, or what is wrong with the log.
  virtual std::string check(const Scene& scene, StoryPage& page, Loss loss) = 0;
};

struct StoryKind {
  const char* name;
  std::unique_ptr<Story> (*make)();
};
inline void PrintTo(const StoryKind& kind, std::ostream* out) { *out << kind.name; }

// Records are sent until segments are full: flushes, syncs, segments that roll, and old ones that are deleted.
std::unique_ptr<Story> make_segment_story();
// The same with keys in a compacted topic.
std::unique_ptr<Story> make_compaction_story();
// Durable transactions over two topics, some of which are aborted.
std::unique_ptr<Story> make_transaction_story();
// Two members of a group that come, share, commit and go.
std::unique_ptr<Story> make_group_story();
// Topics are created, altered, given partitions, and deleted.
std::unique_ptr<Story> make_catalog_story();

inline constexpr std::array kStories{
    StoryKind{"Segments", make_segment_story}, StoryKind{"Compaction", make_compaction_story},
    StoryKind{"Transactions", make_transaction_story}, StoryKind{"Groups", make_group_story},
    StoryKind{"Catalog", make_catalog_story}};

// Tells a story in a child; its exit code is that of the child.
inline int tell(Story& story, const Scene& scene, KeeperMode mode, StoryPage& page) {
  const std::string wrong = story.tell(scene, mode, page);
  return wrong.empty() ? 0 : give_up(page.error, wrong);
}

// Every segment file of a log is well-formed. Empty, or what is wrong.
inline std::string verify_log(const std::filesystem::path& dir) {
  for (const auto& topic : std::filesystem::directory_iterator(dir / "topics"))
    for (const auto& partition : std::filesystem::directory_iterator(topic)) {
      if (!partition.is_directory()) continue;
      auto verified = log::verify_partition(partition.path());
      if (!verified) return to_string(verified.error());
      for (const auto& fault : verified->faults)
        return fmt::format("{} at {}: {}", fault.path.string(), fault.position.value(), fault.message);
    }
  return {};
}

}  // namespace ringtail::crash

// Files that a release has written, and every later one must read: where they are, how they are kept, and what
// of them more than one test has to know.
//
// A file whose name ends in .hex is kept as text: its size, and each 16 bytes that are not all zero. In a Tree
// files have their own names and bytes.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "format/segment.h"
#include "ringtail/types.h"

namespace ringtail::golden {

// By their path below the folder.
using Tree = std::map<std::string, std::string, std::less<>>;

// The committed files of release 0.1.
const Tree& committed();
// One of them; fails the test when it is missing.
const std::string& file(std::string_view name);

Tree load(const std::filesystem::path& dir);
// As they are to be committed.
void store(const std::filesystem::path& dir, const Tree& tree);
// Writes the files below `prefix` as they are, without the prefix.
void lay_out(const std::filesystem::path& dir, const Tree& tree, std::string_view prefix);

// --- What was written ----------------------------------------------------------------------------

inline constexpr std::array<std::uint64_t, 2> kLogId{0x0123456789abcdef, 0xfedcba9876543210};
inline constexpr std::string_view kLogIdText = "0123456789abcdeffedcba9876543210";
// 2025-07-17T08:05:03.360842448Z
inline constexpr std::int64_t kTime = 1'752'739'503'360'842'448;
inline constexpr std::int64_t kCreated = 1'700'000'000'000'000'000;

// Topics by name: each has one partition.
struct Topic {
  std::string_view name;
  std::uint64_t id;

  format::SegmentIdentity identity() const { return {kLogId, id, PartitionId(0)}; }
};
inline constexpr Topic kOrders{"orders", 0x1122334455667788};    // every kind of frame, two segments
inline constexpr Topic kPrices{"prices", 0x2122334455667788};    // compacted
inline constexpr Topic kTicks{"ticks", 0x3122334455667788};      // in a ring only
inline constexpr Topic kShipped{"shipped", 0x4122334455667788};  // replicated
inline constexpr Topic kOffsets{"__consumer_offsets", 0x5122334455667788};
inline constexpr Topic kTransactions{"__transaction_state", 0x6122334455667788};

// --- The writers ---------------------------------------------------------------------------------

// Each adds its files. The same bytes every time, but for those that is_packed names.
void write_log(Tree& tree);            // log/, replica/
void write_shared_memory(Tree& tree);  // shm/
void write_messages(Tree& tree);       // frames, wire/
void write_cluster(Tree& tree);        // cluster/, cluster.json
// Whether what a file holds was made by a compressor, whose next version may pack otherwise.
bool is_packed(std::string_view name);

}  // namespace ringtail::golden

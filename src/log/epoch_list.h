// Which leader wrote what: for each leader epoch the place where it began. Two replicas compare their lists
// to find where they parted (KIP-101), and the one that follows cuts off what it has beyond.
//
// Stored beside a partition's segments, in "leader-epochs". Thread safety: values. Process safety: the file
// is the keeper's.
#pragma once

#include <filesystem>
#include <span>
#include <vector>

#include "ringtail/error.h"
#include "ringtail/types.h"

namespace ringtail::log {

// A place between two frames: where a byte goes, and which offset is next there.
struct LogPoint {
  Position position{0};
  Offset offset{0};

  friend auto operator<=>(const LogPoint&, const LogPoint&) = default;
};

struct EpochStart {
  LeaderEpoch epoch{0};
  LogPoint start;

  friend bool operator==(const EpochStart&, const EpochStart&) = default;
};

class EpochList {
 public:
  EpochList() = default;
  // Errors: invalid_argument when epochs or places do not ascend.
  static Result<EpochList> of(std::vector<EpochStart> starts);

  // The list in a partition's directory; empty where there is none. Blocks. Errors: corrupt and
  // incompatible_layout (another version; both name the file and the remedy), permission_denied, system.
  static Result<EpochList> load(const std::filesystem::path& dir);
  // Durable on return. Blocks. Errors: permission_denied, read_only, no_space, system.
  Status store(const std::filesystem::path& dir) const;

  // Notes that `epoch` begins at `start`; false if it is no news. An epoch without a record gives way to the
  // next. Requires that both are not below the last.
  bool begin(LeaderEpoch epoch, const LogPoint& start);
  // Takes out what begins at `end` or behind: the log was cut there.
  void cut(const LogPoint& end);
  void clear() { starts_.clear(); }

  std::span<const EpochStart> starts() const { return starts_; }
  // Whether what was appended under `epoch`, up to `end`, has stayed: the next epoch begins there or behind.
  bool has(LeaderEpoch epoch, Position end) const;
  // The epoch that what comes next belongs to; 0 before the first.
  LeaderEpoch last() const { return starts_.empty() ? LeaderEpoch(0) : starts_.back().epoch; }

 private:
  std::vector<EpochStart> starts_;
};

// How far a log with the list `mine`, which ends at `end`, and one with `theirs` and `their_end` are the same:
// the end of the last epoch that both have, in the one where it is shorter. {0, 0} when they have none in common.
LogPoint common_end(const EpochList& mine, const LogPoint& end, const EpochList& theirs,
                    const LogPoint& their_end);

}  // namespace ringtail::log

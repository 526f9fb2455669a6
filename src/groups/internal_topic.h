// A topic of the coordinator's own, in which its state outlives the machine: compacted, of one partition,
// so of each key the latest record counts.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "log/appender.h"
#include "log/attachment.h"

namespace ringtail::groups {

// For an entry that is said to be opened: the coordinator's own keeper has opened what it asks for.
inline constexpr std::chrono::nanoseconds kNoPatience{0};

struct KeyValue {
  std::string key;
  std::optional<std::string> value;  // none: deleted
};

// Thread safety: one thread at a time. Process safety: only the coordinator appends.
class InternalTopic {
 public:
  // The attachment must outlive it, and so must `stop`, where restore is to end once that is set.
  InternalTopic(log::Attachment& attachment, std::string_view name, const std::atomic<bool>* stop = nullptr)
      : attachment_(attachment), name_(name), stop_(stop) {}

  // Hands every record that there is to `take`, in order; none when there is no such topic. Blocks.
  // Errors: of reading; timed_out; closed, when it was stopped; incompatible_layout, when a record that nothing has
  // replaced is of another version.
  Status restore(const std::function<void(const Record&)>& take);

  // Appends, without waiting for the disk or for space; makes the topic when it is missing.
  // Errors: timed_out (no space now: try again; some may have been appended), and why the topic cannot be
  // written.
  Status append(std::span<const KeyValue> records);

  // From here on end and is_synced speak of what anybody has appended so far, too: a coordinator before us.
  // Errors: as append.
  Status include_others();

  // The end of everything appended.
  Position end() const { return end_; }
  // Whether everything before `end`, or everything appended, is on disk.
  bool is_synced(Position end) const;
  bool is_synced() const { return is_synced(end_); }
  // Why it will not be, if so.
  std::optional<Error> failure() const;
  // What changes when something has come to the disk. Requires an append before.
  const shm::Shared<std::uint32_t>& durable_futex() const;
  // Has the keeper sync what was appended, and wake the futex then.
  void request_sync() const;

 private:
  Status open();

  log::Attachment& attachment_;
  std::string name_;
  const std::atomic<bool>* stop_;
  shm::OwnedSlot slot_;
  WallClock clock_;
  std::optional<log::Appender> appender_;
  Position end_{0};
};

}  // namespace ringtail::groups

// A reader of committed records has to know what became of a transaction before it comes to the
// transaction's end. The log's own bytes tell: a second cursor, the scout, walks ahead of the reader through
// the same rings and files and notes the markers. It starts at the first transactional record the reader
// meets, and looks at each frame once.
//
// But for a memory topic: there a marker may find no room, because the reader stands in front of its
// transaction. What was decided stands in the control segment until the marker is in the ring.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "log/partition_ref.h"
#include "log/transaction_outcomes.h"
#include "ringtail/error.h"

namespace ringtail::log {

class PartitionReader;

// A frame boundary: its position, the offset that follows there, and whether the position is one in a
// compacted file, which means nothing to a ring.
struct ReadPlace {
  Position position{0};
  Offset offset{0};
  bool compacted = false;

  friend bool operator==(const ReadPlace&, const ReadPlace&) = default;
};

// Thread safety: one thread, that of its reader. Process safety: as any reader.
class TransactionScout {
 public:
  // Takes a free reader entry for `slot`. Errors: as PartitionReader::open.
  static Result<std::unique_ptr<TransactionScout>> open(const PartitionRef& partition, std::uint32_t slot,
                                                        std::size_t read_ahead_bytes);
  ~TransactionScout();

  // What became of the transaction of the record at `position` and `offset`, where the reader stands;
  // nothing if no marker of it is to be seen yet. Blocks only while reading files, and not for long: a
  // call that ends early goes on in the next.
  // Errors: as PartitionReader::poll.
  Result<std::optional<Outcome>> find(const format::Extension& of, const ReadPlace& at);
  // After find() has seen nothing: whether there is more to look at. Lock-free.
  bool has_data() const;
  // Up to where it has looked.
  Position position() const;

  // The reader has come by this marker.
  void pass(format::MarkerKind kind, const format::Extension& of, Offset at) {
    outcomes_.forget(kind, of, at);
  }
  // The reader goes on elsewhere.
  void restart();

  // As PartitionReader::abandon.
  void abandon();

 private:
  explicit TransactionScout(std::unique_ptr<PartitionReader> cursor);
  void want(const format::Extension& of);
  std::optional<Outcome> find_decision() const;

  std::unique_ptr<PartitionReader> cursor_;
  TransactionOutcomes outcomes_;
  format::Extension wanted_{};                     // what the reader has asked about last
  const shm::TransactionalId* decider_ = nullptr;  // of that, in a memory topic
  bool placed_ = false;  // the cursor stands where everything between it and the reader was looked at
};

}  // namespace ringtail::log

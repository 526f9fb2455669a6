// Errors as values. No exception of its own crosses a Ringtail interface.
#pragma once

#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace ringtail {

// What kind of failure it is; stable, so that callers may switch on it.
enum class Code {
  invalid_argument,     // the caller's argument is malformed or out of range
  not_found,            // no such topic, partition, file or log directory
  already_exists,       // the topic exists
  permission_denied,    // the file system refused
  read_only,            // the log directory or its file system cannot be written
  corrupt,              // bytes in a file or in shared memory do not follow the format
  incompatible_layout,  // written by another layout version of Ringtail
  no_space,             // the disk that holds the log directory is full
  shared_memory_full,   // /dev/shm cannot hold the ring
  limit_exceeded,       // a fixed table is full (slots, partitions, topics) or a record is too large
  would_block,          // the ring is full and the topic's on.full is `fail`
  timed_out,            // the wait ended before the event came
  no_keeper,            // no process holds the keeper role, so nothing is made durable
  storage_failed,       // a write or sync failed; the partition refuses records until a keeper opens it anew
  claim_expired,        // the claim was given up after claim.timeout.ms; the record was not appended
  not_enough_replicas,  // fewer in-sync replicas than min.insync.replicas
  not_leader,           // another host leads the partition, or none does
  lost_leadership,      // this host ceased to lead meanwhile: whether the record is kept is not known
  fenced,               // another producer with the same id has taken over, or its transaction was ended
  held_exclusively,     // another producer has the partition for itself
  out_of_order_sequence,  // a producer's sequence leaves a gap behind its last one in the partition
  offset_out_of_range,    // before the log start offset or beyond the log end offset
  stale_generation,       // the partition is no longer this member's: its commit does not count
  group_not_empty,        // not while the consumer group has members
  inconsistent_assignor,  // the members of a group must use the same assignor
  closed,                 // the handle was closed, the topic deleted, or the process forked
  unsupported,            // not available for this topic, build or kernel
  system,                 // any other failure of a system call
  offset_not_available,   // beyond the high watermark as far as this host knows it: it may rise, so ask again
};

// The code's name as it is written above, for example "not_found".
std::string_view to_string(Code code);

// A failure: what kind, the errno behind it (0 if none), and a sentence that names the thing
// concerned and, where there is one, the remedy.
struct [[nodiscard]] Error {
  Code code = Code::system;
  int os_errno = 0;
  std::string message;
};

// "not_found: topic 'orders' does not exist; create it with `ringtail topic create orders`"
std::string to_string(const Error& error);

template <class T>
using Result = std::expected<T, Error>;
using Status = std::expected<void, Error>;

// Shorthand for returning an error from a function that returns Result.
inline std::unexpected<Error> fail(Code code, std::string message, int os_errno = 0) {
  return std::unexpected(Error{code, os_errno, std::move(message)});
}

}  // namespace ringtail

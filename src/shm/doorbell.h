// A bell that any process of a log can ring, and one hears: a datagram socket in the log's shared-memory folder.
// For a listener that waits for sockets as well, and so cannot sleep on a futex.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>

#include "base/descriptor.h"
#include "ringtail/error.h"

namespace ringtail::shm {

// Beside the flag of those who wait for the replicas (Partition::replicated_waiters): the one who ships looks again
// by himself before long, and does not want to be rung by every append; only who waits for him rings.
inline constexpr std::uint32_t kShipperRests = 2;

// Where it is.
std::filesystem::path doorbell_path(const std::filesystem::path& shm_dir);

// Says `number` to whoever listens there; nothing happens if nobody does, or does not keep up (kMostHeard). A system call that
// does not block. Thread safety: any thread; the socket is one a thread.
void ring_doorbell(const std::filesystem::path& shm_dir, std::uint32_t number);

// The listener's end. Thread safety: one thread.
class Doorbell {
 public:
  // Who hears so many numbers at once may have missed others: the kernel queues a few (net.unix.max_dgram_qlen, 10),
  // and a ring beyond them is lost.
  static constexpr std::size_t kMostHeard = 8;

  // Replaces the bell of a listener that is gone. Errors: permission_denied, limit_exceeded (the path is too long
  // for a socket), system.
  static Result<Doorbell> open(const std::filesystem::path& shm_dir);
  Doorbell(Doorbell&&) = default;
  Doorbell& operator=(Doorbell&&) = default;

  // Readable when it was rung.
  int descriptor() const { return socket_.get(); }
  // The next number that was said; false when there is none. Does not block.
  bool next(std::uint32_t& number) const;

 private:
  explicit Doorbell(Descriptor socket) : socket_(std::move(socket)) {}

  Descriptor socket_;
};

}  // namespace ringtail::shm

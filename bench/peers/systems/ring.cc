// The minimal ring: what a single producer can do in shared memory with nothing around it. One ring per producer;
// slots of one size, a word before each payload says which lap wrote it; each reader publishes its position once
// in an eighth of the ring. No wake-ups, no crash safety, no names, no records of other sizes.
//
// Modes: memory (1 MiB, payloads written in place), memcpy (32 MiB, as large as Ringtail's ring by default: each
// payload is copied in and out, the yardstick for large records), memcpy-small (the same with 1 MiB).
#include <atomic>
#include <bit>
#include <string_view>

#include "harness/peer_main.h"
#include "harness/shared_memory.h"

namespace ringtail::peers {
namespace {

struct alignas(128) Cursor {
  std::atomic<std::uint64_t> value;
};
struct Header {
  Cursor read[kMaxProducers];  // by consumer: slots read
};

std::size_t bytes_of(const Options& options) {
  return options.mode == "memcpy" ? std::size_t{32} << 20 : std::size_t{1} << 20;
}
bool copies(const Options& options) { return options.mode.starts_with("memcpy"); }

// Mapped alike by both sides. Slot n is free for the payload n when the word before it is not n + 1.
class Ring {
 public:
  static Result<Ring> open(const Options& options, Channel channel, unsigned producer) {
    auto file = SharedFile::open(options.path(channel, producer), sizeof(Header) + bytes_of(options));
    if (!file) return std::unexpected(file.error());
    return Ring(std::move(*file), options);
  }

  std::atomic<std::uint64_t>& mark(std::uint64_t n) const {
    return *reinterpret_cast<std::atomic<std::uint64_t>*>(slot(n));
  }
  std::byte* payload(std::uint64_t n) const { return slot(n) + 8; }
  Cursor& cursor(unsigned consumer) const { return file_.at<Header>()->read[consumer]; }
  std::uint64_t slots() const { return mask_ + 1; }

 private:
  Ring(SharedFile file, const Options& options)
      : file_(std::move(file)),
        stride_(options.size + 8),
        mask_(std::bit_floor(bytes_of(options) / stride_) - 1),
        slots_(file_.at<std::byte>(sizeof(Header))) {}

  std::byte* slot(std::uint64_t n) const { return slots_ + (n & mask_) * stride_; }

  SharedFile file_;
  std::size_t stride_;
  std::uint64_t mask_;
  std::byte* slots_;
};

class RingSender {
 public:
  static Result<RingSender> open(const Options& options, const RunFile& run, Channel channel) {
    auto ring = Ring::open(options, channel, options.index);
    if (!ring) return std::unexpected(ring.error());
    return RingSender(std::move(*ring), run, channel == Channel::data ? options.consumers : 1);
  }

  template <class Fill>
  Sent send_in_place(std::size_t, Fill fill) {
    if (next_ == limit_ && !wait_for_space()) return Sent::stopped;
    fill(ring_.payload(next_));
    ring_.mark(next_).store(next_ + 1, std::memory_order_release);  // SYNC: the reader's look at the mark
    ++next_;
    return Sent::yes;
  }
  Sent finish() { return Sent::yes; }
  Error error() const { return {}; }

 private:
  RingSender(Ring ring, const RunFile& run, unsigned consumers)
      : ring_(std::move(ring)), run_(&run), consumers_(consumers), limit_(ring_.slots()) {}

  bool wait_for_space() {
    while (!run_->stopped()) {
      std::uint64_t least = ~std::uint64_t{0};
      for (unsigned c = 0; c < consumers_; ++c) {
        least = std::min(least, ring_.cursor(c).value.load(std::memory_order_acquire));  // SYNC: publish
      }
      limit_ = least + ring_.slots();
      if (limit_ != next_) return true;
      spin_pause();
    }
    return false;
  }

  Ring ring_;
  const RunFile* run_;
  unsigned consumers_;
  std::uint64_t next_ = 0;
  std::uint64_t limit_;
};

// The same with payloads that were built elsewhere and are copied in.
class CopyingSender {
 public:
  static Result<CopyingSender> open(const Options& options, const RunFile& run, Channel channel) {
    auto ring = RingSender::open(options, run, channel);
    if (!ring) return std::unexpected(ring.error());
    return CopyingSender(std::move(*ring));
  }

  Sent send(Payload payload) {
    return ring_.send_in_place(payload.size(),
                               [&](std::byte* to) { std::memcpy(to, payload.data(), payload.size()); });
  }
  Sent finish() { return Sent::yes; }
  Error error() const { return {}; }

 private:
  explicit CopyingSender(RingSender ring) : ring_(std::move(ring)) {}

  RingSender ring_;
};

class RingReceiver {
 public:
  static Result<RingReceiver> open(const Options& options, const RunFile&, Channel channel) {
    RingReceiver receiver(options, channel == Channel::data ? options.index : 0);
    const unsigned rings = channel == Channel::data ? options.producers : 1;
    for (unsigned k = 0; k < rings; ++k) {
      auto ring = Ring::open(options, channel, k);
      if (!ring) return std::unexpected(ring.error());
      receiver.from_.push_back({std::move(*ring), 0});
    }
    return receiver;
  }

  template <class Handle>
  int poll(Handle handle) {
    int got = 0;
    for (Source& source : from_) got += poll(source, handle);
    return got;
  }
  Error error() const { return {}; }

 private:
  struct Source {
    Ring ring;
    std::uint64_t next;
  };

  RingReceiver(const Options& options, unsigned consumer)
      : consumer_(consumer), size_(options.size), copy_(copies(options) ? options.size : 0) {}

  template <class Handle>
  int poll(Source& source, Handle& handle) {
    constexpr int kAtOnce = 256;
    const std::uint64_t eighth = source.ring.slots() / 8;
    int got = 0;
    // SYNC: the sender's store of the mark.
    while (got < kAtOnce &&
           source.ring.mark(source.next).load(std::memory_order_acquire) == source.next + 1) {
      const std::byte* payload = source.ring.payload(source.next);
      if (!copy_.empty()) {
        std::memcpy(copy_.data(), payload, size_);
        payload = copy_.data();
      }
      handle(Payload{payload, size_});
      if (++source.next % eighth == 0) {
        source.ring.cursor(consumer_).value.store(source.next,
                                                  std::memory_order_release);  // SYNC: wait_for_space
      }
      ++got;
    }
    return got;
  }

  unsigned consumer_;
  std::size_t size_;
  std::vector<std::byte> copy_;
  std::vector<Source> from_;
};

template <class AnySender>
struct RingSystem {
  static constexpr const char* kName = "ring";
  using Sender = AnySender;
  using Receiver = RingReceiver;

  static std::string version() { return "1"; }
  static Status check(const Options& options) {
    if (options.block)
      return fail(Code::unsupported, "the minimal ring wakes nobody; run it with --wait spin");
    return {};
  }
};

}  // namespace
}  // namespace ringtail::peers

int main(int argc, char** argv) {
  using namespace ringtail::peers;
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]).starts_with("memcpy"))
      return peer_main<RingSystem<CopyingSender>>(argc, argv);
  }
  return peer_main<RingSystem<RingSender>>(argc, argv);
}

// Boost.Interprocess message_queue: a queue of 1,024 messages in shared memory for each reader, to which all
// producers send. --wait spin: try_send, try_receive; block: send and receive sleep on the queue's condition.
// Configured as its documentation shows, https://www.boost.org/doc/libs/1_74_0/doc/html/interprocess/
// synchronization_mechanisms.html#interprocess.synchronization_mechanisms.message_queue
#include <fmt/format.h>

#include <boost/date_time/posix_time/posix_time_types.hpp>
#include <boost/interprocess/ipc/message_queue.hpp>
#include <boost/version.hpp>
#include <functional>

#include "harness/peer_main.h"

namespace ringtail::peers {
namespace {

namespace ipc = boost::interprocess;
using Queue = std::unique_ptr<ipc::message_queue>;

// Queues have names, no folder: the run's folder is hashed into them.
std::string name_of(const Options& options, Channel channel, unsigned reader) {
  const std::size_t folder = std::hash<std::string>()(options.dir.string());
  return fmt::format("ringtail-lab-{:016x}-{}-{}", folder, to_string(channel), reader);
}

Result<Queue> open_queue(const Options& options, Channel channel, unsigned reader) {
  constexpr std::size_t kMessages = 1024;
  try {
    return std::make_unique<ipc::message_queue>(
        ipc::open_or_create, name_of(options, channel, reader).c_str(), kMessages, options.size);
  } catch (const ipc::interprocess_exception& error) {
    return fail(Code::system, fmt::format("cannot open a queue: {}", error.what()));
  }
}

boost::posix_time::ptime soon() {
  return boost::posix_time::microsec_clock::universal_time() + boost::posix_time::milliseconds(50);
}

class BoostSender {
 public:
  static Result<BoostSender> open(const Options& options, const RunFile& run, Channel channel) {
    BoostSender sender(options.block, run);
    const unsigned readers = channel == Channel::data ? options.consumers : 1;
    for (unsigned k = 0; k < readers; ++k) {
      auto queue = open_queue(options, channel, k);
      if (!queue) return std::unexpected(queue.error());
      sender.queues_.push_back(std::move(*queue));
    }
    return sender;
  }

  Sent send(Payload payload) {
    try {
      for (const Queue& queue : queues_) {
        while (!(block_ ? queue->timed_send(payload.data(), payload.size(), 0, soon())
                        : queue->try_send(payload.data(), payload.size(), 0))) {
          if (run_->stopped()) return Sent::stopped;
        }
      }
    } catch (const ipc::interprocess_exception& error) {
      failure_ = error.what();
      return Sent::failed;
    }
    return Sent::yes;
  }
  Sent finish() { return Sent::yes; }
  Error error() const { return Error{Code::system, 0, failure_}; }

 private:
  BoostSender(bool block, const RunFile& run) : block_(block), run_(&run) {}

  bool block_;
  const RunFile* run_;
  std::vector<Queue> queues_;
  std::string failure_;
};

class BoostReceiver {
 public:
  static Result<BoostReceiver> open(const Options& options, const RunFile&, Channel channel) {
    const unsigned reader = channel == Channel::data ? options.index : 0;
    auto queue = open_queue(options, channel, reader);
    if (!queue) return std::unexpected(queue.error());
    return BoostReceiver(std::move(*queue), name_of(options, channel, reader), options);
  }
  BoostReceiver(BoostReceiver&& other) noexcept = default;
  BoostReceiver& operator=(BoostReceiver&&) = delete;
  ~BoostReceiver() {
    if (queue_) ipc::message_queue::remove(name_.c_str());
  }

  template <class Handle>
  int poll(Handle handle) {
    std::size_t size = 0;
    unsigned priority = 0;
    try {
      const bool got = block_ ? queue_->timed_receive(buffer_.data(), buffer_.size(), size, priority, soon())
                              : queue_->try_receive(buffer_.data(), buffer_.size(), size, priority);
      if (!got) return 0;
    } catch (const ipc::interprocess_exception& error) {
      failure_ = error.what();
      return -1;
    }
    handle(Payload{buffer_.data(), size});
    return 1;
  }
  Error error() const { return Error{Code::system, 0, failure_}; }

 private:
  BoostReceiver(Queue queue, std::string name, const Options& options)
      : queue_(std::move(queue)), name_(std::move(name)), block_(options.block), buffer_(options.size) {}

  Queue queue_;
  std::string name_;
  bool block_;
  std::vector<std::byte> buffer_;
  std::string failure_;
};

struct BoostSystem {
  static constexpr const char* kName = "boost";
  using Sender = BoostSender;
  using Receiver = BoostReceiver;

  static std::string version() {
    return fmt::format("{}.{}.{}", BOOST_VERSION / 100000, BOOST_VERSION / 100 % 1000, BOOST_VERSION % 100);
  }
  static Status check(const Options&) { return {}; }
};

}  // namespace
}  // namespace ringtail::peers

int main(int argc, char** argv) {
  return ringtail::peers::peer_main<ringtail::peers::BoostSystem>(argc, argv);
}

// Eclipse iceoryx 2 (C++): payloads are written in memory that it lends, and read where they lie. Nothing is lost:
// publishers wait for full queues, as its README of the example "iceoptions" has it
// (https://iceoryx.io/v2.0.2/examples/iceoptions/). `serve` runs iox-roudi with memory pools for the payload's size
// (https://iceoryx.io/v2.0.2/advanced/configuration-guide/). --wait spin: take(); block: a WaitSet.
#include <fmt/format.h>

#include <fstream>
#include <iceoryx_posh/popo/untyped_publisher.hpp>
#include <iceoryx_posh/popo/untyped_subscriber.hpp>
#include <iceoryx_posh/popo/wait_set.hpp>
#include <iceoryx_posh/runtime/posh_runtime.hpp>

#include "harness/daemon.h"
#include "harness/peer_main.h"

namespace ringtail::peers {
namespace {

namespace popo = iox::popo;

// RouDi connects the two sides once in 100 ms.
constexpr timespec kDiscovery{0, 300'000'000};

void init_runtime(const Options& options) {
  static bool done = false;
  if (std::exchange(done, true)) return;
  const std::string name = fmt::format("lab-{}-{}-{}", options.role, options.index, ::getpid());
  iox::runtime::PoshRuntime::initRuntime(iox::RuntimeName_t(iox::cxx::TruncateToCapacity, name));
}

iox::capro::ServiceDescription service_of(Channel channel) {
  return {"ringtail", "lab", iox::capro::IdString_t(iox::cxx::TruncateToCapacity, to_string(channel))};
}

class IceoryxSender {
 public:
  static Result<IceoryxSender> open(const Options& options, const RunFile& run, Channel channel) {
    init_runtime(options);
    popo::PublisherOptions wanted;
    wanted.subscriberTooSlowPolicy = popo::ConsumerTooSlowPolicy::WAIT_FOR_CONSUMER;
    IceoryxSender sender(std::make_unique<popo::UntypedPublisher>(service_of(channel), wanted), run);
    while (!sender.publisher_->hasSubscribers() && !run.stopped()) ::nanosleep(&kDiscovery, nullptr);
    ::nanosleep(&kDiscovery, nullptr);  // the other readers
    return sender;
  }

  template <class Fill>
  Sent send_in_place(std::size_t size, Fill fill) {
    for (;;) {
      auto chunk = publisher_->loan(static_cast<std::uint32_t>(size));
      if (!chunk.has_error()) {
        fill(static_cast<std::byte*>(chunk.value()));
        publisher_->publish(chunk.value());
        return Sent::yes;
      }
      if (run_->stopped()) return Sent::stopped;
      if (chunk.get_error() != popo::AllocationError::RUNNING_OUT_OF_CHUNKS) return Sent::failed;
    }
  }
  Sent finish() { return Sent::yes; }
  Error error() const { return Error{Code::system, 0, "iceoryx lends no memory"}; }

 private:
  IceoryxSender(std::unique_ptr<popo::UntypedPublisher> publisher, const RunFile& run)
      : publisher_(std::move(publisher)), run_(&run) {}

  std::unique_ptr<popo::UntypedPublisher> publisher_;
  const RunFile* run_;
};

class IceoryxReceiver {
 public:
  static Result<IceoryxReceiver> open(const Options& options, const RunFile&, Channel channel) {
    init_runtime(options);
    popo::SubscriberOptions wanted;
    wanted.queueFullPolicy = popo::QueueFullPolicy::BLOCK_PRODUCER;
    IceoryxReceiver receiver(std::make_unique<popo::UntypedSubscriber>(service_of(channel), wanted),
                             options.size);
    if (options.block) {
      receiver.waits_ = std::make_unique<popo::WaitSet<>>();
      if (receiver.waits_->attachState(*receiver.subscriber_, popo::SubscriberState::HAS_DATA).has_error()) {
        return fail(Code::system, "iceoryx: cannot attach the subscriber to a WaitSet");
      }
    }
    ::nanosleep(&kDiscovery, nullptr);
    return receiver;
  }

  template <class Handle>
  int poll(Handle handle) {
    if (waits_ && !subscriber_->hasData()) waits_->timedWait(iox::units::Duration::fromMilliseconds(50));
    constexpr int kAtOnce = 256;
    for (int got = 0; got < kAtOnce; ++got) {
      auto chunk = subscriber_->take();
      if (chunk.has_error()) {
        return chunk.get_error() == popo::ChunkReceiveResult::NO_CHUNK_AVAILABLE ? got : -1;
      }
      handle(Payload{static_cast<const std::byte*>(chunk.value()), size_});
      subscriber_->release(chunk.value());
    }
    return kAtOnce;
  }
  Error error() const { return Error{Code::system, 0, "iceoryx: take failed"}; }

 private:
  IceoryxReceiver(std::unique_ptr<popo::UntypedSubscriber> subscriber, std::size_t size)
      : subscriber_(std::move(subscriber)), size_(size) {}

  std::unique_ptr<popo::UntypedSubscriber> subscriber_;
  std::unique_ptr<popo::WaitSet<>> waits_;
  std::size_t size_;
};

struct Iceoryx {
  static constexpr const char* kName = "iceoryx";
  static constexpr bool kLinger = true;
  using Sender = IceoryxSender;
  using Receiver = IceoryxReceiver;

  static std::string version() { return ICEORYX_VERSION; }
  static Status check(const Options&) { return need_program("iox-roudi", "iceoryx"); }

  static Result<std::unique_ptr<Daemon>> serve(const Options& options) {
    const std::filesystem::path config = options.dir / "roudi.toml";
    const std::size_t bytes = (options.size + 127) / 128 * 128;
    std::ofstream(config) << fmt::format(
        "[general]\nversion = 1\n\n[[segment]]\n\n"
        "[[segment.mempool]]\nsize = 128\ncount = 1024\n\n[[segment.mempool]]\nsize = {}\ncount = {}\n",
        std::max<std::size_t>(bytes, 256), bytes > 4096 ? 4096 : 16384);
    const std::filesystem::path output = options.dir / "roudi.log";
    const auto ready = [&] {
      std::ifstream file(output);
      const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
      return text.find("RouDi is ready") != std::string::npos;
    };
    return Daemon::start({"iox-roudi", "-c", config.string(), "-m", "off"}, output, "iceoryx", ready);
  }
};

}  // namespace
}  // namespace ringtail::peers

int main(int argc, char** argv) { return ringtail::peers::peer_main<ringtail::peers::Iceoryx>(argc, argv); }

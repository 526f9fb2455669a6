// Ringtail under the lab's protocol. Modes:
//   memory   storage=memory, on.full=block
//   small    the same with a ring of 8 MiB (term.bytes=2MiB), which caches hold, instead of 32 MiB
//   disk     storage=disk: in the files and synced within flush.ms (5 ms), the producer does not wait for it
//   durable  the same, and each send (or batch) returns when it is synced
//   group    memory, read by a member of a consumer group that commits automatically
//   exclusive, exclusive-disk  memory and disk, by a producer that has the topic for itself
// `serve` is the keeper: it creates the topics, and nothing else holds that role, so that producers and consumers
// are what they measure. All is default but for what is named here.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <optional>
#include <thread>

#include "harness/peer_main.h"
#include "ringtail/ringtail.h"

namespace ringtail::peers {
namespace {

std::string mode_of(const Options& options) { return options.mode.empty() ? "memory" : options.mode; }
bool is_exclusive(const Options& options) { return mode_of(options).starts_with("exclusive"); }

Result<Log> attach(const Options& options) {
  return Log::open({.dir = options.dir, .create_if_missing = false, .keeper = KeeperMode::none});
}

class RingtailSender {
 public:
  static Result<RingtailSender> open(const Options& options, const RunFile& run, Channel channel) {
    auto log = attach(options);
    if (!log) return std::unexpected(log.error());
    const bool durable = mode_of(options) == "durable";
    ProducerOptions wanted{
        .topic = to_string(channel), .durable = durable, .exclusive = is_exclusive(options)};
    if (!durable) wanted.max_block = std::chrono::milliseconds(500);  // then it looks whether it is to stop
    auto producer = Producer::open(*log, std::move(wanted));
    if (!producer) return std::unexpected(producer.error());
    return RingtailSender(std::move(*producer), run, durable, options.batch);
  }

  Sent send(Payload payload) {
    return repeat([&] { return producer_.send(text(payload)); });
  }
  Sent send_batch(std::span<const Payload> payloads) {
    for (std::size_t i = 0; i < payloads.size(); ++i) records_[i].value = text(payloads[i]);
    return repeat([&] { return producer_.send_batch(PartitionId(0), {records_.data(), payloads.size()}); });
  }
  Sent finish() { return Sent::yes; }
  Error error() const { return producer_.error(); }

 private:
  RingtailSender(Producer producer, const RunFile& run, bool durable, unsigned batch)
      : producer_(std::move(producer)), run_(&run), durable_(durable), records_(batch) {}

  static std::string_view text(Payload payload) {
    return {reinterpret_cast<const char*>(payload.data()), payload.size()};
  }

  template <class Send>
  Sent repeat(Send send) {
    for (;;) {
      const auto sent = send();
      if (sent) [[likely]]
        return Sent::yes;
      if (run_->stopped()) return Sent::stopped;
      if (durable_ || sent.error() != SendError::timed_out) return Sent::failed;
    }
  }

  Producer producer_;
  const RunFile* run_;
  bool durable_;
  std::vector<ProducerRecord> records_;
};

class RingtailReceiver {
 public:
  static Result<RingtailReceiver> open(const Options& options, const RunFile& run, Channel channel) {
    auto log = attach(options);
    if (!log) return std::unexpected(log.error());
    ConsumerOptions wanted{.wait = options.block ? WaitStrategy::futex : WaitStrategy::busy_spin};
    const bool member = mode_of(options) == "group";
    if (member) wanted.group_id = fmt::format("lab-{}", to_string(channel));
    auto consumer = Consumer::open(*log, std::move(wanted));
    if (!consumer) return std::unexpected(consumer.error());
    const Status given =
        member ? consumer->subscribe(to_string(channel)) : consumer->assign(to_string(channel));
    if (!given) return std::unexpected(given.error());
    RingtailReceiver receiver(std::move(*consumer));
    // A member gets its partitions within its polls; the run begins when it has them.
    while (member && receiver.consumer_.assignment().empty() && !run.stopped()) {
      const auto none = receiver.consumer_.poll(std::chrono::milliseconds(10));
      if (!none) return std::unexpected(none.error());
    }
    return receiver;
  }

  template <class Handle>
  int poll(Handle handle) {
    const auto records = consumer_.poll(std::chrono::milliseconds(50));
    if (!records) {
      error_ = records.error();
      return -1;
    }
    for (const Record& record : *records) {
      handle(Payload{reinterpret_cast<const std::byte*>(record.value.data()), record.value.size()});
    }
    return static_cast<int>(records->size());
  }
  Error error() const { return error_; }

 private:
  explicit RingtailReceiver(Consumer consumer) : consumer_(std::move(consumer)) {}

  Consumer consumer_;
  Error error_;
};

// The keeper. The rings in /dev/shm go with it.
class Keeper {
 public:
  explicit Keeper(Log log) : log_(std::move(log)), id_(log_->id()) {}
  ~Keeper() {
    log_.reset();
    std::error_code ignored;
    std::filesystem::remove_all(LogOptions().shared_memory_dir / ("ringtail-" + id_), ignored);
  }

  Status create(const std::string& topic, const TopicConfigs& configs) {
    return Admin(*log_).create_topic({.name = topic, .configs = configs});
  }

 private:
  std::optional<Log> log_;
  std::string id_;
};

struct Ringtail {
  static constexpr const char* kName = "ringtail";
  using Sender = RingtailSender;
  using Receiver = RingtailReceiver;

  static std::string version() { return RINGTAIL_VERSION; }

  static Status check(const Options& options) {
    const std::string mode = mode_of(options);
    constexpr std::array modes{"memory", "small", "disk", "durable", "group", "exclusive", "exclusive-disk"};
    if (std::ranges::find(modes, mode) == modes.end()) {
      return fail(Code::unsupported, fmt::format("no mode '{}'; there are {}", mode, fmt::join(modes, ", ")));
    }
    if (is_exclusive(options) && options.producers > 1) {
      return fail(Code::unsupported, "one producer has an exclusive topic for itself; run it with one");
    }
    if (mode == "group" && options.consumers > 1) {
      return fail(Code::unsupported, "members of a group share the records; run it with one consumer");
    }
    return {};
  }

  static Result<std::unique_ptr<Keeper>> serve(const Options& options) {
    auto log = Log::open({.dir = options.dir, .keeper_cpu = options.service_cpu});
    if (!log) return std::unexpected(log.error());
    auto keeper = std::make_unique<Keeper>(std::move(*log));
    const std::string mode = mode_of(options);
    const bool disk = mode == "disk" || mode == "durable" || mode == "exclusive-disk";
    TopicConfigs configs{{"storage", disk ? "disk" : "memory"}};
    if (mode == "small") configs["term.bytes"] = "2MiB";
    for (const Channel channel : {Channel::data, Channel::ping, Channel::pong}) {
      const Status made = keeper->create(to_string(channel), configs);
      if (!made && made.error().code != Code::already_exists) return std::unexpected(made.error());
    }
    for (unsigned i = 0; i < options.topics; ++i) {
      const Status made = keeper->create(fmt::format("idle-{}", i), configs);
      if (!made && made.error().code != Code::already_exists) return std::unexpected(made.error());
    }
    return keeper;
  }
};

}  // namespace
}  // namespace ringtail::peers

int main(int argc, char** argv) { return ringtail::peers::peer_main<ringtail::peers::Ringtail>(argc, argv); }

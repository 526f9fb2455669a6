// A process on one host of a cluster that notes what it does and sees, a line each (cluster/checker.h):
//
//     cluster_actor produce|insist|produce-alone|insist-alone|read DIR TOPIC NAME HISTORY
//
// `produce` appends to partition 0 with acks=all whenever the host leads, and never a value twice. `insist` does so
// with numbers, and sends each until it is acknowledged or 1,024 others came behind it; on all hosts these are one
// producer, and a value tells its number. With `-alone` either has the topic for itself for some sends, then leaves it
// to others for a moment. `read` reads partition 0 from its beginning on. Each goes on until it is
// killed: every line is whole when it is followed by another, and a send without a second line is one of unknown
// outcome.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <span>
#include <string>
#include <thread>

#include "cluster/checker.h"
#include "ringtail/ringtail.h"

namespace {

using namespace std::chrono_literals;
using ringtail::SendError;
using ringtail::test::Event;
using Kind = Event::Kind;

constexpr auto kBetweenSends = 1ms;
constexpr std::size_t kKeyBytes = 1'000;  // so that terms and segments come to their ends, too
constexpr auto kAfterFailure = 20ms;

// How far this process's monotonic clock is ahead of the others', should its host be in a time namespace.
std::int64_t clock_ahead_ns() {
  std::ifstream offsets("/proc/self/timens_offsets");
  std::string clock;
  for (std::int64_t seconds = 0, nanoseconds = 0; offsets >> clock >> seconds >> nanoseconds;)
    if (clock == "monotonic") return seconds * 1'000'000'000 + nanoseconds;
  return 0;
}

struct Actor {
  ringtail::Log log;
  std::string topic;
  std::string name;
  int history = -1;
  bool alone = false;  // as a producer

  ringtail::TopicPartition partition() const { return {topic, ringtail::PartitionId(0)}; }
  void note(Event event) const {
    event.who = name;
    static const std::int64_t ahead_ns = clock_ahead_ns();
    event.time_ns = std::chrono::steady_clock::now().time_since_epoch().count() - ahead_ns;
    const std::string line = to_line(event) + '\n';
    if (::write(history, line.data(), line.size()) != static_cast<ssize_t>(line.size())) std::abort();
  }
};

int give_up(const ringtail::Error& error) {
  std::fprintf(stderr, "%s\n", to_string(error).c_str());
  return 1;
}

// Another has the topic, or there was no keeper to give it.
bool is_passing(ringtail::Code code) {
  return code == ringtail::Code::held_exclusively || code == ringtail::Code::timed_out;
}

// An actor's producer. One that wants the topic for itself is opened anew every so often, so that others have their
// turn; until they have, or as long as it cannot have the topic, there is none.
class Turns {
 public:
  Turns(const Actor& actor, ringtail::ProducerOptions options) : actor_(actor), options_(std::move(options)) {
    options_.topic = actor.topic;
    options_.exclusive = actor.alone;
  }

  // Null: not now. Errors: as of Producer::open.
  ringtail::Result<ringtail::Producer*> next() {
    if (actor_.alone && producer_ && sends_++ == kSends) {
      producer_.reset();
      std::this_thread::sleep_for(kAfterFailure);
    }
    if (producer_) return &*producer_;
    auto opened = ringtail::Producer::open(actor_.log, options_);
    if (!opened && is_passing(opened.error().code)) {
      std::this_thread::sleep_for(kBetweenSends);
      return nullptr;
    }
    if (!opened) return std::unexpected(opened.error());
    sends_ = 0;
    return &producer_.emplace(std::move(*opened));
  }

 private:
  static constexpr int kSends = 200;

  const Actor& actor_;
  ringtail::ProducerOptions options_;
  std::optional<ringtail::Producer> producer_;
  int sends_ = 0;
};

// Whether the error says that nothing was appended.
bool is_refusal(SendError error) {
  switch (error) {
    case SendError::would_block:
    case SendError::claim_expired:
    case SendError::held_exclusively:
    case SendError::not_enough_replicas:
    case SendError::not_leader: return true;
    default: return false;
  }
}

void send(const Actor& actor, ringtail::Producer& producer, const std::string& value,
          ringtail::LeaderEpoch epoch) {
  actor.note({.kind = Kind::invoked, .value = value, .epoch = epoch.value()});
  static const std::string key(kKeyBytes, 'k');
  const auto sent = producer.send({.key = key, .value = value, .partition = ringtail::PartitionId(0)});
  if (sent) {
    actor.note({.kind = Kind::acked, .value = value, .offset = sent->offset.value(), .epoch = epoch.value()});
    std::this_thread::sleep_for(kBetweenSends);
    return;
  }
  actor.note({.kind = is_refusal(sent.error()) ? Kind::failed : Kind::unknown,
              .value = value,
              .epoch = epoch.value(),
              .detail = std::string(to_string(sent.error()))});
  std::this_thread::sleep_for(kAfterFailure);
}

int produce(const Actor& actor) {
  auto role = actor.log.watch_role(actor.partition());
  if (!role) return give_up(role.error());
  Turns turns(actor, {.acks = ringtail::Acks::all, .max_block = 2s});
  for (std::uint64_t number = 0;;) {
    const auto leading = role->wait_until_leader(1s);
    if (!leading && leading.error().code != ringtail::Code::timed_out) return give_up(leading.error());
    if (!leading) continue;
    auto producer = turns.next();
    if (!producer) return give_up(producer.error());
    if (*producer != nullptr)
      send(actor, **producer, actor.name + '-' + std::to_string(number++), leading->epoch);
  }
}

// Whether the value with that number was acknowledged.
bool insist_on(const Actor& actor, ringtail::Producer& producer, std::uint64_t number,
               ringtail::LeaderEpoch epoch) {
  const std::string value = "insisted-" + std::to_string(number);
  actor.note({.kind = Kind::invoked,
              .value = value,
              .epoch = epoch.value(),
              .detail = std::string(ringtail::test::kNumbered)});
  static const std::string key(kKeyBytes, 'k');
  const auto sent =
      producer.send({.key = key, .value = value, .partition = ringtail::PartitionId(0), .sequence = number});
  if (sent)
    actor.note({.kind = Kind::acked, .value = value, .offset = sent->offset.value(), .epoch = epoch.value()});
  else
    actor.note({.kind = Kind::unknown,  // of this send; another with the number may have been before
                .value = value,
                .epoch = epoch.value(),
                .detail = std::string(to_string(sent.error()))});
  std::this_thread::sleep_for(sent ? kBetweenSends : kAfterFailure);
  return sent.has_value();
}

int insist(const Actor& actor) {
  constexpr std::uint64_t kProducerId = 4711;
  auto role = actor.log.watch_role(actor.partition());
  if (!role) return give_up(role.error());
  Turns turns(
      actor,
      {.acks = ringtail::Acks::all, .max_block = 2s, .enable_idempotence = true, .producer_id = kProducerId});
  for (std::optional<std::uint64_t> pending;;) {
    const auto leading = role->wait_until_leader(1s);
    if (!leading && leading.error().code != ringtail::Code::timed_out) return give_up(leading.error());
    if (!leading) continue;
    auto producer = turns.next();
    if (!producer) return give_up(producer.error());
    if (*producer == nullptr) continue;
    const std::uint64_t next = (*producer)->next_sequence(ringtail::PartitionId(0));
    // It may have been lost together with what was before it.
    const std::uint64_t number = std::min(pending.value_or(next), next);
    pending = insist_on(actor, **producer, number, leading->epoch) ? std::nullopt : std::optional(number);
    // Others have sent so many since that the producer does not remember it.
    if (pending && number + 1'024 < next) pending.reset();
  }
}

int read(const Actor& actor) {
  auto consumer = ringtail::Consumer::open(actor.log);
  if (!consumer) return give_up(consumer.error());
  const ringtail::TopicPartition partition = actor.partition();
  if (auto assigned = consumer->assign(std::span(&partition, 1)); !assigned) return give_up(assigned.error());
  for (;;) {
    const auto records = consumer->poll(1s);
    if (!records) return give_up(records.error());
    for (const ringtail::Record& record : *records)
      actor.note({.kind = Kind::read, .value = std::string(record.value), .offset = record.offset.value()});
  }
}

// Its host's daemon may have been killed just then, and will be back.
ringtail::Result<ringtail::Log> open_log(const char* dir) {
  for (;;) {
    auto log =
        ringtail::Log::open({.dir = dir, .create_if_missing = false, .keeper = ringtail::KeeperMode::none});
    if (log || log.error().code != ringtail::Code::no_keeper) return log;
    std::this_thread::sleep_for(kAfterFailure);
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::string what = argc == 6 ? argv[1] : "";
  const bool alone = what.ends_with("-alone");
  if (alone) what.resize(what.find('-'));
  if (what != "produce" && what != "insist" && (what != "read" || alone)) {
    std::fprintf(
        stderr,
        "usage: cluster_actor produce|insist|produce-alone|insist-alone|read DIR TOPIC NAME HISTORY\n");
    return 2;
  }
  // What it says is kept beside its history: its node's file begins anew with each daemon.
  if (std::freopen((argv[5] + std::string(".errors")).c_str(), "a", stderr) == nullptr) return 1;
  const int history = ::open(argv[5], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (history < 0) return std::perror(argv[5]), 1;
  auto log = open_log(argv[2]);
  if (!log) return give_up(log.error());
  const Actor actor{.log = *log, .topic = argv[3], .name = argv[4], .history = history, .alone = alone};
  if (what == "insist") return insist(actor);
  return what == "produce" ? produce(actor) : read(actor);
}

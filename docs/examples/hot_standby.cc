// A hot standby: run it on every host of a cluster, under the same NAME. Where the host leads the partition, it appends;
// everywhere else it waits, and is woken in the moment in which its host takes over. All of them are one producer: the
// next one goes on behind the last number that the log has, so that no order is lost, and none is there twice.
//
//     hot_standby DIR TOPIC NAME RATE [SECONDS]
//
// It prints a line for each record that every in-sync replica has: "acked NAME-NUMBER OFFSET TIME_NS EPOCH", one for
// each that failed: "ERROR NAME-NUMBER TIME_NS", and one for each change of role: "leads EPOCH TIME_NS".
#include <ringtail/ringtail.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

namespace {

long long now_ns() { return Clock::now().time_since_epoch().count(); }

constexpr ringtail::PartitionId kPartition{0};

// Appends while this host leads. A send whose outcome is unknown is repeated, here or by the next leader's process:
// its number makes sure that it counts once.
void lead(ringtail::Producer& producer, const std::string& name, ringtail::LeaderEpoch epoch,
          std::chrono::nanoseconds pause, Clock::time_point end) {
  auto next = Clock::now();
  for (std::uint64_t number = producer.next_sequence(kPartition); Clock::now() < end;) {
    const std::string order = name + '-' + std::to_string(number);
    const auto sent = producer.send({.value = order, .partition = kPartition, .sequence = number});
    if (sent) {
      std::printf("acked %s %lu %lld %u\n", order.c_str(), sent->offset.value(), now_ns(), epoch.value());
      ++number;
    } else {
      std::printf("%s %s %lld\n", std::string(to_string(sent.error())).c_str(), order.c_str(), now_ns());
      if (sent.error() == ringtail::SendError::not_leader ||
          sent.error() == ringtail::SendError::lost_leadership)
        return;
      if (sent.error() == ringtail::SendError::out_of_order_sequence)  // another has led in between
        number = producer.next_sequence(kPartition);
      std::this_thread::sleep_for(1ms);
    }
    next += pause;
    std::this_thread::sleep_until(next);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    std::fprintf(stderr, "usage: hot_standby DIR TOPIC NAME RATE [SECONDS]\n");
    return 2;
  }
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const auto pause = std::chrono::nanoseconds(1s) / std::max(1, std::atoi(argv[4]));
  const auto end =
      argc > 5 ? Clock::now() + std::chrono::seconds(std::atoi(argv[5])) : Clock::time_point::max();
  auto log =
      ringtail::Log::open({.dir = argv[1], .create_if_missing = false, .keeper = ringtail::KeeperMode::none});
  if (!log) return std::fprintf(stderr, "%s\n", to_string(log.error()).c_str()), 1;
  auto role = log->watch_role({argv[2], kPartition});
  auto producer = ringtail::Producer::open(*log, {.topic = argv[2],
                                                  .acks = ringtail::Acks::all,
                                                  .max_block = 5s,
                                                  .enable_idempotence = true,
                                                  .producer_id = std::hash<std::string>()(argv[3]) | 1});
  if (!role || !producer)
    return std::fprintf(stderr, "%s\n", to_string(role ? producer.error() : role.error()).c_str()), 1;
  while (Clock::now() < end) {
    const auto leading = role->wait_until_leader(200ms);
    if (!leading) {
      if (leading.error().code == ringtail::Code::timed_out) continue;
      return std::fprintf(stderr, "%s\n", to_string(leading.error()).c_str()), 1;
    }
    std::printf("leads %u %lld\n", leading->epoch.value(), now_ns());
    lead(*producer, argv[3], leading->epoch, pause, end);
  }
  return 0;
}

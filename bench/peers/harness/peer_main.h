// The main function of a peer: `return ringtail::peers::peer_main<System>(argc, argv);`
//
// Beside Sender and Receiver (loops.h) a System has
//   static constexpr const char* kName;
//   static std::string version();
//   static Status check(const Options&)      what it cannot do: Code::unsupported, with the remedy
//   using Service; static Result<std::unique_ptr<Service>> serve(const Options&)    where the system needs one
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <memory>

#include "base/result.h"
#include "harness/loops.h"
#include "tools/perf_process.h"

namespace ringtail::peers {

template <class System>
concept Serves = requires(const Options& options) { System::serve(options); };

template <class System>
class PeerMain {
 public:
  explicit PeerMain(const Options& options, RunFile run) : options_(options), run_(std::move(run)) {}

  int produce() {
    auto sender = open<typename System::Sender>(Channel::data);
    if (!sender) return failed(sender.error());
    const std::uint64_t start = run_.wait_for_start();
    if (start == 0) return kGood;
    Production production(*sender, options_, run_, clock_, start);
    auto lateness = std::make_unique<Histogram>();
    const Sent sent = production.run(options_.hist.empty() ? nullptr : lateness.get());
    run_.finish_sending(options_.index, production.sent());
    if (sent == Sent::failed) return failed(sender->error());
    Report report = this->report();
    report.sent = production.sent();
    report.latency = lateness.get();
    linger();
    return finish(report);
  }

  int consume() {
    auto receiver = open<typename System::Receiver>(Channel::data);
    if (!receiver) return failed(receiver.error());
    if (run_.wait_for_start() == 0) return kGood;
    Tally tally(options_, run_, clock_);
    bool gave_up = false;
    const bool good =
        receive_all(*receiver, tally.checks, options_, run_, clock_, gave_up, [&](Payload payload) {
          tally.take(payload);
          if (options_.slow_ns > 0) idle();
        });
    if (!good) return failed(receiver->error());
    return finish(tally, gave_up);
  }

  int ping() {
    auto sender = open<typename System::Sender>(Channel::ping);
    if (!sender) return failed(sender.error());
    auto receiver = open<typename System::Receiver>(Channel::pong);
    if (!receiver) return failed(receiver.error());
    if (run_.wait_for_start() == 0) return kGood;
    PingPong trips(*sender, *receiver, options_, run_, clock_);
    const Sent sent = trips.run();
    run_.finish_sending(0, trips.trips());
    if (sent == Sent::failed) return failed(trips.receiver_failed() ? receiver->error() : sender->error());
    return finish(trips.tally(), false);
  }

  int pong() {
    auto receiver = open<typename System::Receiver>(Channel::ping);
    if (!receiver) return failed(receiver.error());
    auto sender = open<typename System::Sender>(Channel::pong);
    if (!sender) return failed(sender.error());
    if (run_.wait_for_start() == 0) return kGood;
    Checker checks(options_.size);
    bool gave_up = false;
    Sent sent = Sent::yes;
    const bool good = receive_all(*receiver, checks, options_, run_, clock_, gave_up, [&](Payload payload) {
      checks.check(payload);
      if (sent == Sent::yes) sent = send_back(*sender, payload);
      if (sent == Sent::failed) run_.words().stop.value = 1;
    });
    if (sent == Sent::failed) return failed(sender->error());
    return good ? kGood : failed(receiver->error());
  }

 private:
  template <class End>
  Result<End> open(Channel channel) {
    const std::uint64_t begin = clock_.now();
    auto end = End::open(options_, run_, channel);
    open_ns_ += clock_.now() - begin;
    return end;
  }

  template <class Sender>
  Sent send_back(Sender& sender, Payload payload) {
    if constexpr (Lends<Sender>) {
      return sender.send_in_place(payload.size(),
                                  [&](std::byte* to) { std::memcpy(to, payload.data(), payload.size()); });
    } else {
      return sender.send(payload);
    }
  }

  // Sleeps: what is slow is to wait for something, not to take a CPU from the others.
  void idle() const {
    if (run_.stopped()) return;
    const timespec pause{static_cast<time_t>(options_.slow_ns / 1'000'000'000),
                         static_cast<long>(options_.slow_ns % 1'000'000'000)};
    ::nanosleep(&pause, nullptr);
  }

  // Some systems lose what is on its way when the sender goes, so it stays until the readers had their time.
  void linger() const {
    if constexpr (requires { System::kLinger; }) {
      const timespec pause{0, 20'000'000};
      for (int i = 0; i < 1'500 && !run_.stopped(); ++i) ::nanosleep(&pause, nullptr);
    }
  }

  Report report() const {
    Report report;
    report.peer = System::kName;
    report.version = System::version();
    report.open_ns = open_ns_;
    return report;
  }

  int finish(const Report& report) {
    const Status written = write_report(options_, report);
    return written ? kGood : failed(written.error());
  }

  int finish(Tally& tally, bool gave_up) {
    if (gave_up) {
      for (unsigned k = 0; k < run_.producers(); ++k) {
        tally.checks.expect_end(k, run_.words().sent[k].value.load() & ~(std::uint64_t{1} << 63));
      }
    }
    Report report = this->report();
    report.checks = &tally.checks;
    report.warmup = tally.warmup;
    report.measured = tally.measured;
    report.first_ns = tally.first_ns;
    report.last_ns = tally.last_ns;
    report.latency = tally.latency.get();
    if (const int code = finish(report); code != kGood || tally.checks.good()) return code;
    const Checker& checks = tally.checks;
    return failed(
        Error{Code::corrupt, 0,
              fmt::format("of the records {} were lost, {} came twice, {} out of order, {} corrupt",
                          checks.lost(), checks.duplicated(), checks.reordered(), checks.corrupt())});
  }

  static int failed(const Error& error) { return report_failure(System::kName, error); }

  const Options& options_;
  RunFile run_;
  Clock clock_;
  std::uint64_t open_ns_ = 0;
};

template <class System>
int serve(const Options& options) {
  if constexpr (Serves<System>) {
    block_signals();
    auto service = System::serve(options);
    if (!service) return report_failure(System::kName, service.error());
    fmt::print("ready\n");
    std::fflush(stdout);
    wait_for_signal();
    return kGood;
  } else {
    fmt::print("ready\n");
    std::fflush(stdout);
    block_signals();
    wait_for_signal();
    return kGood;
  }
}

template <class System>
int peer_main(int argc, char** argv) {
  Options options;
  if (const int code = parse(argc, argv, System::kName, options); code >= 0) return code;
  if constexpr (!Batches<typename System::Sender>) options.batch = 1;
  const bool of_a_run = options.role != "version" && options.role != "serve";
  auto run = of_a_run ? RunFile::open(options.run_path) : Result<RunFile>(fail(Code::not_found, "no run"));
  if (of_a_run && !run) return report_failure(System::kName, Error{Code::system, 0, run.error().message});
  if (run) {
    options.producers = static_cast<unsigned>(run->producers());
    options.consumers = static_cast<unsigned>(run->consumers());
  }
  if (const Status able = System::check(options); !able) return report_failure(System::kName, able.error());
  if (options.role == "version") {
    fmt::print("{} {}\n", System::kName, System::version());
    return kGood;
  }
  if (options.role == "serve") return serve<System>(options);
  if (const Status pinned = tools::perf::pin_to_cpu(options.cpu); !pinned) {
    fmt::print(stderr, "{}: {}; going on unpinned\n", System::kName, pinned.error().message);
  }
  PeerMain<System> peer(options, std::move(*run));
  if (options.role == "produce") return peer.produce();
  if (options.role == "consume") return peer.consume();
  return options.role == "ping" ? peer.ping() : peer.pong();
}

}  // namespace ringtail::peers

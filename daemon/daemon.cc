#include "daemon/daemon.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <thread>
#include <utility>

#include "base/logger.h"
#include "base/threads.h"
#include "client/log_core.h"
#include "daemon/instance.h"
#include "daemon/notify.h"
#include "ringtail/admin.h"

namespace ringtail::daemon {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kTick{250};
constexpr std::chrono::seconds kDrainTime{10};
constexpr std::chrono::seconds kStatusPeriod{1};

// Runs `start`, which makes threads; an error where the system refuses one, which is an exception in there.
template <class Start>
Status with_threads(std::string_view what, const Start& start) {
  try {
    return start();
  } catch (const std::system_error& error) {
    if (error.code() != std::errc::resource_unavailable_try_again) throw;
    return std::unexpected(thread_error(error.code().value(), what));
  }
}

}  // namespace

Status Daemon::run() {
  ::pthread_setname_np(::pthread_self(), "ringtaild");
  auto signals = Signals::start();
  Status status;
  if (!signals) {
    status = std::unexpected(signals.error());
  } else if (status = logging_.configure(config_); status) {
    logger().info("ringtaild {}, pid {}", version_, ::getpid());
    for (const std::string& warning : warnings_of(config_)) logger().warn("{}", warning);
    notify::status("opening the log");
    status = take_directory();
    if (status) status = open();
    if (status) serve(**signals);
    if (auto closed = close(); status) status = closed;
  }
  if (!status) logger().error("{}", to_string(status.error()));
  return status;
}

// A directory that is not there is made for a daemon that can listen: nothing is left of one that cannot.
Status Daemon::take_directory() {
  std::error_code ignored;
  if (!std::filesystem::exists(config_.log.dir, ignored))
    if (auto started = start_http(); !started) return started;
  auto instance = InstanceLock::acquire(config_.log.dir, config_.log.create);
  if (!instance) return std::unexpected(instance.error());
  const std::lock_guard lock(mutex_);
  instance_.emplace(std::move(*instance));
  return {};
}

// The web server comes first: recovery may take its time, and somebody may want to know.
Status Daemon::open() {
  if (!http_)
    if (auto started = start_http(); !started) return started;
  auto log = Log::open({.dir = config_.log.dir,
                        .create_if_missing = config_.log.create,
                        .keeper = KeeperMode::daemon,
                        .io = config_.log.io,
                        .keeper_cpu = static_cast<int>(config_.log.keeper_cpu),
                        .shared_memory_dir = config_.log.shared_memory_dir});
  if (!log) return std::unexpected(log.error());
  log_ = std::move(*log);
  logger().info("the log {} in {} is open", log_->id(), config_.log.dir);
  auto service = make_service(as_served(), *log_);
  if (!service) return std::unexpected(service.error());
  {
    const std::lock_guard lock(mutex_);
    service_ = std::move(*service);
  }
  if (auto started = with_threads("replication", [this] { return service_->start(); }); !started)
    return started;
  auto looks = with_threads("figures of the log", [this] {
    auto looked = std::make_shared<monitor::Watch>(*log_, version_, service_->cluster());
    const std::lock_guard lock(mutex_);
    watch_ = std::move(looked);
    return Status();
  });
  if (!looks) return looks;
  // SYNC: behind all that is served; pairs with the load in readiness.
  phase_.store(Phase::serving, std::memory_order_release);
  return {};
}

void Daemon::serve(Signals& signals) {
  watch_keeper();
  notify::ready(next_status());
  const auto watchdog = notify::watchdog_period();
  auto next_alive = steady_clock::now();
  for (;;) {
    switch (signals.wait(watchdog ? std::min(kTick, std::chrono::ceil<milliseconds>(*watchdog)) : kTick)) {
      case Signals::Event::stop: return;
      case Signals::Event::reload: reload(); break;
      case Signals::Event::none: break;
    }
    watch_keeper();
    watch_status();
    // A keeper that stands still is nothing that goes on: systemd is to start the daemon anew.
    if (watchdog && steady_clock::now() >= next_alive && health().good) {
      next_alive = steady_clock::now() + *watchdog;
      notify::alive();
    }
  }
}

// The web server comes last: whoever asks meanwhile is told that it ends.
Status Daemon::close() {
  const bool was_serving = phase_.load(std::memory_order_relaxed) == Phase::serving;
  phase_.store(Phase::draining, std::memory_order_release);  // SYNC: pairs with the load in readiness
  if (was_serving) {
    notify::stopping("draining");
    service_->drain(steady_clock::now() + kDrainTime);
  }
  if (service_) service_->stop();
  take_back(watch_);
  take_back(service_);
  Status there;
  if (log_) {
    notify::status("flushing");
    const bool was_keeper = log_->is_keeper();
    const auto failure = keeper_failure();
    log_->core()->stop_keeping();
    const std::vector<std::string> lacking = was_keeper ? not_on_disk() : std::vector<std::string>();
    log_.reset();
    there = check_directory();
    if (there && failure)
      there = fail(
          Code::storage_failed,
          fmt::format(
              "ended; nobody keeps the log in {}: {}; what was not written to disk before stays in "
              "shared memory until this host restarts; mend the cause, and open the log again before that",
              config_.log.dir, to_string(*failure)));
    if (there && !lacking.empty())
      there =
          fail(Code::storage_failed,
               fmt::format("ended; not all that was committed to {} is on disk: it stays in shared memory "
                           "until this host restarts; mend what its failure names, and open the log again "
                           "before that",
                           fmt::join(lacking, ", ")));
    if (there) logger().info("ended; what was committed is on disk, or kept by another process");
  }
  http_.reset();
  return there;
}

// Behind the keeper's last flush: partitions that have failed, and which no other keeper is opening by now.
std::vector<std::string> Daemon::not_on_disk() const {
  std::vector<std::string> lacking;
  const Admin admin(*log_);
  for (const std::string& name : admin.list_topics().value_or(std::vector<std::string>())) {
    const auto topic = admin.describe_topic(name);
    if (!topic && topic.error().code != Code::not_found) lacking.push_back(name);  // nobody could open it
    if (!topic) continue;
    for (const PartitionDescription& p : topic->partitions)
      if (p.failure && p.failure->code != Code::would_block && p.durable_position < p.log_end_position)
        lacking.push_back(fmt::format("{}-{}", name, p.partition.value()));
  }
  return lacking;
}

// Ends what answers look at, once those that were begun before have done with it; later ones do not find it.
template <class Shown>
void Daemon::take_back(std::shared_ptr<Shown>& shown) {
  std::shared_ptr<Shown> last;
  {
    const std::lock_guard lock(mutex_);
    last.swap(shown);
  }
  while (last.use_count() > 1) std::this_thread::sleep_for(milliseconds(1));
}

// --- The keeper's role, and the status -----------------------------------------------------------

std::optional<Error> Daemon::keeper_failure() const { return log_->core()->attachment().keeper_failure(); }

void Daemon::watch_keeper() {
  const bool is_keeper = log_->core()->keeps();
  if (was_keeper_ == is_keeper) return;
  if (is_keeper)
    logger().info("this process keeps the log");
  else if (!keeper_failure())  // which has been told
    logger().warn("{}; standing by until it ends", health().text);
  was_keeper_ = is_keeper;
  notify::status(next_status());
}

// What the service waits for, or is part of, changes by itself.
void Daemon::watch_status() {
  const auto now = steady_clock::now();
  if (now < next_look_) return;
  next_look_ = now + kStatusPeriod;
  if (const std::string told = status_; next_status() != told) notify::status(status_);
}

const std::string& Daemon::next_status() {
  status_ = fmt::format("{} the log in {}; {}", log_->core()->keeps() ? "keeping" : "standing by for",
                        config_.log.dir, service_->readiness().text);
  return status_;
}

// --- Reloading -----------------------------------------------------------------------------------

void Daemon::reload() {
  notify::reloading();
  const LoadedConfig loaded = load_();
  // A log file that was moved away is opened anew, whatever else there is to say.
  if (!loaded.problems.empty())
    if (auto opened = logging_.configure(config_); !opened) logger().error("{}", to_string(opened.error()));
  for (const ConfigProblem& problem : loaded.problems) logger().error("{}", to_string(problem));
  if (loaded.problems.empty()) {
    apply_reloaded(loaded.config);
  } else {
    logger().error("the configuration stays as it was: it has {} mistake{}", loaded.problems.size(),
                   loaded.problems.size() == 1 ? "" : "s");
  }
  notify::ready(next_status());
}

void Daemon::apply_reloaded(const Config& next) {
  const auto changed = changed_settings(config_, next);
  const auto reference = config_reference();
  for (const std::string& name : changed) {
    const auto info = std::ranges::find_if(
        reference, [&](const SettingInfo& setting) { return setting.table + "." + setting.key == name; });
    if (info != reference.end() && info->reloads)
      logger().info("{} has changed", name);
    else
      logger().warn("{} has changed; that takes effect when the daemon is started anew", name);
  }
  const Config before = config_;
  config_.logging = next.logging;
  config_.http = next.http;
  config_.replication.throttle = next.replication.throttle;
  config_.replication.tls = next.replication.tls;
  if (auto configured = logging_.configure(config_); !configured) {
    logger().error("{}; logging stays as it was", to_string(configured.error()));
    config_.logging = before.logging;
  }
  if (!http_ || config_.http.listen != before.http.listen ||
      config_.http.allow_remote != before.http.allow_remote) {
    http_.reset();  // the new one may want the same port
    if (auto started = start_http(); !started) {
      logger().error("{}; going on with {}", to_string(started.error()), to_string(before.http.listen));
      config_.http = before.http;
      if (auto again = start_http(); !again) logger().error("{}", to_string(again.error()));
    }
  }
  service_->reload(as_served());
  logger().info("the configuration has been read, with {} change{}", changed.size(),
                changed.size() == 1 ? "" : "s");
}

// --- Answers -------------------------------------------------------------------------------------

Status Daemon::start_http() {
  auto started = monitor::HttpServer::start({.host = config_.http.listen.host,
                                             .port = config_.http.listen.port,
                                             .allow_remote = config_.http.allow_remote},
                                            answers());
  if (!started) {
    // EAGAIN: no thread could be made, and the error names what helps.
    if (started.error().os_errno != EAGAIN)
      started.error().message += "; set http.listen to an address of this host and a port that is free";
    return std::unexpected(started.error());
  }
  http_ = std::move(*started);
  logger().info("metrics and dashboard on http://{}/",
                to_string(Endpoint{config_.http.listen.host, http_->port()}));
  return {};
}

Config Daemon::as_served() const {
  Config served = config_;
  if (http_) served.http.listen.port = http_->port();
  return served;
}

monitor::HttpAnswers Daemon::answers() {
  const auto not_open = [] { return fail(Code::would_block, "the log is not open"); };
  return {.metrics = [this, not_open]() -> Result<std::string> {
            const auto looked = watch();
            return looked ? looked->metrics() : not_open();
          },
          .state = [this, not_open]() -> Result<std::string> {
            const auto looked = watch();
            return looked ? looked->state() : not_open();
          },
          .health = [this] { return health(); },
          .ready = [this] { return readiness(); }};
}

std::shared_ptr<monitor::Watch> Daemon::watch() const {
  const std::lock_guard lock(mutex_);
  return watch_;
}

std::shared_ptr<Service> Daemon::service() const {
  const std::lock_guard lock(mutex_);
  return service_;
}

Status Daemon::check_directory() const {
  const std::lock_guard lock(mutex_);
  return instance_ ? instance_->check_there() : Status();
}

monitor::HealthAnswer Daemon::health() const {
  // Open files outlive their names, so nothing else would notice.
  if (const auto there = check_directory(); !there) return {false, there.error().message};
  if (const auto looked = watch()) return looked->health();
  const bool ends = phase_.load(std::memory_order_relaxed) == Phase::draining;
  return {true, ends ? "ok; ending" : "ok; opening the log"};
}

monitor::HealthAnswer Daemon::readiness() const {
  // SYNC: pairs with the stores in open and close; behind `serving` the service is there.
  switch (phase_.load(std::memory_order_acquire)) {
    case Phase::opening: return {false, "opening the log"};
    case Phase::draining: return {false, "draining"};
    case Phase::serving: break;
  }
  if (auto healthy = health(); !healthy.good) return healthy;
  const auto served = service();
  if (!served) return {false, "draining"};
  const Readiness ready = served->readiness();
  return {ready.ready, ready.ready ? "ready; " + ready.text : ready.text};
}

}  // namespace ringtail::daemon

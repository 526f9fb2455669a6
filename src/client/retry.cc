#include "ringtail/retry.h"

#include <cxxabi.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <map>
#include <mutex>
#include <random>
#include <typeinfo>
#include <utility>
#include <vector>

#include "base/bounded_time.h"
#include "base/random.h"
#include "ringtail/admin.h"

namespace ringtail {

namespace {

// A letter must not be refused for what its failure had to say.
constexpr std::size_t kMostMessageBytes = 1000;

bool sleep_in_real_time(std::chrono::nanoseconds delay, const std::stop_token& stop) {
  std::mutex mutex;
  std::condition_variable_any stopped;
  std::unique_lock lock(mutex);
  stopped.wait_for(lock, stop, delay, [] { return false; });
  return !stop.stop_requested();
}

std::string readable_type(const std::type_info& type) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> name(
      abi::__cxa_demangle(type.name(), nullptr, nullptr, &status), std::free);
  return name != nullptr ? name.get() : type.name();
}

// A failure of the processing function, by error or by exception.
struct Failure {
  std::string kind;
  Error error;
};

std::optional<Failure> attempt(const Record& record, const Retrier::Process& process) {
  try {
    const Status done = process(record);
    if (done) return std::nullopt;
    return Failure{std::string(to_string(done.error().code)), done.error()};
  } catch (const std::exception& thrown) {
    return Failure{readable_type(typeid(thrown)), {Code::system, 0, thrown.what()}};
  } catch (const abi::__forced_unwind&) {  // the thread is being cancelled
    throw;
  } catch (...) {
    return Failure{"unknown", {Code::system, 0, "an exception that is no std::exception"}};
  }
}

Status check(const RetryPolicy& policy) {
  if (policy.max_attempts == 0) return fail(Code::invalid_argument, "max_attempts must be at least 1");
  if (!(policy.multiplier >= 1)) return fail(Code::invalid_argument, "multiplier must be at least 1");
  if (!(policy.jitter >= 0 && policy.jitter <= 1))
    return fail(Code::invalid_argument, "jitter must be between 0 and 1");
  if (policy.initial_delay.count() < 0 || policy.max_delay < policy.initial_delay)
    return fail(Code::invalid_argument, "delays must not be negative, nor max_delay below initial_delay");
  return {};
}

}  // namespace

class RetrierCore {
 public:
  RetrierCore(const Log& log, RetryOptions options, std::uint64_t seed)
      : log_(log), options_(std::move(options)), random_(seed) {}

  Result<Processed> process(const Record& record, const Retrier::Process& process);

 private:
  using Nanoseconds = std::chrono::duration<double, std::nano>;

  bool wait(Nanoseconds delay);
  std::string letter_topic(const std::string& source) const {
    return options_.dead_letter_topic.empty() ? source + ".DLT" : options_.dead_letter_topic;
  }
  Result<Producer*> producer_for(const std::string& source);
  Status create_topic(const std::string& name, const std::string& source) const;
  Result<RecordMetadata> bury(const Record& record, const Failure& failure, std::uint32_t attempts);

  Log log_;
  RetryOptions options_;
  std::mt19937_64 random_;
  std::map<std::string, Producer, std::less<>> producers_;  // by dead-letter topic
};

// The jitter only shortens, so that delays add up to no more than the policy says.
bool RetrierCore::wait(Nanoseconds delay) {
  const double shorter = std::uniform_real_distribution<double>(0, options_.policy.jitter)(random_);
  return options_.sleep(bounded_time(delay * (1 - shorter)), options_.stop);
}

Result<Processed> RetrierCore::process(const Record& record, const Retrier::Process& process) {
  const RetryPolicy& policy = options_.policy;
  Nanoseconds delay = policy.initial_delay;
  for (std::uint32_t attempts = 1;; ++attempts) {
    if (options_.stop.stop_requested())
      return fail(Code::closed, "asked to stop before the record was processed");
    const std::optional<Failure> failure = attempt(record, process);
    if (!failure) return Processed{.attempts = attempts};
    const bool again = attempts < policy.max_attempts &&
                       (policy.is_retryable == nullptr || policy.is_retryable(failure->error));
    if (!again) {
      auto buried = bury(record, *failure, attempts);
      if (!buried) return std::unexpected(buried.error());
      return Processed{.attempts = attempts, .dead_letter = *buried, .cause = failure->error};
    }
    if (!wait(delay))
      return fail(Code::closed,
                  fmt::format("asked to stop after attempt {} failed: {}", attempts, failure->error.message));
    delay = std::min<Nanoseconds>(delay * policy.multiplier, policy.max_delay);
  }
}

Status RetrierCore::create_topic(const std::string& name, const std::string& source) const {
  Admin admin(log_);
  const auto described = admin.describe_topic(source);
  if (!described) return std::unexpected(described.error());
  auto created = admin.create_topic(
      {.name = name, .partitions = static_cast<std::uint32_t>(described->partitions.size())});
  if (!created && created.error().code == Code::already_exists) return {};  // another was faster
  return created;
}

// Opened at the first need, for dead letters are rare and every producer takes a slot.
Result<Producer*> RetrierCore::producer_for(const std::string& source) {
  const std::string name = letter_topic(source);
  if (const auto open = producers_.find(name); open != producers_.end()) return &open->second;
  const ProducerOptions producer_options{.topic = name, .durable = options_.durable};
  auto producer = Producer::open(log_, producer_options);
  if (!producer && producer.error().code == Code::not_found && options_.create_dead_letter_topic) {
    if (auto created = create_topic(name, source); !created) return std::unexpected(created.error());
    producer = Producer::open(log_, producer_options);
  }
  if (!producer) return std::unexpected(producer.error());
  return &producers_.emplace(name, std::move(*producer)).first->second;
}

Result<RecordMetadata> RetrierCore::bury(const Record& record, const Failure& failure,
                                         std::uint32_t attempts) {
  const auto refused = [&](const Error& error) {
    return std::unexpected(
        Error{error.code, error.os_errno,
              fmt::format("{}; the record was given up because: {}", error.message, failure.error.message)});
  };
  const TopicPartition& source = *record.source;
  const auto producer = producer_for(source.topic);
  if (!producer) return refused(producer.error());

  const std::string partition = std::to_string(source.partition.value());
  const std::string offset = std::to_string(record.offset.value());
  const std::string timestamp = std::to_string(record.timestamp_ns);
  const std::string count = std::to_string(attempts);
  std::vector<Header> headers(record.headers.begin(), record.headers.end());
  headers.push_back({dead_letter::kOriginalTopic, source.topic});
  headers.push_back({dead_letter::kOriginalPartition, partition});
  headers.push_back({dead_letter::kOriginalOffset, offset});
  headers.push_back({dead_letter::kOriginalTimestamp, timestamp});
  if (!options_.group.empty()) headers.push_back({dead_letter::kOriginalGroup, options_.group});
  headers.push_back({dead_letter::kExceptionClass, failure.kind});
  headers.push_back(
      {dead_letter::kExceptionMessage, std::string_view(failure.error.message).substr(0, kMostMessageBytes)});
  headers.push_back({dead_letter::kAttempts, count});

  ProducerRecord letter{
      .key = record.key, .value = record.value, .headers = headers, .timestamp_ns = record.timestamp_ns};
  if (source.partition.value() < (*producer)->partitions()) letter.partition = source.partition;
  const auto sent = (*producer)->send(letter);
  if (!sent) {
    const Error error = (*producer)->error();
    if (sent.error() == SendError::closed)
      producers_.erase(letter_topic(source.topic));  // made anew, perhaps
    return refused(error);
  }
  return *sent;
}

// --- Retrier -------------------------------------------------------------------------------------

Retrier::Retrier(std::unique_ptr<RetrierCore> core) : core_(std::move(core)) {}
Retrier::Retrier(Retrier&&) noexcept = default;
Retrier& Retrier::operator=(Retrier&&) noexcept = default;
Retrier::~Retrier() = default;

Result<Retrier> Retrier::open(const Log& log, RetryOptions options) {
  if (auto valid = check(options.policy); !valid) return std::unexpected(valid.error());
  if (!options.sleep) options.sleep = sleep_in_real_time;
  const auto seed = random_token();
  if (!seed) return std::unexpected(seed.error());
  return Retrier(std::make_unique<RetrierCore>(log, std::move(options), *seed));
}

Result<Processed> Retrier::process(const Record& record, const Process& process) {
  return core_->process(record, process);
}

}  // namespace ringtail

// Redis Streams over a Unix socket, with hiredis. Producers XADD, at most 1,024 unanswered; in a closed loop 32
// commands go out together, as https://redis.io/docs/latest/develop/use/pipelining/ has it, by a schedule each at
// once. Readers have an XREAD BLOCK outstanding, and spin on the socket or sleep in poll(2).
// The server: a Unix socket, no TCP, no snapshots, nothing else on its one thread
// (https://redis.io/docs/latest/operate/oss_and_stack/management/optimization/latency/).
// Modes: memory (no persistence), always (appendonly, appendfsync always: synced before it answers).
#include <fmt/format.h>
#include <hiredis/hiredis.h>
#include <poll.h>

#include <array>

#include "harness/daemon.h"
#include "harness/peer_main.h"

namespace ringtail::peers {
namespace {

constexpr unsigned kMostUnanswered = 1024;
constexpr unsigned kPipelined = 32;

struct Disconnect {
  void operator()(redisContext* context) const { redisFree(context); }
};
using Context = std::unique_ptr<redisContext, Disconnect>;

std::string socket_of(const Options& options) { return (options.dir / "redis.sock").string(); }

Result<Context> connect(const Options& options) {
  Context context(redisConnectUnixNonBlock(socket_of(options).c_str()));
  if (!context) return fail(Code::system, "hiredis: no memory");
  if (context->err != 0)
    return fail(Code::system, fmt::format("cannot connect to Redis: {}", context->errstr));
  return context;
}

// One look at the socket, or a sleep of 50 ms at most; false: it is broken.
bool read_some(redisContext& context, bool block) {
  pollfd in{.fd = context.fd, .events = POLLIN, .revents = 0};
  if (block) ::poll(&in, 1, 50);
  return redisBufferRead(&context) == REDIS_OK;
}

class RedisSender {
 public:
  static Result<RedisSender> open(const Options& options, const RunFile& run, Channel channel) {
    auto context = connect(options);
    if (!context) return std::unexpected(context.error());
    const bool pipelined = options.rate <= 0 && channel == Channel::data;
    return RedisSender(std::move(*context), run, to_string(channel), options.block,
                       pipelined ? kPipelined : 1);
  }

  Sent send(Payload payload) {
    const std::array<const char*, 5> words{"XADD", stream_, "*", "d",
                                           reinterpret_cast<const char*>(payload.data())};
    const std::array<std::size_t, 5> sizes{4, std::strlen(stream_), 1, 1, payload.size()};
    if (redisAppendCommandArgv(context_.get(), 5, const_cast<const char**>(words.data()), sizes.data()) !=
        REDIS_OK) {
      return failed();
    }
    ++unanswered_;
    if (++waiting_ < together_) return Sent::yes;
    if (const Sent wrote = write(); wrote != Sent::yes) return wrote;
    return take_answers(unanswered_ > kMostUnanswered ? kMostUnanswered / 2 : kMostUnanswered);
  }

  Sent finish() {
    if (const Sent wrote = write(); wrote != Sent::yes) return wrote;
    return take_answers(0);
  }
  Error error() const { return Error{Code::system, 0, fmt::format("Redis: {}", failure_)}; }

 private:
  RedisSender(Context context, const RunFile& run, const char* stream, bool block, unsigned together)
      : context_(std::move(context)), run_(&run), stream_(stream), block_(block), together_(together) {}

  Sent failed() {
    failure_ = context_->errstr;
    return Sent::failed;
  }

  Sent write() {
    waiting_ = 0;
    for (int done = 0; done == 0;) {
      if (redisBufferWrite(context_.get(), &done) != REDIS_OK) return failed();
      if (run_->stopped()) return Sent::stopped;
    }
    return Sent::yes;
  }

  // Reads answers that are there; waits while more than `most` are missing.
  Sent take_answers(unsigned most) {
    do {
      if (run_->stopped()) return Sent::stopped;
      if (!read_some(*context_, block_ && unanswered_ > most)) return failed();
      for (void* reply = nullptr; unanswered_ > 0; --unanswered_) {
        if (redisGetReplyFromReader(context_.get(), &reply) != REDIS_OK) return failed();
        if (reply == nullptr) break;
        auto* answer = static_cast<redisReply*>(reply);
        const bool refused = answer->type == REDIS_REPLY_ERROR;
        if (refused) failure_ = answer->str;
        freeReplyObject(reply);
        if (refused) return Sent::failed;
      }
    } while (unanswered_ > most);
    return Sent::yes;
  }

  Context context_;
  const RunFile* run_;
  const char* stream_;
  bool block_;
  unsigned together_;
  unsigned waiting_ = 0;
  unsigned unanswered_ = 0;
  std::string failure_;
};

class RedisReceiver {
 public:
  static Result<RedisReceiver> open(const Options& options, const RunFile&, Channel channel) {
    auto context = connect(options);
    if (!context) return std::unexpected(context.error());
    return RedisReceiver(std::move(*context), to_string(channel), options.block);
  }

  template <class Handle>
  int poll(Handle handle) {
    if (!asked_ && !ask()) return -1;
    if (!read_some(*context_, block_)) return failed(context_->errstr);
    void* reply = nullptr;
    if (redisGetReplyFromReader(context_.get(), &reply) != REDIS_OK) return failed(context_->errstr);
    if (reply == nullptr) return 0;
    asked_ = false;
    const int got = take(static_cast<redisReply*>(reply), handle);
    freeReplyObject(reply);
    return got;
  }
  Error error() const { return Error{Code::system, 0, fmt::format("Redis: {}", failure_)}; }

 private:
  RedisReceiver(Context context, const char* stream, bool block)
      : context_(std::move(context)), stream_(stream), block_(block) {}

  int failed(const char* why) {
    failure_ = why;
    return -1;
  }

  bool ask() {
    redisAppendCommand(context_.get(), "XREAD COUNT 256 BLOCK 50 STREAMS %s %s", stream_, last_.c_str());
    for (int done = 0; done == 0;) {
      if (redisBufferWrite(context_.get(), &done) != REDIS_OK) return failed(context_->errstr) == 0;
    }
    asked_ = true;
    return true;
  }

  // [[stream, [[id, [field, payload]], ...]]], or nil when the time has passed.
  template <class Handle>
  int take(const redisReply* reply, Handle& handle) {
    if (reply->type == REDIS_REPLY_NIL) return 0;
    if (reply->type != REDIS_REPLY_ARRAY) return failed(reply->str != nullptr ? reply->str : "not an array");
    const redisReply* entries = reply->element[0]->element[1];
    for (std::size_t i = 0; i < entries->elements; ++i) {
      const redisReply* payload = entries->element[i]->element[1]->element[1];
      handle(
          Payload{reinterpret_cast<const std::byte*>(payload->str), static_cast<std::size_t>(payload->len)});
    }
    last_ = entries->element[entries->elements - 1]->element[0]->str;
    return static_cast<int>(entries->elements);
  }

  Context context_;
  const char* stream_;
  bool block_;
  bool asked_ = false;
  std::string last_ = "0";
  std::string failure_;
};

struct Redis {
  static constexpr const char* kName = "redis";
  using Sender = RedisSender;
  using Receiver = RedisReceiver;

  static std::string version() {
    const std::string said = first_line_of("redis-server", "--version");
    const std::size_t at = said.find("v=");
    const std::string server =
        at == std::string::npos ? said : said.substr(at + 2, said.find(' ', at) - at - 2);
    return fmt::format("{}, hiredis {}.{}.{}", server, HIREDIS_MAJOR, HIREDIS_MINOR, HIREDIS_PATCH);
  }
  static Status check(const Options& options) {
    if (!options.mode.empty() && options.mode != "memory" && options.mode != "always") {
      return fail(Code::unsupported, fmt::format("no mode '{}'; there are memory, always", options.mode));
    }
    if (socket_of(options).size() > 100) {
      return fail(Code::invalid_argument,
                  fmt::format("'{}' is too long for a socket's name", options.dir.string()));
    }
    return need_program("redis-server", "redis-server");
  }

  static Result<std::unique_ptr<Daemon>> serve(const Options& options) {
    const bool synced = options.mode == "always";
    const auto ready = [&] {
      const Context context(redisConnectUnix(socket_of(options).c_str()));
      if (!context || context->err != 0) return false;
      void* reply = redisCommand(context.get(), "PING");
      const bool good = reply != nullptr && static_cast<redisReply*>(reply)->type == REDIS_REPLY_STATUS;
      if (reply != nullptr) freeReplyObject(reply);
      return good;
    };
    return Daemon::start(
        {"redis-server", "--port", "0", "--unixsocket", socket_of(options), "--dir", options.dir.string(),
         "--save", "", "--appendonly", synced ? "yes" : "no", "--appendfsync", "always", "--daemonize", "no"},
        options.dir / "redis.log", "redis-server", ready);
  }
};

}  // namespace
}  // namespace ringtail::peers

int main(int argc, char** argv) { return ringtail::peers::peer_main<ringtail::peers::Redis>(argc, argv); }

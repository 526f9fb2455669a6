// A connection: hello, messages in and out, silence.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/parse.h"
#include "base/random.h"
#include "base/topic_config.h"
#include "replication/asio_network.h"

namespace ringtail::replication {

namespace {

constexpr std::size_t kReadBytes = 1 << 20;  // several messages, so that few are cut in two by its end
constexpr std::uint32_t kMaxHelloBytes = 4096;
constexpr std::size_t kStrangerReadBytes = 16 << 10;

std::span<const std::byte> as_body(const std::string& text) { return std::as_bytes(std::span(text)); }

struct Hello {
  std::string cluster;
  std::uint32_t node = 0;
  std::uint64_t incarnation = 0;
};

std::string format_hello(const NetworkOptions& options) {
  return nlohmann::json{{"cluster", options.cluster},
                        {"node", options.self.value()},
                        {"incarnation", to_hex(options.incarnation)}}
      .dump();
}

std::optional<Hello> parse_hello(std::span<const std::byte> body) {
  const auto* text = reinterpret_cast<const char*>(body.data());
  const auto json = nlohmann::json::parse(text, text + body.size(), nullptr, false);
  if (!json.is_object()) return std::nullopt;
  const auto cluster = json.find("cluster");
  const auto node = json.find("node");
  const auto incarnation = json.find("incarnation");
  if (cluster == json.end() || !cluster->is_string() || node == json.end() || !node->is_number_unsigned() ||
      incarnation == json.end() || !incarnation->is_string())
    return std::nullopt;
  const auto token = parse_hex(incarnation->get<std::string>());
  if (!token || node->get<std::uint64_t>() > kMaxNodeId) return std::nullopt;
  if (!check_topic_name(cluster->get<std::string>())) return std::nullopt;  // it may be shown
  return Hello{cluster->get<std::string>(), node->get<std::uint32_t>(), *token};
}

}  // namespace

Connection::Connection(AsioNetwork& network, tcp::socket socket, NodeId expected, bool dialed)
    : network_(&network),
      socket_(std::move(socket)),
      expected_(expected),
      dialed_(dialed),
      heard_ns_(monotonic_ns()),
      said_ns_(heard_ns_),
      read_(kStrangerReadBytes) {
  error_code ignored;
  if (const auto endpoint = socket_.remote_endpoint(ignored); !ignored)
    from_ = endpoint.address().to_string();
  ignored = socket_.set_option(tcp::no_delay(true), ignored);
  ignored = socket_.non_blocking(true, ignored);  // for send_in_place; what is asynchronous is so anyway
  if (network.tls() != nullptr)
    tls_ = std::make_unique<asio::ssl::stream<tcp::socket&>>(socket_, *network.tls());
}

void Connection::begin() {
  if (!tls_) return say_hello();
  tls_->async_handshake(dialed_ ? asio::ssl::stream_base::client : asio::ssl::stream_base::server,
                        [self = shared_from_this()](error_code error) {
                          if (error) return self->close(describe_tls(*self->tls_->native_handle(), error));
                          self->say_hello();
                        });
}

void Connection::say_hello() {
  if (!open_) return;
  send({.type = MessageType::hello}, as_body(format_hello(network_->options())));
  read_more();
}

void Connection::send(const MessageHeader& header, std::span<const std::byte> body) {
  if (!open_) return;
  const bool frames = header.type == MessageType::frames;
  Outgoing& to = last();
  const std::size_t before = to.bytes.size();
  append_message(to.bytes, header, body, frames ? network_->options().compression : Compression::none);
  queued_ += to.bytes.size() - before;
  said_ns_ = monotonic_ns();
  if (sending_.bytes.empty()) flush();
}

void Connection::send_in_place(const MessageHeader& header, std::span<const std::byte> body) {
  if (!open_) return;
  const bool plain = !tls_ && network_->options().compression == Compression::none;
  if (!plain || !sending_.bytes.empty()) return send(header, body);
  const MessageHeader complete = complete_header(header, body);
  const auto encoded = std::as_bytes(std::span(&complete, 1));
  const std::array<asio::const_buffer, 2> parts{asio::buffer(encoded.data(), encoded.size()),
                                                asio::buffer(body.data(), body.size())};
  error_code error;  // of a connection that is down the rest finds out, behind this call
  const std::size_t taken = socket_.write_some(parts, error);
  said_ns_ = monotonic_ns();
  if (taken == encoded.size() + body.size()) return;
  Outgoing& to = last();
  const auto left_of_header = encoded.subspan(std::min(taken, encoded.size()));
  const auto left_of_body = body.subspan(std::max(taken, encoded.size()) - encoded.size());
  to.bytes.insert(to.bytes.end(), left_of_header.begin(), left_of_header.end());
  to.bytes.insert(to.bytes.end(), left_of_body.begin(), left_of_body.end());
  queued_ += to.bytes.size();
  flush();
}

bool Connection::takes_unchecked() const {
  return network_ != nullptr && network_->options().compression == Compression::none;
}

void Connection::send_unchecked(const MessageHeader& header, io::FileBytes body) {
  if (!open_) return;
  const auto encoded = encode_unchecked(header, body.size());
  Outgoing& to = last();
  to.bytes.insert(to.bytes.end(), encoded.begin(), encoded.end());
  queued_ += encoded.size() + body.size();
  to.file = std::move(body);
  said_ns_ = monotonic_ns();
  if (sending_.bytes.empty()) flush();
}

// Where bytes are to be appended.
Outgoing& Connection::last() {
  Outgoing& last = later_.empty() ? waiting_ : later_.back();
  return last.file.empty() ? last : later_.emplace_back();
}

void Connection::flush() {
  std::swap(sending_, waiting_);
  if (!later_.empty()) {
    waiting_ = std::move(later_.front());
    later_.pop_front();
  }
  const std::span<const std::byte> file = sending_.file.bytes();
  const std::array<asio::const_buffer, 2> parts{asio::buffer(sending_.bytes),
                                                asio::buffer(file.data(), file.size())};
  async_write(parts, [self = shared_from_this()](error_code error, std::size_t bytes) {
    if (!self->open_) return;
    if (error) return self->close(self->describe(error));
    self->queued_ -= bytes;
    self->sending_.bytes.clear();
    self->sending_.file = {};
    if (!self->waiting_.bytes.empty()) self->flush();
    if (self->up_) self->network_->callbacks().writable(*self);
  });
}

void Connection::read_more() {
  if (read_begin_ == read_end_) read_begin_ = read_end_ = 0;
  if (read_end_ == read_.size()) {
    // A message that does not fit: to the front with what is there of it, or more room.
    if (read_begin_ == 0) read_.resize(read_.size() * 2);
    std::copy(read_.begin() + static_cast<std::ptrdiff_t>(read_begin_),
              read_.begin() + static_cast<std::ptrdiff_t>(read_end_), read_.begin());
    read_end_ -= read_begin_;
    read_begin_ = 0;
  }
  async_read(asio::buffer(read_.data() + read_end_, read_.size() - read_end_),
             [self = shared_from_this()](error_code error, std::size_t bytes) {
               if (!self->open_) return;
               if (error) return self->close(self->describe(error));
               self->take(bytes);
             });
}

void Connection::take(std::size_t bytes) {
  read_end_ += bytes;
  if (up_) heard_ns_ = monotonic_ns();
  const auto keep = shared_from_this();
  while (open_) {
    auto parsed = parse_message(std::span(read_).subspan(read_begin_, read_end_ - read_begin_), unpacked_,
                                up_ ? kMaxBodyBytes : kMaxHelloBytes);
    if (!parsed) return close(parsed.error().message);
    if (parsed->bytes == 0) break;
    read_begin_ += parsed->bytes;
    const Message& message = parsed->message;
    if (!up_) {
      if (!take_hello(message)) return;
    } else if (message.header.type != MessageType::ping) {
      network_->callbacks().message(*this, message);
    }
  }
  if (open_) read_more();
}

bool Connection::take_hello(const Message& message) {
  const auto hello = message.header.type == MessageType::hello ? parse_hello(message.body) : std::nullopt;
  std::string why;
  if (!hello)
    why = "it did not begin with a hello";
  else if (hello->cluster != network_->options().cluster)
    why = fmt::format("it is of cluster '{}'", hello->cluster);
  else if (dialed_ && NodeId(hello->node) != expected_)
    why = fmt::format("it is node {}; does another node's address stand in the cluster's records?",
                      hello->node);
  if (why.empty()) {
    peer_ = NodeId(hello->node);
    peer_incarnation_ = hello->incarnation;
    if (!network_->admit(shared_from_this()))
      why = fmt::format("node {} is not to connect to this one, or is connected already", hello->node);
  }
  if (!why.empty()) {
    close(why);
    return false;
  }
  up_ = true;
  heard_ns_ = monotonic_ns();
  read_.resize(kReadBytes);
  network_->callbacks().up(*this);
  return open_;
}

void Connection::look(std::int64_t now_ns) {
  if (!open_) return;
  if (now_ns - heard_ns_ > std::chrono::nanoseconds(network_->options().silence).count())
    return close(fmt::format("{} for {} ms", up_ ? "nothing was heard" : "no hello was heard",
                             network_->options().silence.count()));
  if (up_ && now_ns - said_ns_ > std::chrono::nanoseconds(network_->options().ping_interval).count())
    send({.type = MessageType::ping}, {});
}

void Connection::shut() {
  open_ = false;
  error_code ignored;
  ignored = socket_.close(ignored);
}

void Connection::close(const std::string& why) {
  if (!open_) return;
  shut();
  if (network_ == nullptr) return;
  AsioNetwork& network = *network_;
  const auto keep = shared_from_this();
  network.note_trouble(up_ ? peer_ : expected_, from_, why);
  network.forget(keep);
  if (std::exchange(up_, false)) network.callbacks().down(*this);
}

}  // namespace ringtail::replication

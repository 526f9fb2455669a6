#include "replication/network.h"

#include <fmt/format.h>

#include <deque>

#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/logger.h"
#include "base/parse.h"
#include "base/random.h"
#include "base/topic_config.h"
#include "replication/asio.h"
#include "replication/refusals.h"

namespace ringtail::replication {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

constexpr std::size_t kReadBytes = 1 << 20;   // several messages, so that few are cut in two by its end
constexpr std::size_t kWriteBytes = 1 << 20;  // a system call's
constexpr std::uint32_t kMaxHelloBytes = 4096;
constexpr std::size_t kStrangerReadBytes = 16 << 10;
constexpr std::ptrdiff_t kMaxStrangers = 256;  // that have not said hello yet

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

// Goes out in this order.
struct Outgoing {
  std::vector<std::byte> bytes;
  io::PipedBytes piped = {};

  std::size_t size() const { return bytes.size() + piped.size(); }
};

class AsioNetwork;

// A connection, from the first byte on.
class Connection final : public Link, public std::enable_shared_from_this<Connection> {
 public:
  Connection(AsioNetwork& network, tcp::socket socket, NodeId expected, bool dialed);

  void begin();
  NodeId peer() const override { return peer_; }
  std::uint64_t peer_incarnation() const override { return peer_incarnation_; }
  void send(const MessageHeader& header, std::span<const std::byte> body) override;
  bool takes_pipes() const override;
  void send_piped(const MessageHeader& header, io::PipedBytes body) override;
  std::size_t queued() const override { return queued_; }
  void close(const std::string& why) override;

  bool is_up() const { return up_; }
  bool dialed() const { return dialed_; }
  NodeId expected() const { return expected_; }
  const std::string& from() const { return from_; }
  // Closes it if it has been silent for too long, pings if there was nothing to say.
  void look(std::int64_t now_ns);
  // The network is gone.
  void orphan() {
    network_ = nullptr;
    shut();
  }

 private:
  template <class Buffers, class Handler>
  void async_read(const Buffers& buffers, Handler handler) {
    if (tls_)
      tls_->async_read_some(buffers, std::move(handler));
    else
      socket_.async_read_some(buffers, std::move(handler));
  }
  template <class Buffers, class Handler>
  void async_write(const Buffers& buffers, Handler handler) {
    const auto all = [](const error_code& error, std::size_t) { return error ? 0 : kWriteBytes; };
    if (tls_)
      asio::async_write(*tls_, buffers, all, std::move(handler));
    else
      asio::async_write(socket_, buffers, all, std::move(handler));
  }
  void say_hello();
  void read_more();
  void take(std::size_t bytes);
  bool take_hello(const Message& message);
  Outgoing& last();
  void flush();
  void flush_piped();
  void shut();
  std::string describe(const error_code& error) const {
    return tls_ ? describe_tls(*tls_->native_handle(), error) : error.message();
  }

  AsioNetwork* network_;
  tcp::socket socket_;
  std::unique_ptr<asio::ssl::stream<tcp::socket&>> tls_;
  NodeId expected_;
  bool dialed_;
  std::string from_;  // the other side's address
  NodeId peer_{0};
  std::uint64_t peer_incarnation_ = 0;
  bool up_ = false;
  bool open_ = true;
  std::int64_t heard_ns_ = 0;
  std::int64_t said_ns_ = 0;

  std::vector<std::byte> read_;
  std::size_t read_begin_ = 0;  // of what has not been taken
  std::size_t read_end_ = 0;
  std::vector<std::byte> unpacked_;
  Outgoing sending_;
  Outgoing waiting_;
  std::deque<Outgoing> later_;  // behind waiting_, whose last is piped
  std::size_t queued_ = 0;
};

class AsioNetwork final : public Network {
 public:
  AsioNetwork(asio::io_context& context, NetworkOptions options, NetworkCallbacks callbacks)
      : context_(context),
        options_(std::move(options)),
        callbacks_(std::move(callbacks)),
        acceptor_(context),
        resolver_(context),
        timer_(context) {}
  ~AsioNetwork() override {
    for (auto& connection : connections_) connection->orphan();
    *alive_ = false;
  }

  Status listen();
  Status renew_tls(const PeerTls& files) override;
  void start() {
    accept();
    tick();
  }

  void set_peers(const std::map<NodeId, Address>& peers) override;
  Link* link(NodeId peer) override {
    const auto found = links_.find(peer);
    return found == links_.end() ? nullptr : found->second.get();
  }
  std::uint16_t port() const override { return acceptor_.local_endpoint().port(); }
  std::string trouble(NodeId peer) const override {
    const auto found = trouble_.find(peer);
    return found == trouble_.end() ? "" : found->second;
  }

  const NetworkOptions& options() const { return options_; }
  const NetworkCallbacks& callbacks() const { return callbacks_; }
  asio::ssl::context* tls() const { return tls_.get(); }
  // Whether the connection may stand: its peer is one, and where there was another connection, this is newer.
  bool admit(const std::shared_ptr<Connection>& connection);
  void note_trouble(NodeId peer, const std::string& from, const std::string& what);
  void forget(const std::shared_ptr<Connection>& connection);

 private:
  void accept();
  void greet(tcp::socket socket);
  void tick();
  void dial(NodeId peer, const Address& address);

  asio::io_context& context_;
  NetworkOptions options_;
  NetworkCallbacks callbacks_;
  std::shared_ptr<asio::ssl::context> tls_;
  tcp::acceptor acceptor_;
  tcp::resolver resolver_;
  asio::steady_timer timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::map<NodeId, Address> peers_;
  std::map<NodeId, std::int64_t> dialing_;  // since when
  std::map<NodeId, std::int64_t> apart_;    // since when there has been no connection
  std::map<NodeId, std::string> trouble_;
  Refusals refusals_;
  std::vector<std::shared_ptr<Connection>> connections_;
  std::map<NodeId, std::shared_ptr<Connection>> links_;
};

// --- Connection ----------------------------------------------------------------------------------

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
  socket_.set_option(tcp::no_delay(true), ignored);
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

bool Connection::takes_pipes() const {
  return !tls_ && network_ != nullptr && network_->options().compression == Compression::none;
}

void Connection::send_piped(const MessageHeader& header, io::PipedBytes body) {
  if (!open_) return;
  const auto encoded = encode_unchecked(header, body.size());
  Outgoing& to = last();
  to.bytes.insert(to.bytes.end(), encoded.begin(), encoded.end());
  queued_ += encoded.size() + body.size();
  to.piped = std::move(body);
  said_ns_ = monotonic_ns();
  if (sending_.bytes.empty()) flush();
}

// Where bytes are to be appended.
Outgoing& Connection::last() {
  Outgoing& last = later_.empty() ? waiting_ : later_.back();
  return last.piped.empty() ? last : later_.emplace_back();
}

void Connection::flush() {
  std::swap(sending_, waiting_);
  if (!later_.empty()) {
    waiting_ = std::move(later_.front());
    later_.pop_front();
  }
  async_write(asio::buffer(sending_.bytes), [self = shared_from_this()](error_code error, std::size_t bytes) {
    if (!self->open_) return;
    if (error) return self->close(self->describe(error));
    self->queued_ -= bytes;
    self->flush_piped();
  });
}

// What a pipe holds goes out by itself, between what other handlers do.
void Connection::flush_piped() {
  const std::size_t before = sending_.piped.size();
  const error_code error(before == 0 ? 0 : sending_.piped.send_to(socket_.native_handle()),
                         boost::system::system_category());
  queued_ -= before - sending_.piped.size();
  if (error == asio::error::would_block)
    return socket_.async_wait(tcp::socket::wait_write, [self = shared_from_this()](error_code failed) {
      if (!self->open_) return;
      if (failed) return self->close(self->describe(failed));
      self->flush_piped();
    });
  if (error) return close(describe(error));
  sending_.bytes.clear();
  if (!waiting_.bytes.empty()) flush();
  if (up_) network_->callbacks().writable(*this);
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
  socket_.close(ignored);
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

// --- AsioNetwork ---------------------------------------------------------------------------------

Status AsioNetwork::listen() {
  error_code error;
  const Address& at = options_.listen;
  const auto found = resolver_.resolve(at.host, std::to_string(at.port), tcp::resolver::passive, error);
  if (error || found.empty())
    return fail(Code::invalid_argument,
                fmt::format("replication cannot listen on '{}:{}': {}", at.host, at.port, error.message()));
  const tcp::endpoint endpoint = *found.begin();
  acceptor_.open(endpoint.protocol(), error);
  if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor_.bind(endpoint, error);
  if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
  if (!error) return {};
  return fail(error == asio::error::address_in_use ? Code::already_exists : Code::system,
              fmt::format("replication cannot listen on '{}:{}': {}", at.host, at.port, error.message()),
              error.value());
}

Status AsioNetwork::renew_tls(const PeerTls& files) {
  auto loaded = load_peer_tls(files);
  if (!loaded) return std::unexpected(loaded.error());
  tls_ = std::move(*loaded);
  return {};
}

void AsioNetwork::accept() {
  acceptor_.async_accept([this, alive = alive_](error_code error, tcp::socket socket) {
    if (!*alive || error == asio::error::operation_aborted) return;
    if (!error) greet(std::move(socket));
    accept();
  });
}

void AsioNetwork::greet(tcp::socket socket) {
  auto connection = std::make_shared<Connection>(*this, std::move(socket), NodeId(0), false);
  const auto is_stranger = [](const auto& c) { return !c->is_up() && !c->dialed(); };
  if (std::ranges::count_if(connections_, is_stranger) >= kMaxStrangers)
    return note_trouble(NodeId(0), connection->from(), "too many connections have not said hello yet");
  connections_.push_back(connection);
  connection->begin();
}

void AsioNetwork::tick() {
  const std::int64_t now_ns = monotonic_ns();
  for (const auto& connection : std::vector(connections_)) connection->look(now_ns);
  for (const auto& [peer, address] : peers_) {
    const bool trying = std::ranges::any_of(
        connections_, [&](const auto& c) { return c->dialed() && c->expected() == peer; });
    if (trying || links_.contains(peer) || dialing_.contains(peer)) continue;
    if (peer > options_.self ||
        now_ns - apart_[peer] > std::chrono::nanoseconds(options_.dial_anyway).count())
      dial(peer, address);
  }
  timer_.expires_after(options_.redial);
  timer_.async_wait([this, alive = alive_](error_code error) {
    if (*alive && !error) tick();
  });
}

void AsioNetwork::dial(NodeId peer, const Address& address) {
  dialing_[peer] = monotonic_ns();
  auto socket = std::make_shared<tcp::socket>(context_);
  auto limit = std::make_shared<asio::steady_timer>(context_, options_.silence);
  auto failed = [this, peer, limit](const error_code& error) {
    limit->cancel();
    dialing_.erase(peer);
    note_trouble(peer, {}, error.message());
    if (error == asio::error::connection_refused) callbacks_.refused(peer);
  };
  limit->async_wait([socket](error_code error) {
    error_code ignored;
    if (!error) socket->close(ignored);
  });
  resolver_.async_resolve(
      address.host, std::to_string(address.port),
      [this, alive = alive_, socket, limit, failed, peer](error_code error,
                                                          tcp::resolver::results_type found) {
        if (!*alive) return;
        if (error) return failed(error);
        asio::async_connect(
            *socket, found,
            [this, alive, socket, limit, failed, peer](error_code result, const tcp::endpoint&) {
              if (!*alive) return;
              if (result) return failed(result);
              limit->cancel();
              dialing_.erase(peer);
              connections_.push_back(std::make_shared<Connection>(*this, std::move(*socket), peer, true));
              connections_.back()->begin();
            });
      });
}

bool AsioNetwork::admit(const std::shared_ptr<Connection>& connection) {
  const NodeId peer = connection->peer();
  if (peer == options_.self || !peers_.contains(peer)) return false;
  if (const auto old = links_.find(peer); old != links_.end()) {
    // Both have dialed at once: both keep the connection of the lower id.
    const bool both = old->second->peer_incarnation() == connection->peer_incarnation() &&
                      old->second->dialed() != connection->dialed();
    if (both && old->second->dialed() == (options_.self < peer)) return false;
    old->second->close("the peer has connected anew");
  }
  links_[peer] = connection;
  trouble_.erase(peer);
  return true;
}

void AsioNetwork::note_trouble(NodeId peer, const std::string& from, const std::string& what) {
  if (peer == NodeId(0)) {
    if (const auto line = refusals_.note(from, what, monotonic_ns())) logger().warn("replication: {}", *line);
    return;
  }
  std::string& known = trouble_[peer];
  if (known != what) logger().warn("replication: node {}: {}", peer.value(), what);
  known = what;
}

void AsioNetwork::forget(const std::shared_ptr<Connection>& connection) {
  if (const auto link = links_.find(connection->peer()); link != links_.end() && link->second == connection) {
    apart_[link->first] = monotonic_ns();
    links_.erase(link);
  }
  std::erase(connections_, connection);
}

void AsioNetwork::set_peers(const std::map<NodeId, Address>& peers) {
  peers_ = peers;
  for (const auto& [peer, address] : peers) apart_.try_emplace(peer, monotonic_ns());
  for (const auto& connection : std::vector(connections_)) {
    const NodeId peer = connection->is_up() ? connection->peer() : connection->expected();
    if (peer != NodeId(0) && !peers_.contains(peer)) connection->close("it is no peer any more");
  }
}

Result<std::unique_ptr<Network>> Network::open(asio::io_context& context, NetworkOptions options,
                                               NetworkCallbacks callbacks) {
  const std::optional<PeerTls> tls = options.tls;
  auto network = std::make_unique<AsioNetwork>(context, std::move(options), std::move(callbacks));
  if (tls)
    if (auto used = network->renew_tls(*tls); !used) return std::unexpected(used.error());
  if (auto listening = network->listen(); !listening) return std::unexpected(listening.error());
  network->start();
  return network;
}

}  // namespace ringtail::replication

#include "replication/network.h"

#include <fmt/format.h>

#include "base/clock.h"
#include "base/logger.h"
#include "replication/asio_network.h"

namespace ringtail::replication {

namespace {

constexpr std::ptrdiff_t kMaxStrangers = 256;  // that have not said hello yet

}  // namespace

Status AsioNetwork::listen() {
  error_code error;
  const Address& at = options_.listen;
  const auto found = resolver_.resolve(at.host, std::to_string(at.port), tcp::resolver::passive, error);
  if (error || found.empty())
    return fail(Code::invalid_argument,
                fmt::format("replication cannot listen on '{}:{}': {}", at.host, at.port, error.message()));
  const tcp::endpoint endpoint = *found.begin();
  const bool listens = !acceptor_.open(endpoint.protocol(), error) &&
                       !acceptor_.set_option(tcp::acceptor::reuse_address(true), error) &&
                       !acceptor_.bind(endpoint, error) &&
                       !acceptor_.listen(asio::socket_base::max_listen_connections, error);
  if (listens) return {};
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
  accepting_ = true;
  acceptor_.async_accept([this, alive = alive_](error_code error, tcp::socket socket) {
    if (!*alive || error == asio::error::operation_aborted) return;
    // Without descriptors the next attempt would fail at once, too, and so on: it is left to the next tick.
    accepting_ = false;
    if (error) return;
    greet(std::move(socket));
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
  if (!accepting_) accept();
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
  auto limit = std::make_shared<asio::steady_timer>(context_);  // of connecting: names may be found late
  auto failed = [this, peer, limit](const error_code& error) {
    limit->cancel();
    dialing_.erase(peer);
    note_trouble(peer, {}, error.message());
    if (error == asio::error::connection_refused) callbacks_.refused(peer);
  };
  const auto resolved = [this, alive = alive_, socket, limit, failed, peer](
                            error_code error, const tcp::resolver::results_type& found) {
    if (!*alive) return;
    if (error) return failed(error);
    limit->expires_after(options_.silence);
    limit->async_wait([socket](error_code expired) {
      error_code ignored;
      if (!expired) ignored = socket->close(ignored);
    });
    asio::async_connect(
        *socket, found, [this, alive, socket, limit, failed, peer](error_code result, const tcp::endpoint&) {
          if (!*alive) return;
          if (result) return failed(result);
          limit->cancel();
          dialing_.erase(peer);
          connections_.push_back(std::make_shared<Connection>(*this, std::move(*socket), peer, true));
          connections_.back()->begin();
        });
  };
  try {
    resolver_.async_resolve(address.host, std::to_string(address.port), resolved);
  } catch (const boost::system::system_error& error) {  // it makes a thread when it is used first
    failed(error.code());
  }
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

// What Network is made of, on Boost.Asio: the connections, and who makes and keeps them. network.cc and connection.cc
// share it; everybody else sees network.h.
//
// Thread safety: the thread that runs the io_context.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "replication/asio.h"
#include "replication/network.h"
#include "replication/refusals.h"

namespace ringtail::replication {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

// Goes out in this order.
struct Outgoing {
  std::vector<std::byte> bytes;
  io::FileBytes file = {};
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
  void send_in_place(const MessageHeader& header, std::span<const std::byte> body) override;
  bool takes_unchecked() const override;
  void send_unchecked(const MessageHeader& header, io::FileBytes body) override;
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
    constexpr std::size_t kWriteBytes = 256 << 10;  // in one call: a longer one keeps producers off its CPU
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
  std::deque<Outgoing> later_;  // behind waiting_, which ends with a file's bytes
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
  bool accepting_ = false;
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

}  // namespace ringtail::replication

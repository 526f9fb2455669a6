// Connections between the hosts of a cluster: one a pair, over which all partitions go.
//
// The node with the lower id dials, again and again while there is no connection; after a while of that, so does
// the other one. Both sides say hello; a connection counts once the other side's hello has come, and fits. One
// that is silent for too long is closed, and so is one whose hello has not come by then, whatever else did.
// Strangers are given little memory, few places, and few lines in the log.
//
// Thread safety: everything on the thread that runs the io_context, but for what says otherwise. Lifetime: the
// io_context and what the callbacks use must outlive it.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "io/file_bytes.h"
#include "replication/coordinator.h"
#include "replication/peer_tls.h"
#include "replication/wire.h"

namespace boost::asio {
class io_context;
}

namespace ringtail::replication {

struct NetworkOptions {
  NodeId self{0};
  std::uint64_t incarnation = 0;
  std::string cluster;
  Address listen;
  std::optional<PeerTls> tls;  // none: plain TCP
  Compression compression = Compression::none;
  std::chrono::milliseconds ping_interval{200};
  std::chrono::milliseconds silence{2'000};  // then a connection is taken for dead
  std::chrono::milliseconds redial{100};
  std::chrono::milliseconds dial_anyway{400};  // apart for so long, the node with the higher id dials, too
};

// A connection on which both have said hello.
class Link {
 public:
  virtual ~Link() = default;
  virtual NodeId peer() const = 0;
  virtual std::uint64_t peer_incarnation() const = 0;
  // Queues a message; it is on its way when this returns, or waits for those before it. Copies the body.
  virtual void send(const MessageHeader& header, std::span<const std::byte> body = {}) = 0;
  // The same for a body that nobody changes until this returns: what the kernel takes at once goes from where it
  // stands, and only the rest is copied.
  virtual void send_in_place(const MessageHeader& header, std::span<const std::byte> body) = 0;
  // Whether send_unchecked may be used: nothing is compressed.
  virtual bool takes_unchecked() const = 0;
  // The same with a body that is not copied, and which the receiver has to check: kUnchecked.
  virtual void send_unchecked(const MessageHeader& header, io::FileBytes body) = 0;
  // Bytes that the kernel has not taken yet.
  virtual std::size_t queued() const = 0;
  virtual void close(const std::string& why) = 0;
};

struct NetworkCallbacks {
  std::function<void(Link&)> up;
  std::function<void(Link&, const Message&)> message;
  std::function<void(Link&)> down;      // the link is not to be used again
  std::function<void(Link&)> writable;  // what was queued is on its way
  std::function<void(NodeId)> refused;  // its host answers, and nobody listens there; again at each attempt
};

class Network {
 public:
  // Listens. Errors: invalid_argument (a certificate or key that cannot be used, an address that is none),
  // already_exists (the address is in use), permission_denied, system.
  static Result<std::unique_ptr<Network>> open(boost::asio::io_context& context, NetworkOptions options,
                                               NetworkCallbacks callbacks);
  virtual ~Network() = default;
  // With whom there is to be a connection. Those left out are closed.
  virtual void set_peers(const std::map<NodeId, Address>& peers) = 0;
  // Reads certificates and key anew, for connections made from now on. Errors: invalid_argument; then all stays as
  // it was.
  virtual Status renew_tls(const PeerTls& files) = 0;
  // Null while there is no connection.
  virtual Link* link(NodeId peer) = 0;
  virtual std::uint16_t port() const = 0;
  // The last trouble with a peer, for those who look; empty: none since it was up.
  virtual std::string trouble(NodeId peer) const = 0;
};

}  // namespace ringtail::replication

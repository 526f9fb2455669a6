// TLS 1.3 between nodes: each shows a certificate, and takes those that the same authority has signed. Names are not
// compared: who has such a certificate is a node.
//
// Thread safety: functions; a context is used by one thread.
#pragma once

#include <openssl/ssl.h>

#include <boost/system/error_code.hpp>
#include <filesystem>
#include <memory>
#include <string>

#include "ringtail/error.h"

namespace boost::asio::ssl {
class context;
}

namespace ringtail::replication {

struct PeerTls {
  std::filesystem::path ca;           // who signs the nodes' certificates
  std::filesystem::path certificate;  // this node's, with its chain
  std::filesystem::path key;
};

// Reads the files. A certificate that other nodes refuse, or will before long, is logged as such and taken: what is
// on this host goes on without them.
// Errors: invalid_argument (a file that cannot be used, a key of another certificate). Blocks on the disk.
Result<std::shared_ptr<boost::asio::ssl::context>> load_peer_tls(const PeerTls& files);

// Why a connection ended: what this side has against the other's certificate, if that is it.
std::string describe_tls(const SSL& connection, const boost::system::error_code& error);

}  // namespace ringtail::replication

// An etcd of a test's own: one member on free ports of the loopback, with its data in a directory that goes with
// it. Made for short leases, so its elections are short, too.
//
// Thread safety: none. Lifetime: the program ends with this object, and with the test's process in whatever way.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "support/run_command.h"

namespace ringtail::test {

class EtcdProcess {
 public:
  // `flags` are added to those it is always started with; `scheme` is that of its clients' address, and `host` one
  // of this machine's.
  explicit EtcdProcess(std::vector<std::string> flags = {}, std::string scheme = "http",
                       std::string host = "127.0.0.1");
  EtcdProcess(const EtcdProcess&) = delete;
  EtcdProcess& operator=(const EtcdProcess&) = delete;
  ~EtcdProcess();

  // Starts it and waits until it serves; again on the same port after kill(). False: see trouble().
  bool start();
  // Ends it at once, as a crash would.
  void kill();
  // With all that it knows; it must not be running.
  void lose_data();
  void signal(int number) const;

  const std::string& endpoint() const { return endpoint_; }
  // Why it could not be started, and the package to install if there is none.
  const std::string& trouble() const { return trouble_; }

 private:
  std::string log_text() const;

  std::filesystem::path dir_;
  std::vector<std::string> flags_;
  std::string host_;
  std::string endpoint_;
  std::string peer_;
  std::string trouble_;
  int starts_ = 0;
  std::unique_ptr<Command> command_;
};

// A port of the loopback that nobody listens to at the moment.
std::uint16_t find_free_port();

// Makes, in the directory, an authority (ca.pem), and certificates by it for a server on the loopback
// (server.pem, server.key) and for a client (client.pem, client.key); and another authority that has vouched for
// nobody (other.pem). False: what openssl said is in `trouble`.
bool make_certificates(const std::filesystem::path& dir, std::string& trouble);

}  // namespace ringtail::test

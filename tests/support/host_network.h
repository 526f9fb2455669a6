// A network of hosts on this machine: each a network namespace, joined by a bridge in one that the test's own
// thread moves to. Links between them can be cut, also in one direction. The namespaces have no names: they go
// with the processes in them, however those end.
//
// Thread safety: for the one thread that creates it, before it starts others; what that thread starts afterwards
// is in the namespace in the middle. Lifetime: processes on its hosts end before it.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace ringtail::test {

class HostNetwork {
 public:
  // The test's own place in the network; hosts are numbered from 1 on.
  static constexpr int kMiddle = 0;

  // Null where it cannot be had (it takes root, iproute2 and nftables); the reason is in `trouble`.
  static std::unique_ptr<HostNetwork> create(int hosts, std::string& trouble);
  HostNetwork(const HostNetwork&) = delete;
  HostNetwork& operator=(const HostNetwork&) = delete;
  ~HostNetwork();

  static std::string address(int host);
  // What to write before a command line so that it runs on the host.
  std::vector<std::string> enter(int host) const;

  // Nothing that `from` sends arrives at `to` any more, without a word to either.
  void cut(int from, int to);
  void heal(int from, int to);
  // Both ways, from and to all others.
  void isolate(int host);
  void rejoin(int host);

 private:
  HostNetwork() = default;

  bool build(int hosts, std::string& trouble);
  void apply(int host) const;

  std::vector<int> namespaces_;  // descriptors; the first is the middle's
  std::set<std::pair<int, int>> cuts_;
};

}  // namespace ringtail::test

#include "support/host_network.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "support/run_command.h"

namespace ringtail::test {
namespace {

std::string path_of(int descriptor) {
  return "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(descriptor);
}

// Moves this thread to a new namespace. Its descriptor, or -1.
int enter_new_namespace() {
  if (::unshare(CLONE_NEWNET) != 0) return -1;
  return ::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
}

}  // namespace

std::unique_ptr<HostNetwork> HostNetwork::create(int hosts, std::string& trouble) {
  for (const char* const program : {"ip", "nft", "nsenter"})
    if (run_command({"sh", "-c", std::string("command -v ") + program}).exit_code != 0) {
      trouble =
          std::string(program) + " is missing; install it: apt-get install iproute2 nftables util-linux";
      return nullptr;
    }
  std::unique_ptr<HostNetwork> network(new HostNetwork);
  if (!network->build(hosts, trouble)) return nullptr;
  return network;
}

bool HostNetwork::build(int hosts, std::string& trouble) {
  const int before = ::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  bool built = before >= 0;
  for (int host = 0; built && host <= hosts; ++host) {
    const int made = enter_new_namespace();
    built = made >= 0;
    if (built) namespaces_.push_back(made);
  }
  if (!built) {
    trouble = std::string("network namespaces cannot be made: ") + std::strerror(errno);
    if (before >= 0) ::setns(before, CLONE_NEWNET);
    ::close(before);
    return false;
  }
  std::string script = "set -e\nip link set lo up\nip link add bridge type bridge\nip address add " +
                       address(kMiddle) + "/24 dev bridge\nip link set bridge up\n";
  for (int host = 1; host <= hosts; ++host) {
    const std::string n = std::to_string(host);
    std::string inside = "nsenter --net=" + path_of(namespaces_[static_cast<std::size_t>(host)]) + " ";
    script += "ip link add port" + n + " type veth peer name eth0 netns " +
              path_of(namespaces_[static_cast<std::size_t>(host)]) + "\nip link set port" + n +
              " master bridge up\n" + inside + "ip address add " + address(host) + "/24 dev eth0\n" + inside +
              "ip link set eth0 up\n" + inside + "ip link set lo up\n";
  }
  for (const int descriptor : namespaces_)
    script += "nsenter --net=" + path_of(descriptor) +
              " nft 'add table ip cut; add chain ip cut in { type filter hook input priority 0; }'\n";
  ::setns(namespaces_.front(), CLONE_NEWNET);
  const CommandResult result = run_command({"sh", "-c", script});
  if (result.exit_code != 0) {
    trouble = "the hosts' network cannot be made: " + result.err;
    ::setns(before, CLONE_NEWNET);
  }
  ::close(before);
  return result.exit_code == 0;
}

HostNetwork::~HostNetwork() {
  for (const int descriptor : namespaces_) ::close(descriptor);
}

std::string HostNetwork::address(int host) {
  return "10.77.0." + std::to_string(host == kMiddle ? 254 : host);
}

std::vector<std::string> HostNetwork::enter(int host) const {
  return {"nsenter", "--net=" + path_of(namespaces_[static_cast<std::size_t>(host)])};
}

void HostNetwork::cut(int from, int to) {
  cuts_.emplace(from, to);
  apply(to);
}

void HostNetwork::heal(int from, int to) {
  cuts_.erase({from, to});
  apply(to);
}

void HostNetwork::isolate(int host) {
  for (int other = 0; other < static_cast<int>(namespaces_.size()); ++other) {
    if (other == host) continue;
    cut(other, host);
    cut(host, other);
  }
}

void HostNetwork::rejoin(int host) {
  for (int other = 0; other < static_cast<int>(namespaces_.size()); ++other) {
    if (other == host) continue;
    heal(other, host);
    heal(host, other);
  }
}

// All that the host must not hear, at once.
void HostNetwork::apply(int host) const {
  std::string rules = "flush chain ip cut in\n";
  for (const auto& [from, to] : cuts_)
    if (to == host) rules += "add rule ip cut in ip saddr " + address(from) + " drop\n";
  std::vector<std::string> command = enter(host);
  command.insert(command.end(), {"nft", "-f", "-"});
  const CommandResult result = run_command(command, rules);
  if (result.exit_code == 0) return;
  std::fprintf(stderr, "nft: %s", result.err.c_str());
  std::abort();
}

}  // namespace ringtail::test

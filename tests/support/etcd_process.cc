#include "support/etcd_process.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <thread>
#include <utility>

namespace ringtail::test {
namespace {

constexpr auto kPatience = std::chrono::seconds(30);

bool is_installed(const std::string& program) {
  return run_command({"sh", "-c", "command -v " + program}).exit_code == 0;
}

std::string address_on(const std::string& host, const std::string& scheme) {
  return scheme + "://" + host + ":" + std::to_string(find_free_port());
}

}  // namespace

std::uint16_t find_free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (fd < 0 || ::bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    std::perror("a free port");
    std::abort();
  }
  ::close(fd);
  return ntohs(address.sin_port);
}

EtcdProcess::EtcdProcess(std::vector<std::string> flags, std::string scheme, std::string host)
    : flags_(std::move(flags)),
      host_(std::move(host)),
      endpoint_(address_on(host_, scheme)),
      peer_(address_on("127.0.0.1", "http")) {
  std::string name = (std::filesystem::temp_directory_path() / "ringtail-etcd-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) {
    std::perror("mkdtemp");
    std::abort();
  }
  dir_ = name;
}

EtcdProcess::~EtcdProcess() {
  kill();
  std::error_code ignored;
  std::filesystem::remove_all(dir_, ignored);
}

bool EtcdProcess::start() {
  if (!is_installed("etcd") || !is_installed("setpriv")) {
    trouble_ = "this test needs etcd and setpriv; install them: apt-get install etcd-server util-linux";
    return false;
  }
  // Other tests take free ports, too; another try takes others, unless somebody knows ours already.
  for (int attempt = 0; attempt < 3; ++attempt) {
    std::vector<std::string> arguments{
        "setpriv", "--pdeathsig", "KILL", "etcd", "--name", "test", "--data-dir", dir_ / "data",
        "--listen-client-urls", endpoint_, "--advertise-client-urls", endpoint_, "--listen-peer-urls", peer_,
        "--initial-advertise-peer-urls", peer_, "--initial-cluster", "test=" + peer_,
        // Leases live for at least one and a half elections.
        "--heartbeat-interval", "20", "--election-timeout", "200", "--unsafe-no-fsync", "--logger", "zap",
        "--log-outputs", dir_ / "log"};
    arguments.insert(arguments.end(), flags_.begin(), flags_.end());
    const std::size_t seen = log_text().size();
    command_ = std::make_unique<Command>(arguments);
    const auto until = std::chrono::steady_clock::now() + kPatience;
    while (std::chrono::steady_clock::now() < until) {
      if (log_text().find("ready to serve client requests", seen) != std::string::npos ||
          log_text().find("serving client traffic", seen) != std::string::npos) {
        ++starts_;
        return true;
      }
      siginfo_t ended{};
      if (::waitid(P_PID, static_cast<id_t>(command_->pid()), &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
          ended.si_pid != 0)
        break;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    kill();
    trouble_ = "etcd did not start; it said:\n" + log_text().substr(seen);
    if (starts_ > 0) continue;
    lose_data();
    endpoint_ = address_on(host_, endpoint_.substr(0, endpoint_.find(':')));
    peer_ = address_on("127.0.0.1", "http");
  }
  return false;
}

void EtcdProcess::kill() { command_.reset(); }

void EtcdProcess::lose_data() { std::filesystem::remove_all(dir_ / "data"); }

void EtcdProcess::signal(int number) const { command_->signal(number); }

std::string EtcdProcess::log_text() const {
  std::ifstream file(dir_ / "log", std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

bool make_certificates(const std::filesystem::path& dir, std::string& trouble) {
  const std::string script = R"(
set -e
cd "$1"
key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }
authority() { key "$1"; openssl req -x509 -new -key "$1.key" -subj "/CN=$1" -days 2 -out "$1.pem"; }
signed() {
  key "$1"
  openssl req -new -key "$1.key" -subj "/CN=$1" -out "$1.csr"
  printf '%s\n' "$2" > "$1.ext"
  openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile "$1.ext" -out "$1.pem"
}
authority ca
authority other
signed server 'subjectAltName=IP:127.0.0.1'
signed client 'extendedKeyUsage=clientAuth'
)";
  if (!is_installed("openssl")) {
    trouble = "this test needs openssl; install it: apt-get install openssl";
    return false;
  }
  const CommandResult result = run_command({"sh", "-c", script, "sh", dir.string()});
  trouble = result.err;
  return result.exit_code == 0;
}

}  // namespace ringtail::test

// The fixture of tests that drive ringtaild, beside the command.
#pragma once

#include <gmock/gmock.h>
#include <httplib.h>
#include <signal.h>

#include <chrono>
#include <optional>
#include <thread>

#include "integration/cli.h"

namespace ringtail::test {

class DaemonTest : public CliTest {
 protected:
  std::filesystem::path log_file() const { return directory() / "daemon.log"; }
  std::filesystem::path config_file() const { return directory() / "ringtaild.toml"; }

  // The daemon's command line: on the test's log, its lines in log_file(), at any port.
  std::vector<std::string> daemon_line(std::vector<std::string> more = {}) const {
    std::vector<std::string> line = {RINGTAILD_BINARY, "--config", config_file().string(), "--dir",
                                     log_dir().string()};
    line.insert(line.end(), more.begin(), more.end());
    return line;
  }
  void configure(std::string_view more = {}, std::string_view listen = "127.0.0.1:0") const {
    write_file("ringtaild.toml", "[http]\nlisten = \"" + std::string(listen) + "\"\n[logging]\nfile = \"" +
                                     log_file().string() + "\"\n" + std::string(more));
  }

  // Starts a daemon and waits until it is ready.
  void start(std::vector<std::string> more = {}, std::vector<std::string> environment = {}) {
    if (!std::filesystem::exists(config_file())) configure();
    log_seen_ = read_file(log_file()).size();
    daemon_.emplace(daemon_line(std::move(more)), environment);
    find_port();
    ASSERT_TRUE(wait_until([this] { return get("/readyz").status == 200; })) << read_file(log_file());
  }
  void find_port() {
    constexpr std::string_view kBefore = "dashboard on http://";
    wait_for_line(kBefore);
    const std::string line = read_file(log_file()).substr(log_seen_);
    port_ = std::stoi(line.substr(line.find(':') + 1));
  }
  CommandResult stop() {
    daemon_->signal(SIGTERM);
    CommandResult result = daemon_->wait();
    daemon_.reset();
    return result;
  }

  // Waits until the daemon has written this, behind what was waited for before.
  void wait_for_line(std::string_view text) {
    ASSERT_TRUE(wait_until([&] {
      const std::size_t found = read_file(log_file()).find(text, log_seen_);
      if (found == std::string::npos) return false;
      log_seen_ = found + text.size();
      return true;
    })) << "'"
        << text << "' in:\n"
        << read_file(log_file());
  }
  // A bound against hanging, not a measurement.
  static bool wait_until(const std::function<bool()>& done) {
    for (int i = 0; i < 6000; ++i) {
      if (done()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

  httplib::Response get(const std::string& path) const {
    auto result = httplib::Client("127.0.0.1", port_).Get(path);
    return result ? *result : httplib::Response();
  }
  // The value of a metric by its name with labels; nothing when it is not there.
  std::optional<double> metric(const std::string& name) const {
    for (const std::string& line : lines_of(get("/metrics").body))
      if (line.starts_with(name + " ")) return std::stod(line.substr(name.size()));
    return std::nullopt;
  }

  std::optional<Command> daemon_;
  int port_ = 0;

 private:
  std::size_t log_seen_ = 0;
};

}  // namespace ringtail::test

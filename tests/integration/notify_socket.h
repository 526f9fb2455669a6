// What systemd hears of a daemon.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <array>
#include <cstring>
#include <string>
#include <string_view>

#include "base/descriptor.h"

namespace ringtail::test {

// The socket that NOTIFY_SOCKET names (sd_notify(3)).
class NotifySocket {
 public:
  explicit NotifySocket(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
    EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    const timeval bound{.tv_sec = 60, .tv_usec = 0};  // against hanging
    ::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &bound, sizeof bound);
  }

  // Waits for a message with this in it, behind those that were waited for before.
  bool wait_for(std::string_view text) {
    std::array<char, 4096> buffer;
    for (;;) {
      const ssize_t got = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
      if (got <= 0) return false;
      const std::string_view message(buffer.data(), static_cast<std::size_t>(got));
      told_.append(message).push_back('\n');
      if (message.find(text) != std::string_view::npos) return true;
    }
  }
  const std::string& told() const { return told_; }

 private:
  const Descriptor socket_{::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
  std::string told_;
};

}  // namespace ringtail::test

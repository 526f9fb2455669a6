// What the tests of shared memory share: a directory in it, and processes to die for them.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <random>
#include <string>

#include <gtest/gtest.h>

namespace ringtail::shm {

class TempDir {
 public:
  TempDir() {
    std::string name = "/dev/shm/ringtail-test-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// One end of a line between two processes; each says single characters.
class Line {
 public:
  Line(int in, int out) : in_(in), out_(out) {}
  void say(char c) const { (void)!::write(out_, &c, 1); }
  // The next character; 0 when the other end is gone. Blocks.
  char hear() const {
    char c = 0;
    ssize_t got = 0;
    do {
      got = ::read(in_, &c, 1);
    } while (got < 0 && errno == EINTR);
    return got == 1 ? c : char{0};
  }
  // Whether the other end, and every copy of it, is gone. Only when nothing is left to hear.
  bool is_dead() const {
    pollfd look{in_, 0, 0};
    return ::poll(&look, 1, 0) == 1 && (look.revents & POLLHUP) != 0;
  }
  int input() const { return in_; }
  void close() const {
    ::close(in_);
    ::close(out_);
  }

 private:
  int in_;
  int out_;
};

// A child process that runs `body(line)` and ends. Killed when this object goes.
class Child {
 public:
  template <class Body>
  explicit Child(Body body) {
    std::array<int, 2> down{};
    std::array<int, 2> up{};
    if (::pipe2(down.data(), O_CLOEXEC) != 0 || ::pipe2(up.data(), O_CLOEXEC) != 0) std::abort();
    std::cout.flush();
    pid_ = ::fork();
    if (pid_ < 0) std::abort();
    if (pid_ == 0) {
      ::close(down[1]);
      ::close(up[0]);
      body(Line(down[0], up[1]));
      std::cout.flush();
      ::_exit(::testing::Test::HasFailure() ? 1 : 0);
    }
    ::close(down[0]);
    ::close(up[1]);
    line_ = Line(up[0], down[1]);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    kill();
    line_.close();
  }

  const Line& line() const { return line_; }
  pid_t pid() const { return pid_; }

  void kill() {
    if (pid_ > 0) ::kill(pid_, SIGKILL);
    wait();
  }
  // Its exit code; -1 if a signal ended it, or it was waited for before.
  int wait() {
    int status = 0;
    if (pid_ <= 0) return -1;
    while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  pid_t pid_ = 0;
  Line line_{-1, -1};
};

inline std::uint64_t print_seed() {
  const std::uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << '\n';
  return seed;
}

}  // namespace ringtail::shm

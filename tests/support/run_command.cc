#include "support/run_command.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

namespace ringtail::test {
namespace {

struct Pipe {
  int read_end = -1;
  int write_end = -1;
};

Pipe make_pipe() {
  std::array<int, 2> ends;
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    std::perror("pipe2");
    std::abort();
  }
  return {ends[0], ends[1]};
}

void close_and_forget(int& fd) {
  if (fd >= 0) ::close(fd);
  fd = -1;
}

[[noreturn]] void become(const std::vector<std::string>& arguments,
                         const std::vector<std::string>& environment) {
  for (const std::string& entry : environment) {
    const std::size_t equals = entry.find('=');
    if (equals == std::string::npos) {
      ::unsetenv(entry.c_str());
    } else {
      ::setenv(entry.substr(0, equals).c_str(), entry.c_str() + equals + 1, 1);
    }
  }
  std::vector<char*> pointers;
  for (const std::string& argument : arguments) pointers.push_back(const_cast<char*>(argument.c_str()));
  pointers.push_back(nullptr);
  ::execvp(pointers[0], pointers.data());
  std::perror(pointers[0]);
  ::_exit(127);
}

// Appends what can be read at once. Closes `fd` at the end of the file.
void drain(int& fd, std::string& text) {
  std::array<char, 65536> buffer;
  const ssize_t got = ::read(fd, buffer.data(), buffer.size());
  if (got > 0) {
    text.append(buffer.data(), static_cast<std::size_t>(got));
  } else if (got == 0 || errno != EINTR) {
    close_and_forget(fd);
  }
}

}  // namespace

Command::Command(const std::vector<std::string>& arguments, const std::vector<std::string>& environment) {
  const Pipe in = make_pipe();
  const Pipe out = make_pipe();
  const Pipe err = make_pipe();
  ::signal(SIGPIPE, SIG_IGN);  // a program may end before it has read all its input
  pid_ = ::fork();
  if (pid_ == 0) {
    ::signal(SIGPIPE, SIG_DFL);
    ::dup2(in.read_end, STDIN_FILENO);
    ::dup2(out.write_end, STDOUT_FILENO);
    ::dup2(err.write_end, STDERR_FILENO);
    become(arguments, environment);
  }
  ::close(in.read_end);
  ::close(out.write_end);
  ::close(err.write_end);
  input_ = in.write_end;
  output_ = out.read_end;
  error_ = err.read_end;
}

Command::~Command() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  close_and_forget(input_);
  close_and_forget(output_);
  close_and_forget(error_);
}

void Command::write(std::string_view text) {
  ::fcntl(input_, F_SETFL, O_NONBLOCK);
  while (!text.empty()) {
    const ssize_t written = ::write(input_, text.data(), text.size());
    if (written > 0) {
      text.remove_prefix(static_cast<std::size_t>(written));
    } else if (errno != EAGAIN && errno != EINTR) {
      return;
    }
    // Its outputs are read meanwhile, so that the two never wait for each other.
    std::array<pollfd, 3> watched = {{{input_, POLLOUT, 0}, {output_, POLLIN, 0}, {error_, POLLIN, 0}}};
    ::poll(watched.data(), watched.size(), -1);
    if (watched[1].revents != 0) drain(output_, result_.out);
    if (watched[2].revents != 0) drain(error_, result_.err);
  }
}

void Command::close_input() { close_and_forget(input_); }

bool Command::read_some() {
  if (output_ < 0 && error_ < 0) return false;
  std::array<pollfd, 2> watched = {{{output_, POLLIN, 0}, {error_, POLLIN, 0}}};
  ::poll(watched.data(), watched.size(), -1);
  if (watched[0].revents != 0) drain(output_, result_.out);
  if (watched[1].revents != 0) drain(error_, result_.err);
  return true;
}

bool Command::wait_for_output(std::string_view text) {
  while (result_.out.find(text) == std::string::npos) {
    if (!read_some()) return false;
  }
  return true;
}

bool Command::wait_for_error(std::string_view text) {
  for (;;) {
    if (const std::size_t found = result_.err.find(text, error_seen_); found != std::string::npos) {
      error_seen_ = found + text.size();
      return true;
    }
    if (!read_some()) return false;
  }
}

void Command::signal(int number) const {
  ::kill(pid_, number);
  // It takes effect a while after the call, and meanwhile the program would go on: this returns when it stands still.
  siginfo_t what{};
  if (number == SIGSTOP) ::waitid(P_PID, static_cast<id_t>(pid_), &what, WSTOPPED | WEXITED | WNOWAIT);
}

CommandResult Command::wait() {
  close_input();
  while (read_some()) {
  }
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  result_.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result_;
}

CommandResult run_command(const std::vector<std::string>& arguments, std::string_view input,
                          const std::vector<std::string>& environment) {
  Command command(arguments, environment);
  command.write(input);
  return command.wait();
}

}  // namespace ringtail::test

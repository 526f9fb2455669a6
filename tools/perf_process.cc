#include "tools/perf_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

#include "base/result.h"
#include "tools/session.h"

namespace ringtail::tools::perf {
namespace {

constexpr std::size_t kMaxErrorBytes = 2048;

sigset_t child_signal() {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGCHLD);
  return set;
}

// An error on its way through a pipe: code and errno, then the message.
struct WireError {
  Code code;
  int os_errno;
};

void write_error(int fd, const Error& error) {
  std::array<char, sizeof(WireError) + kMaxErrorBytes> bytes;
  const WireError wire{error.code, error.os_errno};
  std::memcpy(bytes.data(), &wire, sizeof wire);
  const std::size_t length = std::min(error.message.size(), kMaxErrorBytes);
  std::memcpy(bytes.data() + sizeof wire, error.message.data(), length);
  [[maybe_unused]] const ssize_t written = ::write(fd, bytes.data(), sizeof wire + length);
}

std::optional<Error> read_error(int fd) {
  std::array<char, sizeof(WireError) + kMaxErrorBytes> bytes;
  const ssize_t got = ::read(fd, bytes.data(), bytes.size());
  if (got < static_cast<ssize_t>(sizeof(WireError))) return std::nullopt;
  WireError wire;
  std::memcpy(&wire, bytes.data(), sizeof wire);
  return Error{wire.code, wire.os_errno,
               std::string(bytes.data() + sizeof wire, static_cast<std::size_t>(got) - sizeof wire)};
}

[[noreturn]] void run_child(pid_t parent, int error_fd, const std::function<Status()>& body) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);  // it died before we could ask to be told
  ::signal(SIGINT, SIG_IGN);
  ::signal(SIGTERM, SIG_DFL);
  const sigset_t set = child_signal();
  ::sigprocmask(SIG_UNBLOCK, &set, nullptr);
  int exit_code = 0;
  try {
    if (const Status status = body(); !status) {
      write_error(error_fd, status.error());
      exit_code = 1;
    }
  } catch (const std::exception& error) {  // allocation; it must not unwind into the parent's frames
    write_error(error_fd, Error{Code::system, 0, error.what()});
    exit_code = 1;
  }
  ::_exit(exit_code);
}

}  // namespace

Status pin_to_cpu(int cpu) {
  if (cpu < 0) return {};
  cpu_set_t set;
  CPU_ZERO(&set);
  if (cpu < CPU_SETSIZE) CPU_SET(static_cast<unsigned>(cpu), &set);
  if (::sched_setaffinity(0, sizeof set, &set) == 0) return {};
  return fail(
      Code::invalid_argument,
      fmt::format("cannot run on CPU {}; this process may use: {}", cpu, fmt::join(allowed_cpus(), ",")),
      errno);
}

std::vector<int> allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(static_cast<unsigned>(cpu), &set)) cpus.push_back(cpu);
  }
  return cpus;
}

Result<SharedMapping> SharedMapping::create(std::size_t bytes) {
  void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return fail_errno(errno, "cannot map memory to share with the workers");
  return SharedMapping(data, bytes);
}

SharedMapping::SharedMapping(SharedMapping&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(other.bytes_) {}

SharedMapping::~SharedMapping() {
  if (data_ != nullptr) ::munmap(data_, bytes_);
}

Result<Children> Children::create() {
  const sigset_t set = child_signal();
  if (::sigprocmask(SIG_BLOCK, &set, nullptr) != 0) return fail_errno(errno, "cannot block SIGCHLD");
  const int fd = ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (fd < 0) return fail_errno(errno, "cannot open a descriptor for SIGCHLD");
  return Children(fd);
}

Children::Children(Children&& other) noexcept
    : signal_fd_(std::exchange(other.signal_fd_, -1)), children_(std::move(other.children_)) {
  other.children_.clear();
}

Children::~Children() {
  if (signal_fd_ < 0) return;
  for (const Child& child : children_) kill(child);
  ::close(signal_fd_);
  const sigset_t set = child_signal();
  ::sigprocmask(SIG_UNBLOCK, &set, nullptr);
}

void Children::kill(const Child& child) {
  ::kill(child.pid, SIGKILL);
  ::waitpid(child.pid, nullptr, 0);
  ::close(child.error_fd);
}

void Children::kill_except(std::string_view name) {
  std::erase_if(children_, [&](const Child& child) {
    if (child.name == name) return false;
    kill(child);
    return true;
  });
}

Status Children::start(std::string name, std::function<Status()> body) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno(errno, "cannot make a pipe to a worker");
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::close(ends[0]);
    run_child(parent, ends[1], body);
  }
  const int fork_errno = errno;
  ::close(ends[1]);
  if (pid < 0) {
    ::close(ends[0]);
    return fail_errno(fork_errno, fmt::format("cannot start the {}", name));
  }
  children_.push_back({pid, std::move(name), ends[0]});
  return {};
}

Status Children::reap() {
  signalfd_siginfo ignored;
  while (::read(signal_fd_, &ignored, sizeof ignored) > 0) {
  }
  Status result;
  // Several children may stand behind one SIGCHLD.
  for (std::size_t i = 0; i < children_.size();) {
    int status = 0;
    if (::waitpid(children_[i].pid, &status, WNOHANG) == 0) {
      ++i;
      continue;
    }
    const Child child = children_[i];
    children_.erase(children_.begin() + static_cast<std::ptrdiff_t>(i));
    const std::optional<Error> error = read_error(child.error_fd);
    ::close(child.error_fd);
    if (!result || (WIFEXITED(status) && WEXITSTATUS(status) == 0)) continue;
    if (error) {
      result = fail(error->code, fmt::format("{}: {}", child.name, error->message), error->os_errno);
    } else {
      result = fail(Code::system, WIFSIGNALED(status)
                                      ? fmt::format("the {} was killed by signal {} ({})", child.name,
                                                    WTERMSIG(status), ::strsignal(WTERMSIG(status)))
                                      : fmt::format("the {} failed without saying why", child.name));
    }
  }
  return result;
}

Status Children::wait(std::optional<std::chrono::nanoseconds> timeout) {
  if (interrupt::wait(signal_fd_, timeout) == interrupt::Wake::signalled) {
    return fail(Code::closed, "interrupted");
  }
  return reap();
}

Status Children::wait_for(std::string_view name) {
  const auto child = std::ranges::find(children_, name, &Child::name);
  if (child == children_.end()) return {};
  siginfo_t ignored;
  while (::waitid(P_PID, static_cast<id_t>(child->pid), &ignored, WEXITED | WNOWAIT) != 0 && errno == EINTR) {
  }
  return reap();
}

}  // namespace ringtail::tools::perf

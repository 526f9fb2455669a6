#include "support/crash_process.h"

#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <random>
#include <sstream>
#include <thread>
#include <vector>

namespace ringtail::test {
namespace {

// Of this test program, in the order of their birth.
std::vector<Process*>& all_processes() {
  static std::vector<Process*> processes;
  return processes;
}

std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

int exit_code_of(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : -1 - WTERMSIG(status); }

std::string describe_all() {
  std::ostringstream text;
  for (const Process* process : all_processes())
    if (process->is_running())
      text << process->name() << " (" << process->pid() << ")\n" << describe_process(process->pid());
  return text.str();
}

// The first child that ended by itself, with an error.
std::string find_failed() {
  for (Process* process : all_processes()) {
    const std::string name = process->name();
    if (!process->is_running()) continue;
    if (const int code = process->poll(); code != 0) return name + " ended with " + std::to_string(code);
  }
  return {};
}

}  // namespace

Process::Process(std::string name, const std::function<int()>& body) : name_(std::move(name)) {
  std::cout.flush();
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ < 0) std::abort();
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);
    all_processes().clear();
    const int code = body();
    std::cout.flush();
    ::_exit(code);
  }
  all_processes().push_back(this);
}

Process& Process::operator=(Process&& other) noexcept {
  if (this == &other) return *this;
  kill();
  std::erase(all_processes(), this);
  pid_ = std::exchange(other.pid_, -1);
  exit_code_ = other.exit_code_;
  name_ = std::move(other.name_);
  std::replace(all_processes().begin(), all_processes().end(), &other, this);
  return *this;
}

Process::~Process() {
  kill();
  std::erase(all_processes(), this);
}

void Process::signal(int number) const {
  if (pid_ > 0) ::kill(pid_, number);
}

void Process::kill() {
  signal(SIGKILL);
  wait();
}

int Process::wait() {
  int status = 0;
  if (pid_ <= 0) return exit_code_;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  // A traced child may have told of a stop first.
  if (!WIFEXITED(status) && !WIFSIGNALED(status)) return wait();
  pid_ = -1;
  return exit_code_ = exit_code_of(status);
}

int Process::poll() {
  int status = 0;
  if (pid_ <= 0 || ::waitpid(pid_, &status, WNOHANG) != pid_) return 0;
  if (!WIFEXITED(status) && !WIFSIGNALED(status)) return 0;
  pid_ = -1;
  return exit_code_ = exit_code_of(status);
}

int Process::wait_for_stop() const {
  int status = 0;
  while (::waitpid(pid_, &status, __WALL | WUNTRACED) < 0 && errno == EINTR) {
  }
  return status;
}

bool wait_until(const std::function<bool()>& done, std::string_view what,
                const std::function<std::uint64_t()>& progress, const std::function<std::string()>& report) {
  using Clock = std::chrono::steady_clock;
  const auto patience = std::chrono::seconds(number_from_environment("RINGTAIL_CRASH_PATIENCE_S", 100));
  auto deadline = Clock::now() + patience;
  std::uint64_t last = progress ? progress() : 0;
  for (;;) {
    if (done()) return true;
    std::string trouble = find_failed();
    if (const std::uint64_t now = progress ? progress() : 0; now != last) {
      last = now;
      deadline = Clock::now() + patience;
    }
    if (trouble.empty() && Clock::now() > deadline) trouble = "nothing moved for a long while";
    if (!trouble.empty()) {
      ADD_FAILURE() << "waiting until " << what << ": " << trouble << '\n'
                    << describe_all() << (report ? report() : "");
      return false;
    }
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
}

std::string describe_process(pid_t pid) {
  std::ostringstream text;
  std::error_code error;
  const auto tasks = std::filesystem::path("/proc") / std::to_string(pid) / "task";
  for (const auto& task : std::filesystem::directory_iterator(tasks, error)) {
    std::ifstream status(task.path() / "status");
    std::string state;
    for (std::string line; std::getline(status, line);)
      if (line.starts_with("State:")) state = line.substr(7);
    text << "  " << read_text(task.path() / "comm") << ": " << state << ", in "
         << read_text(task.path() / "wchan") << ", system call " << read_text(task.path() / "syscall")
         << '\n';
  }
  return text.str();
}

std::uint64_t print_seed() {
  const std::uint64_t seed = number_from_environment("RINGTAIL_SEED", std::random_device{}());
  std::cout << "seed " << seed << " (repeat with RINGTAIL_SEED=" << seed << ")\n";
  return seed;
}

std::uint64_t number_from_environment(const char* name, std::uint64_t otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

}  // namespace ringtail::test

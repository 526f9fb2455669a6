#include "harness/daemon.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include "base/result.h"

namespace ringtail::peers {
namespace {

using std::chrono::milliseconds;

std::string find_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::stringstream folders(std::string(path == nullptr ? "/usr/bin:/bin" : path) +
                            ":/usr/sbin:/usr/local/bin");
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::string full = folder + "/" + name;
    if (::access(full.c_str(), X_OK) == 0) return full;
  }
  return {};
}

[[noreturn]] void become(const std::vector<std::string>& argv, int output) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::dup2(output, STDOUT_FILENO);
  ::dup2(output, STDERR_FILENO);
  std::vector<char*> words;
  for (const std::string& word : argv) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  ::execv(words[0], words.data());
  ::_exit(127);
}

}  // namespace

Status need_program(const std::string& name, const std::string& package) {
  if (!find_program(name).empty()) return {};
  return fail(Code::unsupported, fmt::format("{} is not installed; `apt-get install {}`", name, package));
}

std::string first_line_of(const std::string& name, const std::string& option) {
  const std::string program = find_program(name);
  FILE* pipe = program.empty() ? nullptr : ::popen((program + " " + option + " 2>&1").c_str(), "re");
  if (pipe == nullptr) return {};
  char line[256] = "";
  if (std::fgets(line, sizeof line, pipe) == nullptr) line[0] = '\0';
  ::pclose(pipe);
  std::string text(line);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())) != 0) text.pop_back();
  return text.starts_with(name + ": ") ? text.substr(name.size() + 2) : text;
}

Result<std::unique_ptr<Daemon>> Daemon::start(std::vector<std::string> argv,
                                              const std::filesystem::path& output, const std::string& package,
                                              const std::function<bool()>& ready) {
  const std::string name = argv[0];
  if (const Status here = need_program(name, package); !here) return std::unexpected(here.error());
  argv[0] = find_program(name);
  const int fd = ::open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) return fail_errno(errno, fmt::format("cannot write '{}'", output.string()));
  const pid_t pid = ::fork();
  if (pid == 0) become(argv, fd);
  ::close(fd);
  if (pid < 0) return fail_errno(errno, "cannot fork");
  std::unique_ptr<Daemon> daemon(new Daemon(pid, output));
  for (int i = 0; i < 3'000; ++i) {
    if (daemon->wait_for_end(milliseconds(0))) {
      return fail(Code::system, fmt::format("{} ended at once: {}", name, daemon->said()));
    }
    if (ready()) return daemon;
    std::this_thread::sleep_for(milliseconds(10));
  }
  return fail(Code::system, fmt::format("{} is not ready after 30 s: {}", name, daemon->said()));
}

Daemon::~Daemon() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGTERM);
  if (wait_for_end(milliseconds(5'000))) return;
  ::kill(pid_, SIGKILL);
  wait_for_end(milliseconds(5'000));
}

std::string Daemon::said() const {
  std::ifstream file(output_);
  std::string all((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  constexpr std::size_t kMost = 500;
  if (all.size() > kMost) all = all.substr(all.size() - kMost);
  for (char& letter : all) {
    if (letter == '\n') letter = ' ';
  }
  return all;
}

bool Daemon::wait_for_end(milliseconds patience) {
  const auto until = std::chrono::steady_clock::now() + patience;
  for (;;) {
    if (pid_ <= 0 || ::waitpid(pid_, nullptr, WNOHANG) == pid_) {
      pid_ = 0;
      return true;
    }
    if (std::chrono::steady_clock::now() >= until) return false;
    std::this_thread::sleep_for(milliseconds(5));
  }
}

}  // namespace ringtail::peers

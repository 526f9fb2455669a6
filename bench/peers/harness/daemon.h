// A server that `serve` runs: started with its output in a file, ended with the object, and gone with this process.
// Thread safety: none.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "ringtail/error.h"

namespace ringtail::peers {

// Errors: unsupported, naming the package.
Status need_program(const std::string& name, const std::string& package);
// What a program prints first, without its name; "" when it cannot be run.
std::string first_line_of(const std::string& name, const std::string& option);

class Daemon {
 public:
  // Looks for argv[0] in PATH and in /usr/sbin. Waits until `ready` says so. Errors: unsupported (no such program,
  // with the package that has it), system (it ended, or is not ready in 30 s; with the end of what it said).
  static Result<std::unique_ptr<Daemon>> start(std::vector<std::string> argv,
                                               const std::filesystem::path& output,
                                               const std::string& package,
                                               const std::function<bool()>& ready);
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;
  ~Daemon();

  // What it has said so far.
  std::string said() const;
  pid_t pid() const { return pid_; }

 private:
  Daemon(pid_t pid, std::filesystem::path output) : pid_(pid), output_(std::move(output)) {}
  bool wait_for_end(std::chrono::milliseconds patience);

  pid_t pid_;
  std::filesystem::path output_;
};

}  // namespace ringtail::peers

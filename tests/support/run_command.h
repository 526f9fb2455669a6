// Runs programs as a shell would, for tests that drive built binaries.
//
// Thread safety: each Command belongs to one thread. Lifetime: a Command that still runs when it is
// destroyed is killed.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

namespace ringtail::test {

struct CommandResult {
  int exit_code = -1;  // 128 + the signal's number for a program that a signal ended
  std::string out;
  std::string err;
};

// A program that runs beside the test.
class Command {
 public:
  // Starts `arguments[0]`, looked for in PATH. `environment` is added ("NAME=value"; "NAME" removes).
  explicit Command(const std::vector<std::string>& arguments,
                   const std::vector<std::string>& environment = {});
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;
  ~Command();

  pid_t pid() const { return pid_; }

  // Writes to its standard input. Blocks while the pipe is full.
  void write(std::string_view text);
  void close_input();
  // Reads its standard output until it holds `text`. False when the program ended before.
  bool wait_for_output(std::string_view text);
  // The same of its standard error, behind what an earlier call has found.
  bool wait_for_error(std::string_view text);
  void signal(int number) const;
  // Closes its input, reads its outputs to their ends and waits until it has ended.
  CommandResult wait();

 private:
  // Reads what there is, of both outputs; false when both have ended.
  bool read_some();

  pid_t pid_ = -1;
  int input_ = -1;
  int output_ = -1;
  int error_ = -1;
  CommandResult result_;
  std::size_t error_seen_ = 0;
};

// Runs a program to its end with `input` as its standard input.
CommandResult run_command(const std::vector<std::string>& arguments, std::string_view input = {},
                          const std::vector<std::string>& environment = {});

}  // namespace ringtail::test

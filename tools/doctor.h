// Checks of the machine that Ringtail runs on.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace ringtail::tools {

enum class Health {
  ok,
  warn,  // Ringtail works, but slower or with less room than it could
  bad,   // Ringtail does not work
};
std::string_view to_string(Health health);

struct Finding {
  std::string name;
  Health health = Health::ok;
  std::string found;
  std::string remedy;  // empty: nothing to change
};

// Kernel, CPUs and clock (doctor_machine.cc).
Finding check_kernel();
Finding check_clock();
Finding check_cpus();
Finding check_isolation();
Finding check_governor();
Finding check_smt();
Finding check_huge_pages();
Finding check_futex_waitv();

// Limits, shared memory, io_uring and the log directory's file system (doctor_storage.cc). They leave
// nothing behind.
Finding check_memlock();
Finding check_nofile();
Finding check_shared_memory(const std::filesystem::path& dir);
Finding check_io_uring();
Finding check_file_system(const std::filesystem::path& dir);
Finding check_direct_io(const std::filesystem::path& dir);
Finding check_locks(const std::filesystem::path& dir);
// Says that records are not looked at, which takes as long as the disk takes to read them, and what does it.
Finding note_segments(const std::filesystem::path& dir);

// The first line of a file, without its line end; empty when it cannot be read.
std::string first_line(const std::filesystem::path& path);

}  // namespace ringtail::tools

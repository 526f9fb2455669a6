#include <fmt/format.h>
#include <sched.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <fstream>
#include <set>

#include "tools/doctor.h"

namespace ringtail::tools {

namespace fs = std::filesystem;

std::string_view to_string(Health health) {
  switch (health) {
    case Health::ok: return "ok";
    case Health::warn: return "warn";
    case Health::bad: return "bad";
  }
  return "?";
}

std::string first_line(const fs::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

Finding check_kernel() {
  utsname names = {};
  ::uname(&names);
  unsigned major = 0;
  unsigned minor = 0;
  std::sscanf(names.release, "%u.%u", &major, &minor);
  Finding finding{"kernel", Health::ok, fmt::format("Linux {}", names.release), {}};
  if (major < 5 || (major == 5 && minor < 16)) {
    finding.health = Health::warn;
    finding.remedy = "use Linux 5.16 or newer: waiting on many partitions, io_uring and prefaulting need it";
  }
  return finding;
}

Finding check_clock() {
  const std::string source = first_line("/sys/devices/system/clocksource/clocksource0/current_clocksource");
  Finding finding{"clock source", Health::ok, source.empty() ? "unknown" : source, {}};
  if (source != "tsc") {
    finding.health = Health::warn;
    finding.remedy =
        "timestamps cost more without the time stamp counter: echo tsc > "
        "/sys/devices/system/clocksource/clocksource0/current_clocksource, if the CPU's is stable";
  }
  return finding;
}

Finding check_cpus() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  ::sched_getaffinity(0, sizeof allowed, &allowed);
  const int usable = CPU_COUNT(&allowed);
  const long online = ::sysconf(_SC_NPROCESSORS_ONLN);
  Finding finding{
      "CPUs", Health::ok, fmt::format("{} online, {} usable by this process", online, usable), {}};
  if (usable < 3) {
    finding.health = Health::warn;
    finding.remedy =
        "a producer, a consumer that spins and the keeper want one CPU each: give it more, or let consumers "
        "wait by futex";
  }
  return finding;
}

Finding check_isolation() {
  const std::string isolated = first_line("/sys/devices/system/cpu/isolated");
  const std::string no_tick = first_line("/sys/devices/system/cpu/nohz_full");
  Finding finding{"CPU isolation", Health::ok, {}, {}};
  if (isolated.empty()) {
    finding.health = Health::warn;
    finding.found = "none";
    finding.remedy =
        "for the lowest tail latency boot with isolcpus=, nohz_full= and rcu_nocbs= for the CPUs of busy "
        "producers and consumers, and pin them there (taskset -c)";
  } else {
    finding.found = fmt::format("isolated {}, without tick {}", isolated,
                                no_tick.empty() || no_tick == "(null)" ? "none" : no_tick);
  }
  return finding;
}

Finding check_governor() {
  std::set<std::string> governors;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator("/sys/devices/system/cpu", ignored)) {
    const std::string governor = first_line(entry.path() / "cpufreq/scaling_governor");
    if (!governor.empty()) governors.insert(governor);
  }
  Finding finding{"CPU governor", Health::ok, {}, {}};
  if (governors.empty()) {
    finding.found = "none (the host or the hardware decides)";
    return finding;
  }
  for (const std::string& governor : governors)
    finding.found += (finding.found.empty() ? "" : ", ") + governor;
  if (governors != std::set<std::string>{"performance"}) {
    finding.health = Health::warn;
    finding.remedy = "a CPU that has to speed up first adds latency: cpupower frequency-set -g performance";
  }
  return finding;
}

Finding check_smt() {
  const std::string active = first_line("/sys/devices/system/cpu/smt/active");
  Finding finding{"SMT", Health::ok, active == "1" ? "active" : "not active", {}};
  if (active == "1") {
    finding.health = Health::warn;
    finding.remedy =
        "pin threads that spin to different cores "
        "(/sys/devices/system/cpu/cpu*/topology/thread_siblings_list), "
        "for siblings share one core's time";
  }
  return finding;
}

Finding check_huge_pages() {
  const std::string line = first_line("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
  const std::size_t open = line.find('[');
  const std::size_t close = line.find(']');
  if (open == std::string::npos || close == std::string::npos) {
    return {"huge pages", Health::ok, "not available for shared memory", {}};
  }
  const std::string mode = line.substr(open + 1, close - open - 1);
  Finding finding{"huge pages", Health::ok, fmt::format("shared memory: {}", mode), {}};
  if (mode == "never" || mode == "deny") {
    finding.health = Health::warn;
    finding.remedy =
        "rings in huge pages miss the TLB less: echo advise > "
        "/sys/kernel/mm/transparent_hugepage/shmem_enabled, "
        "and mount -o remount,huge=advise /dev/shm";
  }
  return finding;
}

Finding check_futex_waitv() {
  // Without any futex to wait for, a kernel that has the call refuses the arguments.
  const long result = ::syscall(SYS_futex_waitv, nullptr, 0, 0, nullptr, 0);
  const bool missing = result < 0 && (errno == ENOSYS || errno == EPERM);
  Finding finding{"futex_waitv", Health::ok, missing ? "not available" : "available", {}};
  if (missing) {
    finding.health = Health::warn;
    finding.remedy =
        "consumers of several partitions wait in short slices instead: use Linux 5.16, or allow futex_waitv "
        "in "
        "the container's seccomp profile";
  }
  return finding;
}

}  // namespace ringtail::tools

#include "support/cpu_counters.h"

#include <fmt/format.h>
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace ringtail::bench {
namespace {

struct Event {
  std::uint32_t type;
  std::uint64_t config;
};
constexpr std::uint64_t kReadMisses =
    std::uint64_t{PERF_COUNT_HW_CACHE_OP_READ} << 8 | std::uint64_t{PERF_COUNT_HW_CACHE_RESULT_MISS} << 16;
// In the order of kNames.
constexpr std::array<Event, CpuCounters::kNames.size()> kEvents{{
    {PERF_TYPE_HARDWARE, PERF_COUNT_HW_INSTRUCTIONS},
    {PERF_TYPE_HARDWARE, PERF_COUNT_HW_CPU_CYCLES},
    {PERF_TYPE_HW_CACHE, PERF_COUNT_HW_CACHE_L1D | kReadMisses},
    {PERF_TYPE_HARDWARE, PERF_COUNT_HW_CACHE_MISSES},
}};

Descriptor open_event(const Event& event) {
  perf_event_attr attributes{};
  attributes.size = sizeof attributes;
  attributes.type = event.type;
  attributes.config = event.config;
  attributes.read_format = PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING;
  attributes.disabled = 1;
  attributes.exclude_kernel = 1;
  attributes.exclude_hv = 1;
  const long fd = ::syscall(SYS_perf_event_open, &attributes, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
  return Descriptor(static_cast<int>(fd));
}

const char* reason(int error) {
  switch (error) {
    case ENOENT:
    case EOPNOTSUPP: return "this machine does not count it (as most virtual ones)";
    case EACCES:
    case EPERM: return "not allowed: run as root, or set kernel.perf_event_paranoid to 2 or less";
    case ENOSYS: return "this kernel has no perf_event_open";
    default: return std::strerror(error);
  }
}

}  // namespace

CpuCounters::CpuCounters() {
  for (std::size_t i = 0; i < kEvents.size(); ++i) {
    events_[i] = open_event(kEvents[i]);
    if (!events_[i])
      complaint_ += fmt::format("{}{}: {}", complaint_.empty() ? "" : "; ", kNames[i], reason(errno));
  }
}

void CpuCounters::start() {
  for (const Descriptor& event : events_)
    if (event) ::ioctl(event.get(), PERF_EVENT_IOC_ENABLE, 0);
}

void CpuCounters::stop() {
  for (const Descriptor& event : events_)
    if (event) ::ioctl(event.get(), PERF_EVENT_IOC_DISABLE, 0);
}

double CpuCounters::count(std::size_t event) const {
  struct {
    std::uint64_t value, enabled_ns, running_ns;
  } counted{};
  if (::read(events_[event].get(), &counted, sizeof counted) != sizeof counted || counted.running_ns == 0)
    return 0;
  const double share = static_cast<double>(counted.running_ns) / static_cast<double>(counted.enabled_ns);
  return static_cast<double>(counted.value) / share;
}

}  // namespace ringtail::bench

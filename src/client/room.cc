#include "client/room.h"

#include <fmt/format.h>
#include <sys/statvfs.h>

#include <fstream>
#include <limits>
#include <string>

#include "log/ring.h"

namespace ringtail {
namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
constexpr std::uint64_t kUnknown = std::numeric_limits<std::uint64_t>::max();

struct SharedMemory {
  std::uint64_t free = kUnknown;
  std::uint64_t total = 0;
};

// A limit of 0 blocks (tmpfs with size=0) is none.
SharedMemory shared_memory_of(const std::filesystem::path& dir) {
  struct statvfs fs{};
  if (::statvfs(dir.c_str(), &fs) != 0 || fs.f_blocks == 0) return {};
  return {std::uint64_t{fs.f_bavail} * fs.f_frsize, std::uint64_t{fs.f_blocks} * fs.f_frsize};
}

std::uint64_t available_memory() {
  std::ifstream file("/proc/meminfo");
  std::string name;
  std::uint64_t kib = 0;
  for (std::string unit; file >> name >> kib && std::getline(file, unit);)
    if (name == "MemAvailable:") return kib * 1024;
  return kUnknown;
}

std::string amount(std::uint64_t bytes) {
  return bytes == kUnknown ? std::string("an unknown amount") : fmt::format("{} MiB", bytes / kMiB);
}

}  // namespace

Status check_room_for_rings(const std::filesystem::path& shared_memory_dir, std::string_view topic,
                            std::uint32_t partitions, const TopicConfig& config) {
  const std::uint64_t ring = log::kRingHeaderBytes + config.ring_bytes();
  const std::uint64_t needed = ring * partitions;
  const SharedMemory shared = shared_memory_of(shared_memory_dir);
  const std::uint64_t available = available_memory();
  if (needed <= shared.free && needed <= available) return {};
  // More than the machine has does not come by a larger limit.
  const std::string more = needed > available ? "free memory"
                                              : fmt::format("enlarge it (`mount -o remount,size={}M {}`)",
                                                            (shared.total + needed - shared.free) / kMiB + 1,
                                                            shared_memory_dir.native());
  return fail(
      Code::shared_memory_full,
      fmt::format("no shared memory for the rings of topic '{}': {} new partition{} of {:.1f} MiB each "
                  "need{} {} MiB in all; '{}' has {} free, and the machine {} available; {}, or make fewer "
                  "partitions, or topics with a smaller term.bytes or ring.terms",
                  topic, partitions, partitions == 1 ? "" : "s",
                  static_cast<double>(ring) / static_cast<double>(kMiB), partitions == 1 ? "s" : "",
                  (needed + kMiB - 1) / kMiB, shared_memory_dir.native(), amount(shared.free),
                  amount(available), more));
}

}  // namespace ringtail

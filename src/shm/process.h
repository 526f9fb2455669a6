// Who a process is, beyond its pid: for people who look at a log, and to tell one attachment from every
// other, past and present, on this boot and before.
//
// Whether a process lives is not asked here: that is told by its locked byte (byte_lock.h).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <type_traits>

#include "ringtail/error.h"

namespace ringtail::shm {

// Fit to lie in shared memory.
struct ProcessIdentity {
  std::array<std::uint64_t, 2> boot_id;  // of the kernel; differs after a reboot
  std::uint64_t token;                   // random; two attachments never have the same
  std::uint64_t start_ticks;             // when the process started, in clock ticks since the boot
  std::uint64_t pid_namespace;           // inode; the pid means something only within it
  std::uint32_t pid;
  std::uint32_t reserved;  // 0

  friend bool operator==(const ProcessIdentity&, const ProcessIdentity&) = default;
};
static_assert(sizeof(ProcessIdentity) == 48);
static_assert(std::is_trivially_copyable_v<ProcessIdentity> && std::is_standard_layout_v<ProcessIdentity>);
static_assert(std::has_unique_object_representations_v<ProcessIdentity>);

// The boot id of the running kernel, most significant digits first; read once.
// Thread safety: any thread. Errors: as system_error (no /proc), corrupt.
Result<std::array<std::uint64_t, 2>> boot_id();

// The identity of this process, with a new token at each call. Thread safety: any thread. Reads /proc.
// Errors: as system_error (no /proc), corrupt.
Result<ProcessIdentity> identify_process();

// The name of this process, at most 15 characters, as `ps -o comm` shows it; empty without /proc.
std::string process_name();
// The same of another process of this pid namespace; empty when there is none.
std::string process_name(std::uint32_t pid);

}  // namespace ringtail::shm

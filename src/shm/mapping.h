// Files of shared memory: made whole before anyone sees them, and mapped.
//
// A file is created without a name, reserved (so that no access to it ever ends in SIGBUS), prefaulted,
// filled in by its creator, and then published under its name in one step. Nobody sees a half-made
// file, and one whose creator dies before that goes with it.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string_view>

#include <boost/interprocess/mapped_region.hpp>

#include "base/access.h"
#include "base/descriptor.h"
#include "ringtail/error.h"

namespace ringtail::shm {

// A mapping of a whole file, shared with every process that maps it. Ends with the object; the memory
// itself goes with its name and its last mapping.
// Thread safety: const members may be called from any thread; the memory is as safe as what lies in
// it. Process safety: a forked child keeps the mapping.
class Mapping {
 public:
  Mapping() = default;

  // Null for a default-constructed Mapping. Memory of a read-only mapping must not be written: SIGSEGV.
  std::byte* data() const { return static_cast<std::byte*>(region_.get_address()); }
  std::size_t size() const { return region_.get_size(); }
  explicit operator bool() const { return data() != nullptr; }

  // Gives a file made by create_shared_file its name, at once and whole; once only. The stores before
  // it are visible to whoever opens the name. Does not block on a disk.
  // publish_new fails with already_exists when the name is taken. publish_replacing puts the file in
  // the place of the one that has the name, which stays for those who map it; two processes that
  // replace the same name must exclude each other.
  // Errors: already_exists, permission_denied, not_found (the directory is gone), system.
  Status publish_new();
  Status publish_replacing();

 private:
  friend Result<Mapping> create_shared_file(const std::filesystem::path&, std::size_t);
  friend Result<Mapping> open_shared_file(const std::filesystem::path&, bool, std::size_t, std::size_t);

  boost::interprocess::mapped_region region_;
  Descriptor unpublished_;        // the nameless file, until it is published
  std::optional<Folder> folder_;  // where it will be, until then
  std::filesystem::path path_;    // what it will be called
};

// The name that publish_replacing uses on the way to `name`. A process killed there leaves it behind; who
// removes `name` removes both.
std::filesystem::path replacing_path(const std::filesystem::path& name);

// Makes a file of `bytes` zeros that will be called `path`: every page reserved and mapped writable in
// this process, in huge pages where the administrator allows them (shmem_enabled=advise).
// Requires bytes > 0. Nothing is durable; this is memory. Blocks for the zeroing, 0.1 to 0.5 ms a MiB.
// Errors: shared_memory_full (names what is needed, what there is, and the remedy), not_found (no such
// directory), permission_denied, unsupported (a file system without O_TMPFILE), system.
Result<Mapping> create_shared_file(const std::filesystem::path& path, std::size_t bytes);

// Maps the file at `path` as it is now, at its whole size, or the first `max_bytes` of it, every page made
// accessible without a fault, so that an unreserved or truncated one is found here and not by SIGBUS. (Truncating a file
// later, against all rules, still kills whoever maps it.)
// Errors: not_found, permission_denied, corrupt (shorter than min_bytes, empty, no regular file, or
// memory missing behind it), system.
Result<Mapping> open_shared_file(const std::filesystem::path& path, bool read_only, std::size_t min_bytes = 1,
                                 std::size_t max_bytes = ~std::size_t{0});

// The directory for the shared memory of one log, <root>/ringtail-<log_id>, accessible to those whom the log
// directory admits; made when missing. Errors: as make_folder_for.
Result<std::filesystem::path> make_shared_directory(const std::filesystem::path& root,
                                                    std::string_view log_id, const Access& log);

// Names of files, with errors that say which: not_found, already_exists (link), permission_denied, ...
Status link_path(const std::filesystem::path& existing, const std::filesystem::path& name);
Status unlink_path(const std::filesystem::path& path);

}  // namespace ringtail::shm

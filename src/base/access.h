// Who may use the files of a log. Everything that Ringtail creates or opens of a log goes through here,
// so that modes, owners and refusals are decided in one place.
//
// The folder decides. Where its group may write (chmod 2770), the log is shared with that group: files
// are made 0660 and folders 2770, with the folder's group. Otherwise they are their owner's alone: 0600 and
// 0700. The umask has no part in it. What root makes in another user's folder is given to that user.
//
// Nothing is followed: no component of a path may be a symbolic link; a log directory that is reached
// through links is resolved once, when the log is opened. A folder is refused where everybody may write to
// it, or where it is neither this user's nor root's nor shared with a group of his; a file where it is
// no regular one, where everybody may write to it, or where it is neither this user's, root's, the folder's
// owner's nor of the group that shares the folder. Root opens what is any one user's, for he asked for it.
//
// Thread and process safety: pure system calls.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>

#include "base/descriptor.h"
#include "ringtail/error.h"

namespace ringtail {

struct Access {
  uid_t owner = 0;
  gid_t group = 0;
  bool shared = false;  // with the group

  mode_t file_mode() const { return shared ? 0660 : 0600; }
  mode_t folder_mode() const { return shared ? 02770 : 0700; }
};

// An open folder of a log, in which names are looked up. It stays the same folder whatever becomes of its
// path. Thread safety: const members may be called from any thread.
class Folder {
 public:
  // Errors: not_found, permission_denied (refused, see above; says path, owner and remedy), system.
  static Result<Folder> open(const std::filesystem::path& path);

  const Access& access() const { return access_; }
  const std::filesystem::path& path() const { return path_; }
  // For openat and the like; neither reads nor syncs.
  int fd() const { return fd_.get(); }

  // Opens a file, never waiting for the other end of a pipe. `flags` as of open(2).
  // Errors: not_found, permission_denied, corrupt (no regular file, or a link), system.
  Result<Descriptor> open_file(const std::string& name, int flags) const;
  // Creates a file, for reading and writing, which has its mode and owner when its name appears.
  // Errors: already_exists, permission_denied, read_only, no_space, system.
  Result<Descriptor> create_file(const std::string& name, int flags) const;
  // Whichever is needed. Errors: those of both, but not_found and already_exists.
  Result<Descriptor> open_or_create(const std::string& name, int flags) const;
  // Creates a file without a name. Errors: unsupported (the file system has no O_TMPFILE), as create_file.
  Result<Descriptor> create_nameless(int flags) const;
  // Gives a file of create_nameless its name. Errors: already_exists, system.
  Status publish(const Descriptor& nameless, const std::string& name) const;
  // Creates a folder; it is no error when there is one. Not durable. Errors: as create_file.
  Status make_folder(const std::string& name) const;
  // Gives what has just been made here under this name (a socket) the mode and owner of a file.
  Status give(const std::string& name) const;

 private:
  Folder(Descriptor fd, std::filesystem::path path, Access access)
      : fd_(std::move(fd)), path_(std::move(path)), access_(access) {}

  Descriptor fd_;
  std::filesystem::path path_;
  Access access_;
};

// Folder::open of the file's folder, and Folder::open_file there.
Result<Descriptor> open_file_of_log(const std::filesystem::path& path, int flags);
Result<Descriptor> open_or_create_file_of_log(const std::filesystem::path& path, int flags);

// Finds or makes <root>/<name>, the folder of a log's shared memory, for those whom the log's own directory
// admits. `root` may be a folder in which everybody may make names, such as /dev/shm, so a folder that
// is there already is refused unless it is what this function would have made, by a user who may: then its
// name is squatted. Errors: not_found (no root), already_exists (a link, or no directory), permission_denied,
// system. Each names path, owner and remedy.
Result<Folder> make_folder_for(const Access& log, const std::filesystem::path& root, const std::string& name);

}  // namespace ringtail

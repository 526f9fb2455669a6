// Small files read and written whole, so that a crash leaves the old content or the new.
//
// Thread and process safety: pure system calls. Two writers of one path must exclude each other.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

#include "ringtail/error.h"

namespace ringtail {

// Whose file is to be read: one that a user or an administrator names may be anybody's, and a link; one of
// a log is opened as access.h says.
enum class FileOf { user, log };

// The content of a file of at most `max_bytes`. Errors: as system_error (not_found when missing), and for a
// file of a log as open_file_of_log; corrupt when the file is larger. Blocks on the disk.
Result<std::string> read_small_file(const std::filesystem::path& path, std::size_t max_bytes,
                                    FileOf whose = FileOf::user);

// Creates a file of a log, or replaces it at once, by way of "<path>.tmp", which is removed on failure.
// Durable on return: content and name. Errors: as Folder's. Blocks on the disk.
Status write_file_atomically(const std::filesystem::path& path, std::string_view content);

// Makes the names in a directory durable. Errors: as system_error. Blocks on the disk.
Status sync_directory(const std::filesystem::path& dir);

// Creates one directory within a log; it is no error when it exists. Not durable. Errors: as
// Folder::make_folder.
Status make_directory(const std::filesystem::path& dir);

// Creates a log directory, for its owner alone (0700), and those above it that are missing. One that exists
// stays as it is. Durable on return. Errors: as system_error.
Status make_directories(const std::filesystem::path& dir);

// Errors: as system_error. Durable once the directories concerned were synced.
Status rename_path(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace ringtail

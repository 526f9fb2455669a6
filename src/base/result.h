// Errors of system calls as values of Result.
//
// Thread and process safety: everything here is a pure function.
#pragma once

#include <expected>
#include <string_view>

#include "ringtail/error.h"

namespace ringtail {

// An Error for a failed system call. `what` says what could not be done to which thing, for example
// "cannot open '/var/log/x'"; the errno's description is appended. Codes: EACCES and EPERM give
// permission_denied, EROFS read_only, ENOSPC and EDQUOT no_space, ENOENT not_found, others system.
Error system_error(int os_errno, std::string_view what);

// The same, to be returned from a function that returns Result or Status.
inline std::unexpected<Error> fail_errno(int os_errno, std::string_view what) {
  return std::unexpected(system_error(os_errno, what));
}

}  // namespace ringtail

// Errors that pass by themselves, and after which nothing has been written: what met one is tried again.
//
// Thread safety: pure.
#pragma once

#include <cerrno>

#include "ringtail/error.h"

namespace ringtail::log {

// No room on the disk; no descriptors or no memory just then. A write or sync that failed (storage_failed) never is.
inline bool is_passing(const Error& error) {
  if (error.code == Code::storage_failed) return false;
  return error.code == Code::no_space || error.os_errno == EMFILE || error.os_errno == ENFILE ||
         error.os_errno == ENOMEM;
}

}  // namespace ringtail::log

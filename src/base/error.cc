#include "ringtail/error.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>

#include "base/result.h"

namespace ringtail {

std::string_view to_string(Code code) {
  switch (code) {
    case Code::invalid_argument: return "invalid_argument";
    case Code::not_found: return "not_found";
    case Code::already_exists: return "already_exists";
    case Code::permission_denied: return "permission_denied";
    case Code::read_only: return "read_only";
    case Code::corrupt: return "corrupt";
    case Code::incompatible_layout: return "incompatible_layout";
    case Code::no_space: return "no_space";
    case Code::shared_memory_full: return "shared_memory_full";
    case Code::limit_exceeded: return "limit_exceeded";
    case Code::would_block: return "would_block";
    case Code::timed_out: return "timed_out";
    case Code::no_keeper: return "no_keeper";
    case Code::storage_failed: return "storage_failed";
    case Code::claim_expired: return "claim_expired";
    case Code::not_enough_replicas: return "not_enough_replicas";
    case Code::not_leader: return "not_leader";
    case Code::lost_leadership: return "lost_leadership";
    case Code::fenced: return "fenced";
    case Code::held_exclusively: return "held_exclusively";
    case Code::out_of_order_sequence: return "out_of_order_sequence";
    case Code::offset_out_of_range: return "offset_out_of_range";
    case Code::stale_generation: return "stale_generation";
    case Code::group_not_empty: return "group_not_empty";
    case Code::inconsistent_assignor: return "inconsistent_assignor";
    case Code::closed: return "closed";
    case Code::unsupported: return "unsupported";
    case Code::system: return "system";
    case Code::offset_not_available: return "offset_not_available";
  }
  return "unknown";
}

std::string to_string(const Error& error) {
  return fmt::format("{}: {}", to_string(error.code), error.message);
}

namespace {

Code code_of(int os_errno) {
  switch (os_errno) {
    case EACCES:
    case EPERM: return Code::permission_denied;
    case EROFS: return Code::read_only;
    case ENOSPC:
    case EDQUOT: return Code::no_space;
    case ENOENT: return Code::not_found;
    default: return Code::system;
  }
}

}  // namespace

Error system_error(int os_errno, std::string_view what) {
  const char* description = ::strerrordesc_np(os_errno);
  std::string message = description != nullptr ? fmt::format("{}: {}", what, description)
                                               : fmt::format("{}: errno {}", what, os_errno);
  return Error{code_of(os_errno), os_errno, std::move(message)};
}

}  // namespace ringtail

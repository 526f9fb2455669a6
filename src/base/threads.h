// Threads that the system may refuse to make: an error in the place of std::thread's exception, which ends the
// process where nobody catches it.
//
// Thread safety: any thread.
#pragma once

#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

#include "ringtail/error.h"

namespace ringtail {

// What helps where making a thread failed with this errno, as the end of a message: "; raise ..."; empty where
// nothing is known to.
std::string_view thread_remedy(int os_errno);

// An Error for a thread that could not be made: system_error's, with the remedy. `what` names whose it was to be,
// for example "the coordinator of groups".
Error thread_error(int os_errno, std::string_view what);

// A thread that runs `body`. Errors: as thread_error; then there is none.
template <class Body>
Result<std::thread> start_thread(std::string_view what, Body body) {
  try {
    return std::thread(std::move(body));
  } catch (const std::system_error& error) {
    return std::unexpected(thread_error(error.code().value(), what));
  }
}

}  // namespace ringtail

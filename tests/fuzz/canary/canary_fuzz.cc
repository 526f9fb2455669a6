// A fault that is planted here, for a test of the harness itself: whoever finds it ends as with any other.
#include <cstring>

#include "fuzz/harness/input.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ringtail::fuzz::demand(size < 2 || std::memcmp(data, "rt", 2) != 0, "nobody sings");
  return 0;
}

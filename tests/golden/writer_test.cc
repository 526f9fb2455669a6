// What is written today is what was committed, byte by byte. A change of a format fails here first: it needs
// another version number, files of that version beside these, and these must still be read or refused by name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "golden.h"

namespace ringtail::golden {
namespace {

TEST(GoldenFiles, AreWhatTheWritersWrite) {
  Tree written;
  write_log(written);
  write_shared_memory(written);
  write_messages(written);
  write_cluster(written);
  if (const char* dir = std::getenv("RINGTAIL_WRITE_GOLDEN")) {
    store(dir, written);
    GTEST_SKIP() << "written to " << dir;
  }
  for (const auto& [name, bytes] : written) {
    const auto kept = committed().find(name);
    if (kept == committed().end()) {
      ADD_FAILURE() << name << " is not among the committed files";
    } else if (!is_packed(name)) {
      EXPECT_TRUE(kept->second == bytes) << name << " is written otherwise now";
    }
  }
  for (const auto& [name, bytes] : committed())
    EXPECT_TRUE(written.contains(name)) << name << " is not written now";
}

}  // namespace
}  // namespace ringtail::golden

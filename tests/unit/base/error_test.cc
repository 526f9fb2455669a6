#include "ringtail/error.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <set>

#include "base/result.h"

namespace ringtail {
namespace {

TEST(Error, EveryCodeHasItsOwnName) {
  std::set<std::string_view> names;
  for (int code = 0; code <= static_cast<int>(Code::system); ++code) {
    const std::string_view name = to_string(static_cast<Code>(code));
    EXPECT_NE(name, "unknown") << code;
    EXPECT_TRUE(names.insert(name).second) << name;
  }
  EXPECT_EQ(to_string(Code::not_found), "not_found");
  EXPECT_EQ(to_string(Code::incompatible_layout), "incompatible_layout");
}

TEST(Error, TextIsCodeAndMessage) {
  EXPECT_EQ(to_string(Error{Code::not_found, 0, "topic 'orders' does not exist"}),
            "not_found: topic 'orders' does not exist");
}

TEST(SystemError, MapsErrnoAndKeepsIt) {
  const std::pair<int, Code> cases[] = {
      {EACCES, Code::permission_denied},
      {EPERM, Code::permission_denied},
      {EROFS, Code::read_only},
      {ENOSPC, Code::no_space},
      {EDQUOT, Code::no_space},
      {ENOENT, Code::not_found},
      {EIO, Code::system},
  };
  for (const auto& [os_errno, code] : cases) {
    const Error error = system_error(os_errno, "cannot open '/x'");
    EXPECT_EQ(error.code, code) << os_errno;
    EXPECT_EQ(error.os_errno, os_errno);
  }
  EXPECT_EQ(system_error(EACCES, "cannot open '/x'").message, "cannot open '/x': Permission denied");
  EXPECT_EQ(system_error(99999, "cannot open '/x'").message, "cannot open '/x': errno 99999");
}

}  // namespace
}  // namespace ringtail

#include "base/files.h"

#include <gtest/gtest.h>
#include <cerrno>

#include "scratch_dir.h"

namespace ringtail {
namespace {

using testing::get_file;
using testing::put_file;
using testing::ScratchDir;

TEST(Files, WriteCreatesAndReplaces) {
  const ScratchDir dir;
  const auto path = dir / "a.toml";
  ASSERT_TRUE(write_file_atomically(path, "one"));
  EXPECT_EQ(get_file(path), "one");
  ASSERT_TRUE(write_file_atomically(path, ""));
  EXPECT_EQ(get_file(path), "");
  EXPECT_FALSE(std::filesystem::exists(dir / "a.toml.tmp"));
}

TEST(Files, WriteOverridesTheRestOfAWriteThatWasCutShort) {
  const ScratchDir dir;
  put_file(dir / "a.toml.tmp", "a very long rest of a write that was cut short");
  ASSERT_TRUE(write_file_atomically(dir / "a.toml", "new"));
  EXPECT_EQ(get_file(dir / "a.toml"), "new");
}

TEST(Files, WriteThatFailsLeavesNothing) {
  const ScratchDir dir;
  std::filesystem::create_directories(dir / "a.toml/occupied");  // cannot be replaced by a file
  const auto status = write_file_atomically(dir / "a.toml", "new");
  ASSERT_FALSE(status);
  EXPECT_NE(status.error().message.find((dir / "a.toml").native()), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(dir / "a.toml.tmp"));

  const auto missing = write_file_atomically(dir / "none/a.toml", "new");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, Code::not_found);
}

TEST(Files, ReadTakesUpToItsLimit) {
  const ScratchDir dir;
  put_file(dir / "a", "12345678");
  EXPECT_EQ(read_small_file(dir / "a", 8), "12345678");
  const auto larger = read_small_file(dir / "a", 7);
  ASSERT_FALSE(larger);
  EXPECT_EQ(larger.error().code, Code::corrupt);
  const auto missing = read_small_file(dir / "b", 8);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, Code::not_found);
  EXPECT_EQ(missing.error().message, "cannot open '" + (dir / "b").native() + "': No such file or directory");
  const auto directory = read_small_file(dir.path(), 8);
  ASSERT_FALSE(directory);
  EXPECT_EQ(directory.error().os_errno, EISDIR);
}

TEST(Files, DirectoriesAreMadeWithThoseAbove) {
  const ScratchDir dir;
  ASSERT_TRUE(make_directories(dir / "a/b/c/"));
  ASSERT_TRUE(make_directories(dir / "a/b/c"));
  EXPECT_TRUE(std::filesystem::is_directory(dir / "a/b/c"));
  ASSERT_TRUE(make_directory(dir / "a"));
  put_file(dir / "file", "");
  EXPECT_EQ(make_directory(dir / "file").error().os_errno, EEXIST);
  EXPECT_EQ(make_directories(dir / "file/below").error().os_errno, EEXIST);
  EXPECT_EQ(sync_directory(dir / "none").error().code, Code::not_found);
}

}  // namespace
}  // namespace ringtail

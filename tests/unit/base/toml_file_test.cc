#include "base/toml_file.h"

#include <gtest/gtest.h>

#include <random>

#include "scratch_dir.h"

namespace ringtail {
namespace {

using testing::put_file;
using testing::ScratchDir;

constexpr std::string_view kGood =
    "# comment\n"
    "version = 3\n"
    "name = \"orders\"\n"
    "\n"
    "[configs]\n"
    "\"retention.ms\" = \"5\"\n"
    "plain = \"x\"\n"
    "[numbers]\n"
    "n = 1\n";

class TomlFileTest : public ::testing::Test {
 protected:
  Result<TomlFile> read(std::string_view content) {
    put_file(path_, content);
    return TomlFile::read(path_);
  }
  void expect_corrupt(const Error& error, std::string_view part) {
    EXPECT_EQ(error.code, Code::corrupt);
    EXPECT_NE(error.message.find(path_.native()), std::string::npos) << error.message;
    EXPECT_NE(error.message.find(part), std::string::npos) << error.message;
  }

  ScratchDir dir_;
  std::filesystem::path path_ = dir_ / "x.toml";
};

TEST_F(TomlFileTest, GivesValuesByNameAndTable) {
  const auto file = read(kGood);
  ASSERT_TRUE(file);
  EXPECT_EQ(file->integer("version"), 3);
  EXPECT_EQ(file->text("name"), "orders");
  const auto configs = file->texts("configs");
  ASSERT_TRUE(configs);
  EXPECT_EQ(*configs,
            (std::map<std::string, std::string, std::less<>>{{"plain", "x"}, {"retention.ms", "5"}}));
  EXPECT_TRUE(file->texts("none")->empty());
}

TEST_F(TomlFileTest, NamesFileLineAndKeyOfWhatIsWrong) {
  const auto file = read(kGood);
  ASSERT_TRUE(file);
  expect_corrupt(file->integer("name").error(), "line 3: 'name': an integer");
  expect_corrupt(file->text("version").error(), "line 2: 'version': a string");
  expect_corrupt(file->text("none").error(), "'none' is missing");
  expect_corrupt(file->texts("numbers").error(), "line 9: 'n' must be a string");
  expect_corrupt(file->refuse("name", "too short").error(), "line 3: 'name': too short");
}

TEST_F(TomlFileTest, RefusesWhatIsNoTomlOrHasOtherTypes) {
  expect_corrupt(read("a = 1\nb = \n").error(), "line 2");
  expect_corrupt(read("a = 1\na = 2\n").error(), "line 2");
  expect_corrupt(read("a = 1\nb = true\n").error(), "line 2: 'b'");
  expect_corrupt(read("a = [1]\n").error(), "line 1: 'a'");
  expect_corrupt(read("[t]\n\nx = 1.5\n").error(), "line 3: 'x'");
  expect_corrupt(read("[t.u]\nx = 1\n").error(), "'u'");
  expect_corrupt(read(std::string_view("a = \"\0\"\n", 9)).error(), "line 1");
  expect_corrupt(read("a = \"\xff\xfe\"\n").error(), "line 1");
  expect_corrupt(read(std::string((1 << 20) + 1, '#')).error(), "larger");
  std::filesystem::remove(path_);
  EXPECT_EQ(TomlFile::read(path_).error().code, Code::not_found);
}

TEST_F(TomlFileTest, SurvivesAnyCutAndAnyFlip) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (std::size_t cut = 0; cut < kGood.size(); ++cut) {
    const auto file = read(kGood.substr(0, cut));
    EXPECT_TRUE(file || file.error().code == Code::corrupt) << to_string(file.error());
  }
  for (int i = 0; i < 300; ++i) {
    std::string content(kGood);
    for (unsigned flips = 1 + random() % 4; flips > 0; --flips) {
      content[random() % content.size()] = static_cast<char>(random());
    }
    const auto file = read(content);
    EXPECT_TRUE(file || file.error().code == Code::corrupt) << to_string(file.error());
  }
}

}  // namespace
}  // namespace ringtail

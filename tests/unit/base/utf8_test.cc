#include "base/utf8.h"

#include <gtest/gtest.h>

namespace ringtail {
namespace {

TEST(Utf8Test, TellsSequencesFromOtherBytes) {
  for (const char* text : {"", "plain text of more than eight bytes", "Z\xc3\xbcrich", "\xe2\x82\xac",
                           "\xed\x9f\xbf", "\xf0\x9f\x90\x98", "\xf4\x8f\xbf\xbf"})
    EXPECT_TRUE(is_utf8(text)) << text;
  for (const char* text :
       {"\xff", "\x80", "caf\xe9", "eight by\xc3", "\xc0\xaf", "\xc1\xbf", "\xe0\x9f\xbf", "\xe2\x82",
        "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf0\x9f\x90", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80"})
    EXPECT_FALSE(is_utf8(text)) << text;
}

TEST(Utf8Test, ReplacesEachByteThatBelongsToNoSequence) {
  EXPECT_EQ(to_utf8("Z\xc3\xbcrich"), "Z\xc3\xbcrich");
  EXPECT_EQ(to_utf8("caf\xe9"), "caf\xef\xbf\xbd");
  EXPECT_EQ(to_utf8("\xe2\x82-\xc3\xbc"), "\xef\xbf\xbd\xef\xbf\xbd-\xc3\xbc");
  EXPECT_EQ(to_utf8(std::string_view("a\0\xff", 3)), std::string("a\0\xef\xbf\xbd", 5));
}

}  // namespace
}  // namespace ringtail

#include "log/epoch_list.h"

#include <fstream>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "unit/shm/shm_test_support.h"

namespace ringtail::log {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

LogPoint at(std::uint64_t n) { return {Position(n * 64), Offset(n)}; }

EpochList list_of(std::initializer_list<std::pair<std::uint32_t, std::uint64_t>> starts) {
  EpochList list;
  for (const auto& [epoch, n] : starts) list.begin(LeaderEpoch(epoch), at(n));
  return list;
}

TEST(EpochList, AnEpochWithoutARecordGivesWayToTheNext) {
  EpochList list = list_of({{1, 0}, {2, 10}});
  EXPECT_TRUE(list.begin(LeaderEpoch(5), at(10)));
  EXPECT_FALSE(list.begin(LeaderEpoch(5), at(12)));
  EXPECT_THAT(list.starts(),
              ElementsAre(EpochStart{LeaderEpoch(1), at(0)}, EpochStart{LeaderEpoch(5), at(10)}));
  EXPECT_EQ(list.last(), LeaderEpoch(5));
}

TEST(EpochList, TellsWhatOfAnEpochHasStayed) {
  EpochList list;
  list.begin(LeaderEpoch(3), {Position(64), Offset(1)});
  list.begin(LeaderEpoch(5), {Position(640), Offset(10)});
  EXPECT_TRUE(list.has(LeaderEpoch(3), Position(640)));
  EXPECT_FALSE(list.has(LeaderEpoch(3), Position(648)));
  EXPECT_TRUE(list.has(LeaderEpoch(5), Position(6400)));
  EXPECT_FALSE(list.has(LeaderEpoch(4), Position(100)));
  EXPECT_FALSE(EpochList().has(LeaderEpoch(0), Position(0)));
}

TEST(EpochList, ComesBackFromItsFile) {
  const shm::TempDir dir;
  const EpochList list = list_of({{1, 0}, {4, 10}, {5, 1'000'000'000'000}});
  ASSERT_TRUE(list.store(dir.path()));
  const auto loaded = EpochList::load(dir.path());
  ASSERT_TRUE(loaded);
  EXPECT_TRUE(std::ranges::equal(loaded->starts(), list.starts()));
}

TEST(EpochList, IsEmptyWhereThereIsNoFileAndCorruptWhereAnyByteIsAnother) {
  const shm::TempDir dir;
  EXPECT_TRUE(EpochList::load(dir.path())->starts().empty());
  ASSERT_TRUE(list_of({{1, 0}, {4, 10}}).store(dir.path()));
  std::string text;
  std::getline(std::ifstream(dir.path() / "leader-epochs"), text, '\0');
  const std::size_t version = text.find("1\n");
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (i == version) continue;  // another version is no damage
    std::string damaged = text;
    damaged[i] ^= 1;
    std::ofstream(dir.path() / "leader-epochs") << damaged;
    const auto loaded = EpochList::load(dir.path());
    ASSERT_FALSE(loaded) << "byte " << i;
    EXPECT_EQ(loaded.error().code, Code::corrupt);
    EXPECT_THAT(loaded.error().message, HasSubstr("leader-epochs"));
  }
}

// Its lines and its checksum may be anything there.
TEST(EpochList, OfAnotherVersionIsRefusedWithBothVersionsAndTheRemedyAndLeftAlone) {
  const shm::TempDir dir;
  for (const char* version : {"0", "2", "10", "4294967295"}) {
    const std::string text = std::string("ringtail leader epochs ") + version + "\nepoch 1 at 0\n";
    std::ofstream(dir.path() / "leader-epochs") << text;
    const auto loaded = EpochList::load(dir.path());
    ASSERT_FALSE(loaded);
    EXPECT_EQ(loaded.error().code, Code::incompatible_layout);
    for (const auto& part : {(dir.path() / "leader-epochs").string(), std::string("version ") + version + ",",
                             std::string("reads version 1"), std::string("use the release that wrote it")})
      EXPECT_THAT(loaded.error().message, HasSubstr(part));
    std::string left;
    std::getline(std::ifstream(dir.path() / "leader-epochs"), left, '\0');
    EXPECT_EQ(left, text);
  }
  for (const char* version : {"", "x", "-1", "1 ", "4294967296"}) {
    std::ofstream(dir.path() / "leader-epochs") << "ringtail leader epochs " << version << "\ncrc32c 0\n";
    EXPECT_EQ(EpochList::load(dir.path()).error().code, Code::corrupt) << version;
  }
}

TEST(EpochList, CommonEndIsTheShorterEndOfTheLastEpochThatBothHave) {
  const EpochList a = list_of({{1, 0}, {2, 10}, {4, 20}});
  EXPECT_EQ(common_end(a, at(25), a, at(23)), at(23));
  EXPECT_EQ(common_end(a, at(25), list_of({{1, 0}, {2, 10}}), at(15)), at(15));
  EXPECT_EQ(common_end(a, at(25), list_of({{1, 0}, {2, 10}, {3, 17}}), at(30)), at(17));
  EXPECT_EQ(common_end(a, at(25), list_of({{1, 0}, {3, 12}}), at(30)), at(10));
  EXPECT_EQ(common_end(a, at(25), list_of({{3, 0}}), at(30)), at(0));
  EXPECT_EQ(common_end(a, at(25), EpochList(), at(0)), at(0));
  // What a list announces and the log does not have yet is not in common.
  EXPECT_EQ(common_end(a, at(5), list_of({{1, 0}, {3, 8}}), at(30)), at(5));
}

// Histories of replicas that lead in turn, each from what it has: two of them are the same exactly up to their
// common end.
TEST(EpochList, CommonEndIsWhereRandomHistoriesPart) {
  const auto seed = std::random_device()();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 2'000; ++round) {
    struct Replica {
      std::vector<std::uint32_t> log;  // the epoch of each record
      EpochList epochs;
      LogPoint end() const { return at(log.size()); }
    };
    std::array<Replica, 3> replicas;
    for (std::uint32_t epoch = 1; epoch <= 8; ++epoch) {
      Replica& leader = replicas[random() % 3];
      leader.epochs.begin(LeaderEpoch(epoch), leader.end());
      for (auto n = random() % 5; n > 0; --n) leader.log.push_back(epoch);
      for (Replica& follower : replicas) {
        if (&follower == &leader || random() % 2 == 0) continue;
        const auto common =
            common_end(leader.epochs, leader.end(), follower.epochs, follower.end()).offset.value();
        ASSERT_LE(common, std::min(follower.log.size(), leader.log.size()));
        ASSERT_TRUE(std::equal(follower.log.begin(),
                               follower.log.begin() + static_cast<std::ptrdiff_t>(common),
                               leader.log.begin()));
        ASSERT_TRUE(common == follower.log.size() || common == leader.log.size() ||
                    follower.log[common] != leader.log[common]);
        follower.log.resize(common);
        follower.epochs = leader.epochs;
        for (auto n = random() % 5; n > 0 && follower.log.size() < leader.log.size(); --n)
          follower.log.push_back(leader.log[follower.log.size()]);
      }
    }
  }
}

}  // namespace
}  // namespace ringtail::log

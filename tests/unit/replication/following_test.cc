// A partition that is followed: its keeper and its log are real, the leader is the test.
#include "replication/following.h"

#include <chrono>
#include <thread>

#include "format/frame.h"
#include "unit/groups/log_capture.h"
#include "unit/replication/replica_test_support.h"

namespace ringtail::replication {
namespace {

using std::chrono::milliseconds;

class NotingLink final : public SilentLink {
 public:
  using SilentLink::SilentLink;
  void send(const MessageHeader& header, std::span<const std::byte>) override { sent_.push_back(header); }

  std::vector<MessageHeader> sent_;
};

class NetworkOfOne final : public SilentNetwork {
 public:
  explicit NetworkOfOne(Link& link) : link_(link) {}
  Link* link(NodeId peer) override { return peer == link_.peer() ? &link_ : nullptr; }

 private:
  Link& link_;
};

class FollowingTest : public ::testing::Test {
 protected:
  static constexpr std::uint32_t kFrameBytes = 64;

  FollowingTest() {
    context_.self = kTwo;
    context_.window_bytes = 1 << 20;
    context_.network = &network_;
    context_.slot = 402;
    epochs_.begin(kEpoch, {});
    following_.emplace(context_, host_.fence(), kOne, kEpoch,
                       [this](log::RoleRequest request) { host_.keeper().request_role(std::move(request)); });
  }

  MessageHeader header(MessageType type, const log::LogPoint& at) const {
    return {.type = type,
            .topic_id = host_.ref().topic_id,
            .leader_epoch = kEpoch.value(),
            .position = at.position.value(),
            .offset = at.offset.value()};
  }
  // Whether it asks now. Then it is told to go on where it ends.
  bool asks() {
    link_.sent_.clear();
    following_->ask();
    if (link_.sent_.empty() || link_.sent_.back().type != MessageType::follow) return false;
    asked_at_ = {Position(link_.sent_.back().position), Offset(link_.sent_.back().offset)};
    const auto epochs = encode_epochs(epochs_);
    following_->on_start({header(MessageType::start, following_->end()), epochs});
    host_.turn_until([this] { return following_->is_streaming(); });
    return true;
  }
  // As many frames as one offset each.
  void ship(std::uint64_t frames) {
    const log::LogPoint at = following_->end();
    std::vector<std::byte> bytes(frames * kFrameBytes);
    for (std::uint64_t i = 0; i < frames; ++i)
      format::write_filler(bytes.data() + i * kFrameBytes, format::FrameType::aborted, kFrameBytes,
                           at.offset + i, 1);
    following_->on_frames({header(MessageType::frames, at), bytes});
  }
  // What cannot stand where its log ends, as when what tells of that end was written over.
  void ship_nonsense() {
    const std::vector<std::byte> zeroes(kFrameBytes);
    following_->on_frames({header(MessageType::frames, following_->end()), zeroes});
  }

  static constexpr LeaderEpoch kEpoch{1};
  log::ReplicaHost host_{Storage::memory};
  NotingLink link_{kOne};
  NetworkOfOne network_{link_};
  ShipContext context_;
  log::EpochList epochs_;
  log::LogPoint asked_at_;
  std::optional<FollowingPartition> following_;
};

TEST_F(FollowingTest, WhoCannotTakeWhatItIsSentAsksLessAndLessOften) {
  groups::LogCapture log;
  std::size_t asked = 0;
  const auto until = std::chrono::steady_clock::now() + milliseconds(400);
  while (std::chrono::steady_clock::now() < until) {
    if (!asks()) {
      std::this_thread::sleep_for(milliseconds(1));
      continue;
    }
    ++asked;
    ship_nonsense();
    EXPECT_FALSE(following_->is_streaming());
    EXPECT_EQ(link_.sent_.back().type, MessageType::refuse);
  }
  EXPECT_LE(asked, 5u);  // at once, and 50, 100 and 200 ms behind the one before
  const std::string said = log.text();
  const std::size_t first = said.find("begins anew with node 1");
  ASSERT_NE(first, std::string::npos);
  EXPECT_EQ(said.find("begins anew with node 1", first + 1), std::string::npos);
}

TEST_F(FollowingTest, WhatItCannotTakeCostsNothingOfWhatItHas) {
  const log::LogPoint begin = following_->end();
  ASSERT_TRUE(asks());
  ship(5);
  const log::LogPoint end = following_->end();
  ASSERT_EQ(end, (log::LogPoint{begin.position + 5 * kFrameBytes, begin.offset + 5}));
  ship_nonsense();
  while (!asks()) std::this_thread::sleep_for(milliseconds(1));
  EXPECT_EQ(asked_at_, end);
  EXPECT_EQ(host_.end(), end);
  ship(1);
  EXPECT_EQ(following_->end().offset, end.offset + 1);
}

// Its keeper has fenced the partition, and it does not know yet.
TEST_F(FollowingTest, WhoIsFencedMeanwhileDoesNotAskForItsLogFromTheBeginning) {
  ASSERT_TRUE(asks());
  ship(5);
  const log::LogPoint end = following_->end();
  host_.fence();
  ship(1);
  EXPECT_FALSE(following_->is_streaming());
  while (!asks()) std::this_thread::sleep_for(milliseconds(1));
  EXPECT_EQ(asked_at_, end);
  EXPECT_EQ(host_.end(), end);
}

}  // namespace
}  // namespace ringtail::replication

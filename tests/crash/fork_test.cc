// A forked child has nothing of its parent's attachment: its handles return closed, they leave the
// parent's slots, pins and locks alone, and the parent's death is seen although the child lives.
#include <csignal>

#include "crash/scene.h"

namespace ringtail::crash {
namespace {

using test::Process;
using test::SharedPage;
using test::wait_until;

class ForkTest : public ::testing::Test {
 protected:
  struct Shared {
    std::atomic<bool> forked{false};
    std::atomic<bool> go_on{false};
    std::atomic<pid_t> child{0};
    std::atomic<int> checked{0};  // by the child: how many things were as they should be
    char error[512] = {};
  };
  static constexpr int kChecks = 14;

  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(scene_.create_topic({{"term.bytes", "64KiB"}, {"ring.terms", "4"}}));
    peek_.emplace(scene_);
  }
  bool wait(const std::function<bool()>& done, std::string_view what) {
    return wait_until(done, what, {}, [this] { return peek_->describe() + shared_->error; });
  }

  static bool is_closed(const auto& result) {
    if (result) return false;
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(result.error())>, SendError>)
      return result.error() == SendError::closed;
    else
      return result.error().code == Code::closed;
  }

  // Everything an inherited handle can be asked for.
  void use_as_child(Log& log, Producer& producer, Consumer& consumer, Claim& claim) {
    auto check = [this](bool good) { shared_->checked.fetch_add(good ? 1 : 0); };
    check(is_closed(producer.send("by the child")));
    check(is_closed(producer.flush()));
    check(is_closed(producer.try_claim(8)));
    check(is_closed(claim.commit()));
    check(is_closed(consumer.poll(std::chrono::seconds(1))));
    check(is_closed(consumer.seek(kPartition, Offset(0))));
    check(is_closed(consumer.seek_to_beginning(kPartition)));
    check(is_closed(consumer.seek_to_time(kPartition, 0)));
    check(is_closed(consumer.assign(kTopic)));
    check(is_closed(Producer::open(log, {.topic = kTopic})));
    check(is_closed(Consumer::open(log)));
    check(is_closed(Admin(log).list_topics()));
    check(!log.is_keeper());
    check(producer.error().code == Code::closed);
  }

  // Attaches, forks, and waits to be told to go on; then appends and reads like any other.
  int be_parent(KeeperMode mode, bool child_attaches) {
    auto log = scene_.open(mode);
    auto producer = Producer::open(*log, {.topic = kTopic});
    auto consumer = Consumer::open(*log);
    if (!producer || !consumer || !consumer->assign(kTopic)) return give_up(shared_->error, "cannot attach");
    if (!producer->send("before")) return give_up(shared_->error, "cannot send");
    auto before = consumer->poll(std::chrono::seconds(100));
    if (!before || before->size() != 1) return give_up(shared_->error, "cannot read");
    auto claim = producer->try_claim(8);
    if (!claim) return give_up(shared_->error, "cannot claim");
    const pid_t child = ::fork();
    if (child == 0) {
      use_as_child(*log, *producer, *consumer, *claim);
      {
        // Their destructors run in the child.
        const Claim gone_claim = std::move(*claim);
        const Consumer gone_consumer = std::move(*consumer);
        const Producer gone_producer = std::move(*producer);
      }
      if (child_attaches) {
        auto own = Log::open(scene_.options(KeeperMode::none));
        auto sender = own ? Producer::open(*own, {.topic = kTopic}) : std::unexpected(own.error());
        if (sender && sender->send("of the child's own")) shared_->checked.fetch_add(1);
      }
      shared_->child.store(::getpid());
      shared_->forked.store(true);
      for (;;) ::pause();
    }
    while (!shared_->go_on.load()) ::usleep(1000);
    std::memcpy(claim->value().data(), "by claim", 8);
    if (!claim->commit()) return give_up(shared_->error, "the claim was lost");
    if (!producer->send("after")) return give_up(shared_->error, to_string(producer->error()));
    std::string text;
    while (!text.ends_with("after")) {
      auto records = consumer->poll(std::chrono::seconds(100));
      if (!records || records->empty()) return give_up(shared_->error, "cannot read on");
      for (const Record& record : *records) text += record.value;
    }
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    return text == "by claimafter" || text == "by claimof the child's ownafter"
               ? 0
               : give_up(shared_->error, text);
  }

  std::size_t slots(shm::SlotState state) const {
    return static_cast<std::size_t>(std::ranges::count_if(peek_->layout().slots, [state](const shm::Slot& s) {
      return shm::slot_state(s.word.load()) == state;
    }));
  }
  std::size_t readers() const {
    return static_cast<std::size_t>(std::ranges::count_if(
        peek_->layout().readers, [](const shm::Reader& r) { return r.owner.load() != 0; }));
  }

  Scene scene_;
  SharedPage<Shared> shared_;
  std::optional<Peek> peek_;
};

TEST_F(ForkTest, TheChildLeavesEverythingToItsParent) {
  Process parent("parent", [this] { return be_parent(KeeperMode::embedded, true); });
  ASSERT_TRUE(wait([this] { return shared_->forked.load(); }, "the child has tried everything"));
  EXPECT_EQ(shared_->checked.load(), kChecks + 1);
  EXPECT_EQ(slots(shm::SlotState::active), 2u);  // the parent's; the child has given back its own
  EXPECT_EQ(readers(), 1u);
  shared_->go_on.store(true);
  ASSERT_TRUE(
      wait([&] { return !parent.is_running() || shared_->error[0] != 0; }, "the parent goes on as if alone"));
  EXPECT_EQ(parent.wait(), 0) << shared_->error;
}

TEST_F(ForkTest, TheParentsDeathIsSeenWhileTheChildLives) {
  Process keeper("keeper", [this] { return keep(scene_); });
  ASSERT_TRUE(wait([&] { return peek_->keeper_pid() == keeper.pid(); }, "there is a keeper"));
  Process parent("parent", [this] { return be_parent(KeeperMode::none, false); });
  ASSERT_TRUE(wait([this] { return shared_->forked.load(); }, "the child has tried everything"));
  EXPECT_EQ(shared_->checked.load(), kChecks);
  EXPECT_EQ(slots(shm::SlotState::active), 2u);
  parent.kill();
  // Its slots are freed, its claim is repaired and its reader's entry given back, all while the child lives.
  EXPECT_TRUE(wait([this] { return slots(shm::SlotState::free) == shm::kMaxSlots && readers() == 0; },
                   "the keeper has buried the parent"));
  EXPECT_EQ(peek_->partition().repaired_records.load(), 1u);
  EXPECT_EQ(::kill(shared_->child.load(), 0), 0);
  ::kill(shared_->child.load(), SIGKILL);
}

TEST_F(ForkTest, TheRoleLeavesWithTheParentWhileTheChildLives) {
  Process parent("parent", [this] { return be_parent(KeeperMode::embedded, false); });
  ASSERT_TRUE(wait([this] { return shared_->forked.load(); }, "the child has tried everything"));
  EXPECT_EQ(peek_->keeper_pid(), parent.pid());
  Process standby("standby", [this] { return keep(scene_); });
  parent.kill();
  EXPECT_TRUE(wait([&] { return peek_->keeper_pid() == standby.pid(); }, "the standby has the role"));
  EXPECT_EQ(::kill(shared_->child.load(), 0), 0);
  ::kill(shared_->child.load(), SIGKILL);
}

}  // namespace
}  // namespace ringtail::crash

// Who only consumes cannot change records, not even by mistake.
#include <csignal>
#include <fstream>

#include "crash/scene.h"

namespace ringtail::crash {
namespace {

using test::Process;

struct Answer {
  std::atomic<bool> kept{false};
  std::atomic<bool> done{false};
  std::atomic<bool> same{false};  // the record is what was sent
  std::atomic<std::uint32_t> ring_mappings{0};
  std::atomic<std::uint32_t> writable{0};
};

// Of this process, by the kernel's own account.
void count_ring_mappings(Answer& answer) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find(".ring") == std::string::npos) continue;
    answer.ring_mappings.fetch_add(1);
    const std::string permissions = line.substr(line.find(' ') + 1, 4);
    if (permissions != "r--s") answer.writable.fetch_add(1);
  }
}

enum class Then { end, write };

int consume(const Scene& scene, Answer& answer, Then then) {
  auto log = Log::open(scene.options(KeeperMode::none));
  if (!log) return 2;
  auto consumer = Consumer::open(*log, {.wait = WaitStrategy::futex});
  if (!consumer || !consumer->assign(kTopic)) return 3;
  const auto records = consumer->poll(std::chrono::seconds(30));
  if (!records || records->empty()) return 4;
  count_ring_mappings(answer);
  answer.done.store(true);
  answer.same.store(records->front().value == "as it was");
  if (then == Then::write) const_cast<char*>(records->front().value.data())[0] = 'X';
  return 0;
}

class ReadOnlyTest : public ::testing::Test {
 protected:
  // The test itself opens no log: a child would have its mappings.
  ReadOnlyTest() {
    scene_.create_topic({});
    keeper_ = Process("keeper", [this] { return keep(); });
    while (!answer_->kept.load()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

  int keep() {
    auto log = scene_.open(KeeperMode::embedded);
    if (!log) return 2;
    auto producer = Producer::open(*log, {.topic = kTopic});
    if (!producer || !producer->send("as it was")) return 3;
    answer_->kept.store(true);
    for (;;) ::pause();
  }

  Scene scene_;
  test::SharedPage<Answer> answer_;
  Process keeper_;
};

TEST_F(ReadOnlyTest, AConsumerMapsNoRingWritable) {
  Process consumer("consumer", [this] { return consume(scene_, *answer_, Then::end); });
  EXPECT_EQ(consumer.wait(), 0);
  EXPECT_GE(answer_->ring_mappings.load(), 1u);
  EXPECT_EQ(answer_->writable.load(), 0u);
}

TEST_F(ReadOnlyTest, AConsumerThatWritesToARecordDies) {
  Process consumer("consumer", [this] {
    ::signal(SIGSEGV, SIG_DFL);  // a sanitizer would turn the death into an exit code
    return consume(scene_, *answer_, Then::write);
  });
  EXPECT_EQ(consumer.wait(), -1 - SIGSEGV);
  EXPECT_TRUE(answer_->done.load()) << "it died before it wrote";
  answer_->same.store(false);
  Process next("next consumer", [this] { return consume(scene_, *answer_, Then::end); });
  EXPECT_EQ(next.wait(), 0);
  EXPECT_TRUE(answer_->same.load());
}

}  // namespace
}  // namespace ringtail::crash

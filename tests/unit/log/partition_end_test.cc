// A partition whose keeper ends, or which is deleted, while work of it is under way.
#include <gtest/gtest.h>

#include <deque>
#include <future>

#include "log/compaction.h"
#include "support/forwarding_backend.h"
#include "unit/log/partition_test_support.h"

namespace ringtail::log {
namespace {

using ringtail::testing::ForwardingBackend;

// --- Writes --------------------------------------------------------------------------------------

// Reads what is to be written as late as it may: when somebody waits for the write.
class LateBackend final : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;

  // Writes under way from memory that was registered.
  std::size_t from_registered() const { return from(registered_); }
  // Those of which the memory was unregistered nevertheless, or could not be read any more.
  std::size_t lost() const { return lost_; }

  void register_buffer(std::span<const std::byte> memory) override {
    registered_ = memory;
    ForwardingBackend::register_buffer(memory);
  }
  void unregister_buffer(std::span<const std::byte> memory) override {
    lost_ += from(memory);
    ForwardingBackend::unregister_buffer(memory);
  }
  void submit_write(const io::File& file, std::span<const std::byte> bytes, std::uint64_t file_offset,
                    std::uint64_t token) override {
    writes_.push_back(
        {bytes, [=, this, &file] { ForwardingBackend::submit_write(file, bytes, file_offset, token); }});
  }
  void submit_write_and_sync(const io::File& file, std::span<const std::byte> bytes,
                             std::uint64_t file_offset, std::uint64_t token) override {
    writes_.push_back({bytes, [=, this, &file] {
                         ForwardingBackend::submit_write_and_sync(file, bytes, file_offset, token);
                       }});
  }
  std::size_t reap(std::span<io::Completion> out, bool wait) override {
    const std::size_t count = ForwardingBackend::reap(out, false);
    if (count > 0 || !wait || writes_.empty()) return count;
    const Write write = std::move(writes_.front());
    writes_.pop_front();
    write.submit();
    ForwardingBackend::reap(out.first(1), true);
    lost_ += out[0].result == static_cast<std::int64_t>(write.bytes.size()) ? 0 : 1;
    return 1;
  }
  std::size_t in_flight() const override { return writes_.size() + ForwardingBackend::in_flight(); }

 private:
  struct Write {
    std::span<const std::byte> bytes;
    std::function<void()> submit;
  };

  std::size_t from(std::span<const std::byte> memory) const {
    return static_cast<std::size_t>(std::ranges::count_if(writes_, [&](const Write& write) {
      return write.bytes.data() >= memory.data() && write.bytes.data() < memory.data() + memory.size();
    }));
  }

  std::deque<Write> writes_;
  std::span<const std::byte> registered_;
  std::size_t lost_ = 0;
};

class EndOfPartition : public PartitionScene {};

TEST_F(EndOfPartition, WaitsForWritesThatAreFromItsRing) {
  auto late = std::make_unique<LateBackend>(std::move(backend_));
  LateBackend& disk = *late;
  backend_ = std::move(late);
  open_keeper();
  auto producer = new_producer();
  append(*producer, 1'000);  // more than a sync would copy
  turn_until([&] { return disk.from_registered() > 0; });
  kill_keeper();
  EXPECT_EQ(disk.in_flight(), 0u);
  EXPECT_EQ(disk.lost(), 0u);
}

// --- Compaction ----------------------------------------------------------------------------------

// Calls `before_sync` when what a round of compaction has written stands in its place, and nothing is left to do but to
// sync that: the round does not ask any more whether it was cancelled.
class RoundsEndBackend final : public ForwardingBackend {
 public:
  RoundsEndBackend(std::unique_ptr<io::Backend> inner, std::function<void()> before_sync)
      : ForwardingBackend(std::move(inner)), before_sync_(std::move(before_sync)) {}

  Status sync_directory(const std::filesystem::path& dir) override {
    before_sync_();
    return ForwardingBackend::sync_directory(dir);
  }

 private:
  const std::function<void()> before_sync_;
};

// Whether the topic is deleted, and made anew under its name, at the end of a round.
class EndOfCompaction : public EndOfPartition, public ::testing::WithParamInterface<bool> {};

TEST_P(EndOfCompaction, IsNotedUnlessTheTopicWasDeletedMeanwhile) {
  const bool is_deleted = GetParam();
  const auto reached = std::make_shared<std::atomic<bool>>(false);
  std::promise<void> go_on;  // also by its end
  cleaner_ = std::make_unique<Workshop>(std::make_unique<RoundsEndBackend>(
      io::make_backend(IoBackend::pwrite, 4).value(), [reached, let = go_on.get_future().share()] {
        reached->store(true);
        let.wait();
      }));
  config_.cleanup_policy = CleanupPolicy::compact;
  config_.min_cleanable_dirty_billionths = 0;
  config_.segment_ms = 30;
  open_keeper();
  auto producer = new_producer();
  for (int i = 0; i < 100; ++i) {
    const std::string key = "k" + std::to_string(i % 4);
    ASSERT_TRUE((*producer)->append({.key = key, .value = "v"}));
  }
  turn_until([&] { return failed() || reached->load(); });
  ASSERT_FALSE(failed());
  if (is_deleted) {
    std::filesystem::remove_all(ref_.disk_dir);
    keeper_->remove();
    kill_keeper();
    std::filesystem::create_directories(ref_.disk_dir);
  }
  go_on.set_value();
  while (cleaner_->deliver() == 0) std::this_thread::sleep_for(std::chrono::microseconds(50));
  EXPECT_EQ(load_first_dirty(ref_.disk_dir) == Offset(0), is_deleted);
}

INSTANTIATE_TEST_SUITE_P(OfATopic, EndOfCompaction, ::testing::Bool());

}  // namespace
}  // namespace ringtail::log

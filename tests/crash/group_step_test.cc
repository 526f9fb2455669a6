// Death at every instruction of a group's member: it is single-stepped through one operation and killed behind
// its k-th instruction. After each death another member gets everything, and finds the position that was
// there before or the one that was to be, with its own metadata or none; a transaction is there as a whole,
// its position included, or not at all.
//
// RINGTAIL_CRASH_STEPS: how many places in each operation (40 unless told); 0: all of them.
#include <random>

#include "client/log_core.h"
#include "crash/scene.h"
#include "groups/membership.h"
#include "groups/tenure.h"
#include "support/single_step.h"

namespace ringtail::crash {
namespace {

using groups::Membership;
using groups::Standing;
using groups::Tenancy;
using shm::TransactionState;
using test::Process;
using test::SharedPage;
using test::wait_until;

constexpr const char* kGroup = "stepped";
constexpr const char* kOutput = "output";
constexpr std::uint32_t kPartitions = 2;

enum class Operation : std::uint8_t { commit, look_granted, look_wanted, release, add_offsets, end };

struct Variant {
  const char* name;
  Operation operation;
  bool metadata = false;
};
void PrintTo(const Variant& variant, std::ostream* out) { *out << variant.name; }

// An attachment with a seat in the group.
struct Seat {
  std::shared_ptr<LogCore> core;
  shm::OwnedSlot slot;
  std::unique_ptr<Membership> membership;

  static Result<Seat> open(const Scene& scene) {
    Seat seat;
    auto core = LogCore::open(scene.options(KeeperMode::none));
    if (!core) return std::unexpected(core.error());
    seat.core = std::move(*core);
    auto slot = shm::OwnedSlot::acquire(seat.core->control(), seat.core->locks(), shm::SlotRole::consumer);
    if (!slot) return std::unexpected(slot.error());
    seat.slot = std::move(*slot);
    return seat;
  }
  Status sit() {
    auto opened = Membership::open(core->attachment(), slot,
                                   {.group_id = kGroup, .client_id = {}, .assignor = sticky_assignor()});
    if (!opened) return std::unexpected(opened.error());
    membership = std::move(*opened);
    return {};
  }
};

class GroupStepTest : public ::testing::TestWithParam<Variant> {
 protected:
  struct Shared {
    // What the test wants of the heir, and how far that is.
    std::atomic<bool> heir_wanted{false};
    std::atomic<std::uint32_t> heir_holds{0};
    std::atomic<std::uint64_t> commit_wanted{0};  // an offset for everything it holds
    std::atomic<std::uint64_t> commit_done{0};
    std::atomic<std::uint64_t> read_wanted{0};
    std::atomic<std::uint64_t> read_done{0};
    std::atomic<std::uint64_t> last_read{0};  // the number of the last committed record of the output
    // The victim's.
    std::atomic<std::uint64_t> number{0};   // of its life
    std::atomic<std::uint32_t> at_step{0};  // partitions it has asked the test to move; see be_member
    char heir_error[512] = {};
    char victim_error[512] = {};
  };

  static std::uint64_t before(std::uint64_t number) { return 10 * number + 1; }
  static std::uint64_t after(std::uint64_t number) { return 10 * number + 2; }
  static std::string text_of(std::uint64_t offset) {
    return GetParam().metadata ? fmt::format("what was said of {}", offset) : std::string();
  }
  static bool moves() {
    return GetParam().operation == Operation::commit || GetParam().operation == Operation::end;
  }
  static bool is_transaction() { return GetParam().operation >= Operation::add_offsets; }

  void SetUp() override {
    random_.seed(test::print_seed());
    {
      auto log = scene_.open(KeeperMode::embedded);
      ASSERT_TRUE(log) << to_string(log.error());
      for (const auto& [topic, partitions] : {std::pair{kTopic, kPartitions}, std::pair{kOutput, 1u}})
        ASSERT_TRUE(Admin(*log).create_topic(
            {.name = topic, .partitions = partitions, .configs = {{"term.bytes", "64KiB"}}}));
    }
    peek_.emplace(scene_);
    keeper_ = Process("keeper", [this] { return keep(scene_); });
    ASSERT_TRUE(wait([this] { return peek_->keeper_pid() == keeper_.pid(); }, "the keeper has come"));
    heir_ = Process("heir", [this] { return be_heir(); });
  }

  // --- Children ---

  // Joins and leaves as it is told; has what nobody else is meant to have.
  int be_heir() {
    auto log = scene_.open(KeeperMode::none);
    if (!log) return give_up(shared_->heir_error, to_string(log.error()));
    auto reader = Consumer::open(*log, {.isolation_level = IsolationLevel::read_committed});
    if (!reader || !reader->assign(kOutput)) return give_up(shared_->heir_error, "cannot read");
    auto seat = Seat::open(scene_);
    if (!seat) return give_up(shared_->heir_error, to_string(seat.error()));
    if (auto sat = seat->sit(); !sat) return give_up(shared_->heir_error, to_string(sat.error()));
    Membership& member = *seat->membership;
    for (;; ::usleep(100)) {
      if (const bool wanted = shared_->heir_wanted.load(); wanted != member.is_joined()) {
        auto changed = wanted ? member.join({.topics = {kTopic}, .pattern = {}}) : member.leave();
        if (!changed) return give_up(shared_->heir_error, to_string(changed.error()));
      }
      if (auto looked = look(member); !looked) return give_up(shared_->heir_error, to_string(looked.error()));
      if (const std::uint64_t offset = shared_->commit_wanted.load(); offset != shared_->commit_done.load()) {
        for (Tenancy& tenancy : member.held())
          if (!member.commit(tenancy, Offset(offset)))
            return give_up(shared_->heir_error, "a commit was refused");
        shared_->commit_done.store(offset);
      }
      if (const std::uint64_t wanted = shared_->read_wanted.load(); wanted != shared_->read_done.load()) {
        if (auto read = read_output(*reader); !read)
          return give_up(shared_->heir_error, to_string(read.error()));
        shared_->read_done.store(wanted);
      }
      shared_->heir_holds.store(static_cast<std::uint32_t>(member.held().size()));
    }
  }
  static Status look(Membership& member) {
    member.beat();
    auto changes = member.look();
    if (!changes) return std::unexpected(changes.error());
    for (Tenancy* tenancy : changes->to_give_up) member.release(tenancy);
    return {};
  }
  Status read_output(Consumer& reader) {
    const TopicPartition partition{kOutput, PartitionId(0)};
    auto end = reader.end_offset(partition);
    if (!end) return std::unexpected(end.error());
    while (reader.position(partition)->value() < end->value()) {
      auto records = reader.poll(std::chrono::milliseconds(100));
      if (!records) return std::unexpected(records.error());
      for (const Record& record : *records) shared_->last_read.store(std::stoull(std::string(record.value)));
    }
    return {};
  }

  // Has both partitions, with the position of before. Then, for what needs it, has the heir come (1), and
  // go again (2).
  int be_member() {
    auto seat = Seat::open(scene_);
    if (!seat) return give_up(shared_->victim_error, to_string(seat.error()));
    if (auto sat = seat->sit(); !sat) return give_up(shared_->victim_error, to_string(sat.error()));
    Membership& member = *seat->membership;
    if (auto joined = member.join({.topics = {kTopic}, .pattern = {}}); !joined)
      return give_up(shared_->victim_error, to_string(joined.error()));
    const auto settle = [&member](std::size_t partitions) {
      while (member.held().size() != partitions)
        if (!look(member)) return;
    };
    settle(kPartitions);
    const std::uint64_t number = shared_->number.load();
    for (Tenancy& tenancy : member.held())
      if (!member.commit(tenancy, Offset(before(number)), text_of(before(number))))
        return give_up(shared_->victim_error, "a commit was refused");
    const shm::GroupTableLayout& table = seat->core->control().groups();
    std::uint32_t entry = member.held().front().entry;
    const auto target = [&] { return shm::assignment_owner(table.assignments[entry].load()); };
    const std::uint32_t me = seat->slot.index() + 1;
    const Operation operation = GetParam().operation;
    std::vector<Tenancy*> wanted;
    if (operation != Operation::commit) {
      shared_->at_step.store(1);
      const auto all_mine = [&] {
        return std::ranges::all_of(member.held(), [&](const Tenancy& held) {
          entry = held.entry;
          return target() == me;
        });
      };
      while (all_mine()) member.beat();  // ends with an entry that is wanted
    }
    if (operation == Operation::look_granted) {
      settle(kPartitions - 1);
      shared_->at_step.store(2);
      while (groups::load_standing(table.partitions[entry]).owner() != me) member.beat();
    }
    if (operation == Operation::release) wanted = member.look().value().to_give_up;
    const bool done = test::offer_steps([&] { return operate(member, wanted, number); });
    if (!done) return give_up(shared_->victim_error, "the operation failed");
    for (;;) ::pause();
  }
  [[gnu::noinline]] static bool operate(Membership& member, const std::vector<Tenancy*>& wanted,
                                        std::uint64_t number) {
    switch (GetParam().operation) {
      case Operation::commit:
        return member.commit(member.held().front(), Offset(after(number)), text_of(after(number)));
      case Operation::release: member.release(wanted.front()); return true;
      default: return member.look().has_value();
    }
  }

  // Has both partitions and a transaction open, in which it has sent its number.
  int be_transactional() {
    auto log = scene_.open(KeeperMode::none);
    if (!log) return give_up(shared_->victim_error, to_string(log.error()));
    auto consumer = Consumer::open(*log, {.group_id = kGroup, .enable_auto_commit = false});
    auto producer = Producer::open(*log, {.topic = kOutput, .transactional_id = "stepped"});
    if (!consumer || !producer || !consumer->subscribe(kTopic))
      return give_up(shared_->victim_error, "cannot attach");
    while (consumer->assignment().size() != kPartitions)
      if (auto polled = consumer->poll(std::chrono::milliseconds(1)); !polled)
        return give_up(shared_->victim_error, to_string(polled.error()));
    const std::uint64_t number = shared_->number.load();
    for (std::uint32_t p = 0; p < kPartitions; ++p) {
      const OffsetCommit one[] = {{{kTopic, PartitionId(p)}, Offset(before(number)), {}}};
      if (!consumer->commit_async(one)) return give_up(shared_->victim_error, "a commit was refused");
    }
    if (!producer->begin() || !producer->send(std::to_string(number)))
      return give_up(shared_->victim_error, to_string(producer->error()));
    const OffsetCommit moved[] = {{{kTopic, PartitionId(0)}, Offset(after(number)), {}}};
    const GroupMetadata member = consumer->group_metadata();
    const bool adds = GetParam().operation == Operation::add_offsets;
    if (!adds && !producer->add_offsets(moved, member))
      return give_up(shared_->victim_error, "a position was refused");
    const bool done = test::offer_steps([&] { return finish(*producer, moved, member, adds); });
    if (!done) return give_up(shared_->victim_error, "the transaction failed");
    for (;;) ::pause();
  }
  [[gnu::noinline]] static bool finish(Producer& producer, std::span<const OffsetCommit> moved,
                                       const GroupMetadata& member, bool adds) {
    return adds ? producer.add_offsets(moved, member).has_value() : producer.commit().has_value();
  }

  // --- The test ---

  const shm::GroupPartition* entry_of(std::uint32_t partition) const {
    const shm::GroupTableLayout& table = peek_->layout().groups;
    for (const shm::GroupPartition& entry : table.partitions)
      if (table.assignments[static_cast<std::size_t>(&entry - table.partitions.data())].load() != 0 &&
          entry.partition.load() == partition)
        return &entry;
    return nullptr;
  }
  std::string report() const {
    std::string text = fmt::format("victim {}: '{}', heir: '{}', it has {}\n", shared_->number.load(),
                                   shared_->victim_error, shared_->heir_error, shared_->heir_holds.load());
    for (std::uint32_t p = 0; p < kPartitions; ++p)
      if (const auto* entry = entry_of(p))
        text += fmt::format("partition {}: owner {}, committed {}, pending {:#x}\n", p,
                            groups::load_standing(*entry).owner(), groups::load_standing(*entry).committed,
                            entry->pending.load());
    return text + peek_->describe();
  }
  bool wait(const std::function<bool()>& done, std::string_view what) {
    return wait_until(done, what, {}, [this] { return report(); });
  }

  // Lets a victim take `steps` instructions of its operation, then kills it. Returns how many it took.
  std::uint64_t kill_after(std::uint64_t steps) {
    shared_->number.fetch_add(1);
    shared_->at_step.store(0);
    Process victim("victim", [this] { return is_transaction() ? be_transactional() : be_member(); });
    if (GetParam().operation == Operation::look_wanted || GetParam().operation == Operation::release ||
        GetParam().operation == Operation::look_granted) {
      if (!wait([this] { return shared_->at_step.load() >= 1; }, "the victim has what there is")) return 0;
      shared_->heir_wanted.store(true);
    }
    if (GetParam().operation == Operation::look_granted) {
      if (!wait([this] { return shared_->at_step.load() >= 2; }, "the victim has given one up")) return 0;
      shared_->heir_wanted.store(false);
    }
    // Reading the topic's configuration before takes hundreds of thousands, and changes nothing.
    const void* const from = GetParam().operation == Operation::add_offsets
                                 ? reinterpret_cast<const void*>(&groups::find_entry)
                                 : nullptr;
    const auto taken = test::take_steps(victim, steps, from);
    if (!taken) ADD_FAILURE() << "the victim did not come to its operation\n" << report();
    victim.kill();
    return taken.value_or(0);
  }

  void expect_group_goes_on() {
    shared_->heir_wanted.store(true);
    ASSERT_TRUE(
        wait([this] { return shared_->heir_holds.load() == kPartitions; }, "the heir has all partitions"));
    ASSERT_NO_FATAL_FAILURE(expect_position());
    if (is_transaction()) {
      ASSERT_NO_FATAL_FAILURE(expect_whole_transaction());
    }
    const std::uint64_t next = after(shared_->number.load()) + 1;
    shared_->commit_wanted.store(next);
    ASSERT_TRUE(wait([&] { return shared_->commit_done.load() == next; }, "the heir commits"));
    for (std::uint32_t p = 0; p < kPartitions; ++p)
      ASSERT_EQ(groups::load_standing(*entry_of(p)).committed, next);
    shared_->heir_wanted.store(false);
    ASSERT_TRUE(wait([this] { return shared_->heir_holds.load() == 0; }, "the heir has left"));
  }
  void expect_position() {
    const std::uint64_t number = shared_->number.load();
    for (std::uint32_t p = 0; p < kPartitions; ++p) {
      const Standing standing = groups::load_standing(*entry_of(p));
      const std::string metadata = groups::load_metadata(*entry_of(p), standing);
      if (standing.committed == after(number)) {
        ++moved_;
        ASSERT_TRUE(moves());
        ASSERT_EQ(metadata, text_of(after(number)));  // it was complete before the position moved
      } else {
        ASSERT_EQ(standing.committed, before(number)) << "partition " << p;
        if (!metadata.empty()) {
          ASSERT_EQ(metadata, text_of(before(number)));
        }
      }
    }
  }
  void expect_whole_transaction() {
    const auto is_over = [](const shm::TransactionalId& id) {
      const TransactionState state = shm::transaction_state(id.word.load());
      return state == TransactionState::none || state == TransactionState::ready;
    };
    ASSERT_TRUE(wait([&] { return std::ranges::all_of(peek_->layout().transactional_ids, is_over); },
                     "the transaction has ended"));
    const std::uint64_t number = shared_->number.load();
    shared_->read_wanted.store(number);
    ASSERT_TRUE(wait([&] { return shared_->read_done.load() == number; }, "the output has been read"));
    const bool moved = groups::load_standing(*entry_of(0)).committed == after(number);
    ASSERT_EQ(shared_->last_read.load() == number, moved) << "the record and its position";
    ASSERT_EQ(entry_of(0)->pending.load(), 0u);
  }

  Scene scene_;
  SharedPage<Shared> shared_;
  std::mt19937_64 random_;
  std::optional<Peek> peek_;
  Process keeper_;
  Process heir_;
  std::uint64_t moved_ = 0;  // positions that were the new ones
};

TEST_P(GroupStepTest, NoInstructionIsABadPlaceToDie) {
  ASSERT_FALSE(HasFatalFailure());
  const std::uint64_t length = kill_after(~std::uint64_t{0});
  ASSERT_NO_FATAL_FAILURE(expect_group_goes_on());
  ASSERT_GT(length, 20u);
  const auto [first, stride] = test::choose_deaths(length, 40, random_());
  for (std::uint64_t k = first; k <= length + 1; k += stride) {
    SCOPED_TRACE(fmt::format("killed behind instruction {} of about {}", k, length));
    kill_after(k);
    ASSERT_FALSE(HasFailure());
    ASSERT_NO_FATAL_FAILURE(expect_group_goes_on());
  }
  EXPECT_EQ(moved_ > 0, moves());  // the first victim came to the end of its operation
  std::cout << length << " instructions, every " << stride << ". of them, " << shared_->number.load()
            << " deaths, " << moved_ << " positions moved\n";
}

const std::vector<Variant> kVariants{
    {.name = "Commit", .operation = Operation::commit},
    {.name = "CommitWithMetadata", .operation = Operation::commit, .metadata = true},
    {.name = "LookAtWhatIsGranted", .operation = Operation::look_granted},
    {.name = "LookAtWhatIsWanted", .operation = Operation::look_wanted},
    {.name = "Release", .operation = Operation::release},
    {.name = "AddOffsets", .operation = Operation::add_offsets},
    {.name = "CommitOfATransaction", .operation = Operation::end},
};

INSTANTIATE_TEST_SUITE_P(Crash, GroupStepTest, ::testing::ValuesIn(kVariants),
                         [](const auto& variant) { return std::string(variant.param.name); });

}  // namespace
}  // namespace ringtail::crash

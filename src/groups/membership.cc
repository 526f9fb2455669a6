#include "groups/membership.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>

#include "base/bounded_time.h"
#include "base/clock.h"
#include "base/logger.h"
#include "base/random.h"
#include "groups/assignment_input.h"
#include "groups/offsets_topic.h"
#include "groups/tenure.h"
#include "shm/futex.h"

namespace ringtail::groups {

using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;

namespace {

constexpr std::int64_t kSliceNs = 50'000'000;

Status check_id(std::string_view what, std::string_view id, std::size_t most) {
  if (id.size() > most)
    return fail(Code::invalid_argument,
                fmt::format("the {} has {} bytes, at most {} are allowed", what, id.size(), most));
  const bool printable = std::ranges::all_of(id, [](char c) { return static_cast<unsigned char>(c) >= ' '; });
  if (!printable)
    return fail(Code::invalid_argument, fmt::format("the {} contains a control character", what));
  return {};
}

std::string host_name() {
  char name[64] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "";
}

std::uint32_t milliseconds_of(std::chrono::milliseconds time) {
  return static_cast<std::uint32_t>(std::min<std::int64_t>(time.count(), ~0u));
}

}  // namespace

std::string member_id_of(const shm::Control& control, std::uint32_t slot) {
  const std::string client = control.member(slot).client_id.load();
  return fmt::format("{}{}{}", client, client.empty() ? "" : "-",
                     to_hex(control.slot(slot).token.load(memory_order_relaxed)));
}

// --- Asking --------------------------------------------------------------------------------------

namespace {

// How long to wait for the coordinator.
struct Patience {
  Patience(std::chrono::nanoseconds wanted, bool whoever_keeps)
      : limit_ns(bounded_time(wanted).count()),
        deadline_ns(monotonic_ns() + limit_ns),
        waits_for_any_keeper(whoever_keeps) {}

  std::int64_t limit_ns;
  std::int64_t deadline_ns;
  bool waits_for_any_keeper;  // though this process's own has failed
};

// Waits until the latest request is dealt with.
Status wait_for_answer(const log::Attachment& attachment, const shm::Member& member,
                       const Patience& patience) {
  const shm::Control& control = attachment.control();
  const std::uint32_t request = member.request.load(memory_order_relaxed);
  for (;;) {
    const std::uint32_t answered = member.answered.load(memory_order_acquire);  // SYNC: pairs with answer
    if (answered == request) return {};
    if (!patience.waits_for_any_keeper)
      if (auto failure = attachment.keeper_failure()) return std::unexpected(*failure);
    const std::int64_t now_ns = monotonic_ns();
    if (now_ns >= patience.deadline_ns) {
      if (control.header().keeper_pid.load(memory_order_relaxed) == 0)
        return std::unexpected(log::nobody_keeps(attachment.dir()));
      return fail(Code::timed_out,
                  fmt::format("the coordinator of consumer groups has not answered in {} ms; is "
                              "the process that keeps {} stopped?",
                              patience.limit_ns / 1'000'000, attachment.dir().string()));
    }
    shm::futex_wait(member.answered, answered, std::min(patience.deadline_ns, now_ns + kSliceNs));
  }
}

// Publishes the request whose fields have been stored, and waits for the answer.
Status post(const log::Attachment& attachment, shm::Member& member, const Patience& patience) {
  const std::uint32_t request = member.request.load(memory_order_relaxed) + 1;
  member.request.store(request, memory_order_release);  // SYNC: pairs with the coordinator's acquire load
  attachment.control().wake_coordinator();
  if (auto answered = wait_for_answer(attachment, member, patience); !answered) return answered;
  const std::uint32_t refusal = member.refusal_code.load(memory_order_relaxed);
  if (refusal == 0) return {};
  return fail(static_cast<Code>(refusal - 1), member.refusal.load());
}

}  // namespace

Status ask_coordinator(const log::Attachment& attachment, const shm::OwnedSlot& slot, shm::GroupRequest kind,
                       std::string_view group_id, std::string_view subscription,
                       std::chrono::nanoseconds patience, bool whoever_keeps) {
  const Patience limit(patience, whoever_keeps);
  shm::Member& member = attachment.control().member(slot.index());
  // What whoever had the slot before asked for and did not live to see must not be read with our words.
  if (auto answered = wait_for_answer(attachment, member, limit); !answered) return answered;
  member.kind.store(static_cast<std::uint32_t>(kind), memory_order_relaxed);
  member.asker.store(slot.word(), memory_order_relaxed);
  member.group_id.store(group_id);
  member.subscription.store(subscription);
  return post(attachment, member, limit);
}

namespace {

// Why no position comes to the disk before a keeper opens its topic anew, if so.
std::optional<Error> failure_of_positions(const log::Attachment& attachment) {
  const auto topic = attachment.catalog().load_topic(kOffsetsTopic);
  return topic ? attachment.find_failure(*topic, PartitionId(0)) : std::nullopt;
}

}  // namespace

Status persist_commits(const log::Attachment& attachment, std::uint32_t group,
                       std::chrono::nanoseconds timeout) {
  const shm::Control& control = attachment.control();
  shm::Group& entry = control.groups().groups[group];
  // SYNC: behind the commits; pairs with the coordinator's load before it looks at the positions.
  const std::uint32_t ticket = entry.commits_wanted.fetch_add(1, std::memory_order_seq_cst) + 1;
  control.wake_coordinator();
  const std::int64_t deadline_ns = monotonic_ns() + bounded_time(timeout).count();
  for (;;) {
    const std::uint32_t done =
        entry.commits_done.load(memory_order_acquire);  // SYNC: pairs with the coordinator
    if (static_cast<std::int32_t>(done - ticket) >= 0) return {};
    const std::int64_t now_ns = monotonic_ns();
    if (now_ns >= deadline_ns) {
      if (const std::uint32_t trouble = entry.trouble_code.load(memory_order_relaxed))
        return fail(static_cast<Code>(trouble - 1), entry.trouble.load());
      if (control.header().keeper_pid.load(memory_order_relaxed) == 0)
        return std::unexpected(log::nobody_keeps(attachment.dir()));
      return fail(Code::timed_out, "the commit is visible on this host, but not persistent yet");
    }
    // What else is in the way may pass.
    if (entry.trouble_code.load(memory_order_relaxed) != 0)
      if (auto failure = failure_of_positions(attachment)) return std::unexpected(*failure);
    shm::futex_wait(entry.commits_done, done, std::min(deadline_ns, now_ns + kSliceNs));
  }
}

Status wait_until_ready(const log::Attachment& attachment) {
  const shm::Shared<std::uint32_t>& ready = attachment.control().groups().ready;
  const std::int64_t deadline_ns = monotonic_ns() + bounded_time(kCoordinatorPatience).count();
  while (ready.load(memory_order_acquire) == 0) {  // SYNC: pairs with the coordinator's store
    if (auto failure = attachment.keeper_failure()) return std::unexpected(*failure);
    const std::int64_t now_ns = monotonic_ns();
    if (now_ns >= deadline_ns)
      return fail(
          Code::timed_out,
          "the positions of consumer groups are not restored yet; why, the keeper's process says in its log");
    shm::futex_wait(ready, 0, now_ns + kSliceNs);
  }
  return {};
}

// --- Membership ----------------------------------------------------------------------------------

Membership::Membership(const log::Attachment& attachment, const shm::OwnedSlot& slot, MemberOptions options)
    : attachment_(attachment),
      slot_(&slot),
      options_(std::move(options)),
      member_(&attachment.control().member(slot.index())) {}

Result<std::unique_ptr<Membership>> Membership::open(const log::Attachment& attachment,
                                                     const shm::OwnedSlot& slot, MemberOptions options) {
  if (options.group_id.empty()) return fail(Code::invalid_argument, "a group id cannot be empty");
  if (auto valid = check_id("group id", options.group_id, shm::kMaxGroupIdBytes); !valid)
    return std::unexpected(valid.error());
  if (auto valid = check_id("client id", options.client_id, shm::kMaxClientIdBytes); !valid)
    return std::unexpected(valid.error());
  if (options.assignor.name.empty() || options.assignor.name.size() > 63 || !options.assignor.assign)
    return fail(Code::invalid_argument, "an assignor needs a name of 1 to 63 bytes and a function");
  if (options.max_poll_interval.count() <= 0)
    return fail(Code::invalid_argument, fmt::format("max_poll_interval is {} ms, it must be at least 1",
                                                    options.max_poll_interval.count()));
  std::unique_ptr<Membership> membership(new Membership(attachment, slot, std::move(options)));
  shm::Member& member = *membership->member_;
  member.client_id.store(membership->options_.client_id);
  member.host.store(host_name());
  membership->member_id_ = member_id_of(attachment.control(), slot.index());
  return membership;
}

Membership::~Membership() {
  if (member_ == nullptr) return;
  while (!held_.empty()) release(&held_.front());
}

Status Membership::join(const Subscription& subscription, std::chrono::nanoseconds patience) {
  const std::string names = fmt::format("{}", fmt::join(subscription.topics, "\n"));
  const bool by_pattern = !subscription.pattern.empty();
  const std::string& text = by_pattern ? subscription.pattern : names;
  if (text.size() > shm::kMaxSubscriptionBytes)
    return fail(
        Code::limit_exceeded,
        fmt::format("the subscription takes {} bytes, at most {} fit; subscribe to a regular expression",
                    text.size(), shm::kMaxSubscriptionBytes));
  // The coordinator judges it, too, but only once it stands in the entry, where it would stay though refused: each
  // rebalance would take it for no topics, and this member's partitions away.
  if (auto valid = resolve_subscription(text, by_pattern, {}); !valid) return std::unexpected(valid.error());
  member_->by_pattern.store(by_pattern ? 1 : 0, memory_order_relaxed);
  member_->assignor.store(options_.assignor.name);
  member_->max_poll_interval_ms.store(milliseconds_of(options_.max_poll_interval), memory_order_relaxed);
  member_->auto_commit_interval_ms.store(milliseconds_of(options_.auto_commit_interval),
                                         memory_order_relaxed);
  beat();
  auto joined =
      ask_coordinator(attachment_, *slot_, shm::GroupRequest::join, options_.group_id, text, patience);
  if (joined) joined_ = true;
  return joined;
}

Status Membership::leave() {
  while (!held_.empty()) release(&held_.front());
  if (!joined_) return {};
  joined_ = false;
  return ask_coordinator(attachment_, *slot_, shm::GroupRequest::leave, options_.group_id, "");
}

std::optional<std::uint32_t> Membership::group() const {
  const std::uint32_t group = member_->group.load(memory_order_relaxed);
  if (group == 0 || group > shm::kMaxGroups) return std::nullopt;
  return group - 1;
}

std::uint32_t Membership::generation() const {
  const auto in = group();
  return in ? attachment_.control().groups().groups[*in].generation.load(memory_order_relaxed) : 0;
}

// --- Changes -------------------------------------------------------------------------------------

Result<Changes> Membership::look() {
  // SYNC: read before all else, so that a bump after this brings us back; pairs with the coordinator's.
  attention_seen_ = member_->attention.load(memory_order_acquire);
  topics_listed_ = is_name_held_ = false;
  Changes changes;
  if (!joined_) return changes;
  if (member_->status.load(memory_order_relaxed) == static_cast<std::uint32_t>(shm::MemberStatus::expelled)) {
    joined_ = false;
    changes.expelled = true;
    for (Tenancy& tenancy : std::exchange(held_, {})) changes.lost.push_back(std::move(tenancy.partition));
    return changes;
  }
  const std::uint32_t commit_due = member_->commit_due.load(memory_order_relaxed);
  changes.commit_due = std::exchange(commit_due_seen_, commit_due) != commit_due;
  Status status;
  if (const std::uint32_t due =
          member_->assign_due.load(memory_order_acquire);  // SYNC: pairs with ask_leader
      due != member_->assigned.load(memory_order_relaxed))
    status = propose(due);
  if (const auto in = group()) {
    look_for_losses(*in, changes);
    if (auto looked = look_for_grants(*in, changes); !looked) status = looked;
  }
  if (status) return changes;
  --attention_seen_;  // what was not seen is news still
  if (changes.empty()) return std::unexpected(status.error());
  return changes;
}

void Membership::look_for_losses(std::uint32_t group, Changes& changes) {
  const shm::GroupTableLayout& table = attachment_.control().groups();
  std::erase_if(held_, [&](const Tenancy& tenancy) {
    if (load_standing(table.partitions[tenancy.entry]).tenure == tenancy.tenure) return false;
    changes.lost.push_back(tenancy.partition);
    return true;
  });
  const std::uint32_t mine = shm::assignment_word(group, me());
  for (Tenancy& tenancy : held_)
    if (table.assignments[tenancy.entry].load(memory_order_acquire) != mine)  // SYNC: pairs with install
      changes.to_give_up.push_back(&tenancy);
}

Status Membership::look_for_grants(std::uint32_t group, Changes& changes) {
  const shm::GroupTableLayout& table = attachment_.control().groups();
  const std::uint32_t mine = shm::assignment_word(group, me());
  const std::uint32_t used =
      std::min(table.entries_used.load(memory_order_acquire), shm::kMaxGroupPartitions);
  for (std::uint32_t i = 0; i < used; ++i) {
    const std::uint32_t assignment =
        table.assignments[i].load(memory_order_acquire);  // SYNC: pairs with install
    if (assignment == 0 || shm::assignment_group(assignment) != group) continue;
    const Standing standing = load_standing(table.partitions[i]);
    if (standing.owner() != me() || is_held(i)) continue;
    const auto tenancy = take(i, standing);
    if (!tenancy) return std::unexpected(tenancy.error());
    if (*tenancy == nullptr) continue;  // for now
    if (assignment == mine)
      changes.granted.push_back(*tenancy);
    else
      release(*tenancy);  // granted, and meant for another before we looked
  }
  return {};
}

bool Membership::is_held(std::uint32_t entry) const {
  return std::ranges::any_of(held_, [entry](const Tenancy& tenancy) { return tenancy.entry == entry; });
}

// Notes what this member owns. Null when its topic was deleted a moment ago, for the coordinator will take it back; or
// when there is another topic of the name of one that was, whose partition is still held: users go by names, and have
// one of each.
Result<Tenancy*> Membership::take(std::uint32_t index, const Standing& standing) {
  const shm::GroupPartition& entry = attachment_.control().groups().partitions[index];
  const std::uint64_t topic_id = entry.topic_id.load(memory_order_relaxed);
  auto name = name_of(topic_id);
  if (!name) return std::unexpected(name.error());
  if (!*name) return nullptr;
  TopicPartition partition{std::move(**name), PartitionId(entry.partition.load(memory_order_relaxed))};
  if (find(partition) != nullptr) {
    is_name_held_ = true;
    return nullptr;
  }
  held_.push_back({std::move(partition), topic_id, index, standing.tenure, standing.committed, true});
  return &held_.back();
}

// Nothing when no topic has that id.
Result<std::optional<std::string>> Membership::name_of(std::uint64_t topic_id) {
  auto known = topic_names_.find(topic_id);
  // Once a look: of what is granted later, there will be news.
  if (known == topic_names_.end() && !topics_listed_) {
    auto topics = attachment_.catalog().list_topics();
    if (!topics) return std::unexpected(topics.error());
    topics_listed_ = true;
    for (log::TopicEntry& topic : *topics) topic_names_[topic.topic_id] = std::move(topic.name);
    known = topic_names_.find(topic_id);
  }
  if (known == topic_names_.end()) return std::nullopt;
  return known->second;
}

void Membership::release(Tenancy* tenancy) {
  shm::GroupPartition& entry = attachment_.control().groups().partitions[tenancy->entry];
  Standing seen = load_standing(entry);
  const std::uint64_t nobody = shm::tenure_word(shm::tenure_number(tenancy->tenure), 0);
  while (seen.tenure == tenancy->tenure && !exchange_standing(entry, seen, {seen.committed, nobody})) {
  }
  std::erase_if(held_, [tenancy](const Tenancy& held) { return &held == tenancy; });
  if (std::exchange(is_name_held_, false)) --attention_seen_;  // the other one may be taken now
  // It may have been meant for us again by then, and all been in its place.
  // SYNC: behind the exchange; pairs with the load before settling.
  if (const auto in = group())
    attachment_.control().groups().groups[*in].releases.fetch_add(1, memory_order_release);
  attachment_.control().wake_coordinator();
}

// What an assignor of the user's makes of the group goes into the table, for the coordinator to check.
Status Membership::propose(std::uint32_t due) {
  const auto in = group();
  if (!in) return {};
  shm::GroupTableLayout& table = attachment_.control().groups();
  auto input = load_assignment_input(attachment_, *in);
  if (!input) return std::unexpected(input.error());
  Assignment assignment;
  try {
    assignment = options_.assignor.assign(input->members, input->topics);
  } catch (const std::exception& thrown) {
    logger().error("assignor '{}' threw: {}", options_.assignor.name, thrown.what());
  } catch (...) {
    logger().error("assignor '{}' threw something that is no std::exception", options_.assignor.name);
  }
  if (auto valid = check_assignment(input->members, input->topics, assignment); !valid) {
    logger().error("assignor '{}': {}", options_.assignor.name, valid.error().message);
    assignment.clear();
  }
  std::map<TopicPartition, std::uint16_t> owners;
  for (std::size_t m = 0; m < assignment.size(); ++m)
    for (const TopicPartition& partition : assignment[m])
      owners[partition] = static_cast<std::uint16_t>(input->slots[m] + 1);
  for (const auto& [partition, entry] : input->entries) {
    const auto owner = owners.find(partition);
    table.proposals[entry].store(owner == owners.end() ? std::uint16_t{0} : owner->second,
                                 memory_order_relaxed);
  }
  member_->assigned.store(due, memory_order_release);  // SYNC: pairs with the coordinator's take_proposal
  attachment_.control().wake_coordinator();
  return {};
}

// --- Positions -----------------------------------------------------------------------------------

bool Membership::commit(Tenancy& tenancy, Offset offset, std::string_view metadata) {
  shm::GroupPartition& entry = attachment_.control().groups().partitions[tenancy.entry];
  if (!metadata.empty() || tenancy.has_metadata) [[unlikely]] {
    // Whoever is too late leaves alone what was said of the position that still stands.
    if (load_standing(entry).tenure != tenancy.tenure) return false;
    store_metadata(entry, tenancy.tenure, offset.value(), metadata);
    tenancy.has_metadata = !metadata.empty();
  }
  return move_position(entry, tenancy.tenure, tenancy.committed, offset.value());
}

Status Membership::persist(std::chrono::nanoseconds timeout) {
  const auto in = group();
  if (!in) return fail(Code::stale_generation, fmt::format("not a member of group '{}'", options_.group_id));
  return persist_commits(attachment_, *in, timeout);
}

Tenancy* Membership::find(const TopicPartition& partition) {
  const auto found =
      std::ranges::find_if(held_, [&](const Tenancy& tenancy) { return tenancy.partition == partition; });
  return found == held_.end() ? nullptr : &*found;
}

}  // namespace ringtail::groups

// Every field of the control segment by name: what is written into one entry of each table, and read from it.
#pragma once

#include <cstdint>

#include "shm/control.h"

namespace ringtail::golden {

inline constexpr std::uint32_t kSlot = 3;
inline constexpr std::uint32_t kReader = 5;
inline constexpr std::uint32_t kEntry = 7;  // of a partition
inline constexpr std::uint32_t kGroup = 11;
inline constexpr std::uint32_t kGroupEntry = 13;  // of a partition in a group
inline constexpr std::uint32_t kId = 17;          // a transactional id

// Calls number(name, field, value) and text(name, field, value) for each; every number has another value, up to
// 255.
template <class Number, class Text>
class ControlFields {
 public:
  ControlFields(const shm::Control& control, Number number, Text text)
      : control_(control), number_(number), text_(text) {}

  void visit() {
    header();
    slot();
    reader();
    partition();
    member();
    group();
    group_partition();
    transactional_id();
  }

 private:
  template <class Field>
  void next(const char* name, Field& field) {
    number_(name, field, ++value_);
  }

  void header() {
    shm::ControlHeader& h = control_.header();
    next("keeper_wake", h.keeper_wake);
    next("keeper_asleep", h.keeper_asleep);
    next("keeper_term", h.keeper_term);
    next("keeper_pid", h.keeper_pid);
    next("keeper_ready", h.keeper_ready);
    next("catalog_wanted", h.catalog_wanted);
    next("catalog_done", h.catalog_done);
    next("slots_used", h.slots_used);
    next("readers_used", h.readers_used);
  }
  void slot() {
    shm::Slot& s = control_.slot(kSlot);
    next("Slot::word", s.word);
    next("Slot::token", s.token);
    next("Slot::pid", s.pid);
    next("Slot::role", s.role);
    next("Slot::start_ns", s.start_ns);
    next("Slot::name", s.name.front());
    next("Slot::name's end", s.name.back());
    next("Slot::op", s.op);
    next("Slot::open_position", s.open_position);
    next("Slot::given_up", s.given_up);
    next("Slot::given_up_done", s.given_up_done);
  }
  void reader() {
    shm::Reader& r = control_.reader(kReader);
    next("Reader::owner", r.owner);
    next("Reader::partition", r.partition);
    next("Reader::ring_generation", r.ring_generation);
    next("Reader::pin", r.pin);
    next("Reader::position", r.position);
    next("Reader::offset", r.offset);
  }
  void partition() {
    shm::Partition& p = control_.partition(kEntry);
    next("Partition::topic_id", p.topic_id);
    next("Partition::partition", p.partition);
    next("Partition::state", p.state);
    next("Partition::ring_generation", p.ring_generation);
    next("Partition::failure_code", p.failure_code);
    next("Partition::failure_errno", p.failure_errno);
    next("Partition::transactional", p.transactional);
    next("Partition::max_message_bytes", p.max_message_bytes);
    next("Partition::min_insync_replicas", p.min_insync_replicas);
    next("Partition::claim_timeout_ms", p.claim_timeout_ms);
    next("Partition::on_full", p.on_full);
    next("Partition::timestamp_type", p.timestamp_type);
    next("Partition::storage", p.storage);
    next("Partition::cleanup_policy", p.cleanup_policy);
    next("Partition::exclusive", p.exclusive);
    next("Partition::hot", p.hot);
    next("Partition::data_seq", p.data_seq);
    next("Partition::space_seq", p.space_seq);
    next("Partition::durable_seq", p.durable_seq);
    next("Partition::space_waiters", p.space_waiters);
    next("Partition::durable_waiters", p.durable_waiters);
    next("Partition::durable_position", p.durable_position);
    next("Partition::durable_offset", p.durable_offset);
    next("Partition::log_start_offset", p.log_start_offset);
    next("Partition::log_start_position", p.log_start_position);
    next("Partition::disk_bytes", p.disk_bytes);
    next("Partition::repaired_records", p.repaired_records);
    next("Partition::retired_rings", p.retired_rings);
    for (auto& mark : p.mark) {
      next("Mark::position", mark.position);
      next("Mark::offset", mark.offset);
      next("Mark::check", mark.check);
    }
    next("Partition::mark_turn", p.mark_turn);
    next("Partition::high_watermark", p.high_watermark);
    next("Partition::high_watermark_offset", p.high_watermark_offset);
    next("Partition::lease_deadline_ns", p.lease_deadline_ns);
    next("Partition::role", p.role);
    next("Partition::leader_epoch", p.leader_epoch);
    next("Partition::leader_node", p.leader_node);
    next("Partition::replicas", p.replicas);
    next("Partition::in_sync", p.in_sync);
    next("Partition::role_seq", p.role_seq);
    next("Partition::replicated_seq", p.replicated_seq);
    next("Partition::replicated_waiters", p.replicated_waiters);
    next("Partition::failure_text", p.failure_text.front());
    next("Partition::failure_text's end", p.failure_text.back());
  }
  void member() {
    shm::Member& m = control_.member(kSlot);
    next("Member::attention", m.attention);
    next("Member::answered", m.answered);
    next("Member::status", m.status);
    next("Member::group", m.group);
    next("Member::slot_word", m.slot_word);
    next("Member::joined_ns", m.joined_ns);
    next("Member::polled_ns", m.polled_ns);
    next("Member::commit_due", m.commit_due);
    next("Member::assign_due", m.assign_due);
    next("Member::refusal_code", m.refusal_code);
    next("Member::reply", m.reply);
    next("Member::polls", m.polls);
    next("Member::request", m.request);
    next("Member::kind", m.kind);
    next("Member::asker", m.asker);
    next("Member::max_poll_interval_ms", m.max_poll_interval_ms);
    next("Member::auto_commit_interval_ms", m.auto_commit_interval_ms);
    next("Member::by_pattern", m.by_pattern);
    next("Member::assigned", m.assigned);
    text_("Member::group_id", m.group_id, "a group");
    text_("Member::client_id", m.client_id, "a client");
    text_("Member::assignor", m.assignor, "an assignor");
    text_("Member::host", m.host, "a host");
    text_("Member::subscription", m.subscription, "a topic\nanother");
    text_("Member::refusal", m.refusal, "a refusal");
  }
  void group() {
    shm::GroupTableLayout& table = control_.groups();
    next("wake", table.wake);
    next("asleep", table.asleep);
    next("ready", table.ready);
    next("entries_used", table.entries_used);
    next("revision", table.revision);
    shm::Group& g = table.groups[kGroup];
    next("Group::state", g.state);
    next("Group::generation", g.generation);
    next("Group::members", g.members);
    next("Group::trouble_code", g.trouble_code);
    next("Group::empty_since_ns", g.empty_since_ns);
    text_("Group::group_id", g.group_id, "billing");
    text_("Group::assignor", g.assignor, "sticky");
    text_("Group::trouble", g.trouble, "no room");
    next("Group::commits_wanted", g.commits_wanted);
    next("Group::commits_done", g.commits_done);
    next("Group::releases", g.releases);
  }
  void group_partition() {
    shm::GroupTableLayout& table = control_.groups();
    next("assignments", table.assignments[kGroupEntry]);
    next("proposals", table.proposals[kGroupEntry]);
    shm::GroupPartition& p = table.partitions[kGroupEntry];
    next("GroupPartition::committed", p.committed);
    next("GroupPartition::tenure", p.tenure);
    next("GroupPartition::pending_offset", p.pending_offset);
    next("GroupPartition::pending", p.pending);
    next("GroupPartition::topic_id", p.topic_id);
    next("GroupPartition::partition", p.partition);
    next("GroupPartition::persistent", p.persistent);
    next("GroupPartition::persisted", p.persisted);
    next("GroupPartition::persisted_metadata", p.persisted_metadata);
    next("GroupPartition::committed_ns", p.committed_ns);
    next("GroupPartition::transactional", p.transactional);
    for (auto& metadata : p.metadata) {
      next("OffsetMetadata::check", metadata.check);
      next("OffsetMetadata::offset", metadata.offset);
      next("OffsetMetadata::tenure", metadata.tenure);
      text_("OffsetMetadata::text", metadata.text, "as of noon");
    }
  }
  void transactional_id() {
    shm::TransactionalId& t = control_.transactional_id(kId);
    next("TransactionalId::word", t.word);
    next("TransactionalId::producer_id", t.producer_id);
    next("TransactionalId::slot_word", t.slot_word);
    next("TransactionalId::slot", t.slot);
    next("TransactionalId::timeout_ms", t.timeout_ms);
    next("TransactionalId::durable", t.durable);
    next("TransactionalId::ended", t.ended);
    next("TransactionalId::ended_number", t.ended_number);
    next("TransactionalId::ended_aborted", t.ended_aborted);
    text_("TransactionalId::id", t.id, "billing-1");
    next("TransactionalId::partitions", t.partitions.front());
    next("TransactionalId::partitions' end", t.partitions.back());
  }

  const shm::Control& control_;
  Number number_;
  Text text_;
  std::uint64_t value_ = 0;
};

}  // namespace ringtail::golden

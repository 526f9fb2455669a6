#include "replication/placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <map>
#include <set>
#include <tuple>
#include <utility>

namespace ringtail::replication {

namespace {

struct Candidate {
  std::string rack;
  std::uint64_t replicas = 0;
  std::uint64_t leaderships = 0;
  std::map<NodeId, std::uint64_t> together;  // partitions that it shares with others
};

struct Rack {
  std::uint64_t nodes = 0;
  std::uint64_t replicas = 0;
};

class Placement {
 public:
  explicit Placement(const ClusterState& state) {
    for (const auto& [id, node] : state.nodes) {
      const NodeRecord* record = find_live(state, id);
      if (record != nullptr && !record->draining) candidates_[id].rack = record->rack;
    }
    for (const auto& [name, stored] : state.partitions) {
      count(stored.record.replicas);
      if (!stored.record.replicas.empty()) lead(stored.record.replicas.front(), 1);
    }
    for (const auto& [id, candidate] : candidates_) {
      ++racks_[candidate.rack].nodes;
      racks_[candidate.rack].replicas += candidate.replicas;
    }
  }

  std::size_t size() const { return candidates_.size(); }

  std::vector<NodeId> choose(std::uint32_t factor) {
    std::vector<NodeId> chosen;
    std::map<std::string, std::uint64_t> used;
    while (chosen.size() < factor) {
      const std::string rack = choose_rack(used, chosen);
      const NodeId node = choose_node(rack, chosen);
      ++used[rack];
      ++racks_[rack].replicas;
      chosen.push_back(node);
    }
    count(chosen);
    return chosen;
  }

  // Gives each of the partitions one of its replicas to lead, so that leaderships differ by as little as these
  // replicas allow.
  void balance_leaders(std::vector<std::vector<NodeId>>& partitions) {
    for (auto& replicas : partitions) {
      // Of those with as few, the one that has led these others least, so that their followers differ, too.
      const auto least = std::ranges::min_element(replicas, {}, [&](NodeId node) {
        std::uint64_t led = 0;
        for (const NodeId other : replicas) led += led_[{node, other}];
        return std::tuple(candidates_.at(node).leaderships, led, node);
      });
      lead(*least, 1);
      for (const NodeId other : replicas)
        if (other != *least) ++led_[{*least, other}];
      std::rotate(replicas.begin(), least, replicas.end());
    }
    while (shift_leadership(partitions)) {
    }
  }

 private:
  void count(const std::vector<NodeId>& replicas) {
    for (const NodeId node : replicas) {
      const auto candidate = candidates_.find(node);
      if (candidate == candidates_.end()) continue;
      ++candidate->second.replicas;
      for (const NodeId other : replicas)
        if (other != node) ++candidate->second.together[other];
    }
  }

  void lead(NodeId node, std::uint64_t more) {
    if (const auto candidate = candidates_.find(node); candidate != candidates_.end())
      candidate->second.leaderships += more;
  }

  // The least used for this partition; of these, the one with the fewest replicas for each node.
  std::string choose_rack(const std::map<std::string, std::uint64_t>& used,
                          const std::vector<NodeId>& chosen) const {
    std::set<std::string> open;
    for (const auto& [id, candidate] : candidates_)
      if (std::ranges::find(chosen, id) == chosen.end()) open.insert(candidate.rack);
    const auto times = [&](const std::string& rack) {
      const auto found = used.find(rack);
      return found == used.end() ? 0 : found->second;
    };
    return *std::ranges::min_element(open, [&](const std::string& a, const std::string& b) {
      const Rack& left = racks_.at(a);
      const Rack& right = racks_.at(b);
      return std::tuple(times(a), left.replicas * right.nodes) <
             std::tuple(times(b), right.replicas * left.nodes);
    });
  }

  // The one with the fewest replicas; of these, the one that has been with the chosen least often, so that the
  // leaderships of a node that dies go to many.
  NodeId choose_node(const std::string& rack, const std::vector<NodeId>& chosen) const {
    std::optional<std::tuple<std::uint64_t, std::uint64_t, NodeId>> best;
    for (const auto& [id, candidate] : candidates_) {
      if (candidate.rack != rack || std::ranges::find(chosen, id) != chosen.end()) continue;
      std::uint64_t together = 0;
      for (const NodeId other : chosen)
        if (const auto found = candidate.together.find(other); found != candidate.together.end())
          together += found->second;
      const std::tuple rank(candidate.replicas, together, id);
      if (!best || rank < *best) best = rank;
    }
    return std::get<NodeId>(*best);
  }

  // Hands one leadership along partitions that share replicas, from a node to one that has at least two fewer.
  bool shift_leadership(std::vector<std::vector<NodeId>>& partitions) {
    std::vector<NodeId> order;
    for (const auto& [id, candidate] : candidates_) order.push_back(id);
    std::ranges::sort(order, [&](NodeId a, NodeId b) {
      return std::tuple(candidates_.at(b).leaderships, a) < std::tuple(candidates_.at(a).leaderships, b);
    });
    return std::ranges::any_of(order, [&](NodeId from) { return shift_from(from, partitions); });
  }

  bool shift_from(NodeId from, std::vector<std::vector<NodeId>>& partitions) {
    std::map<NodeId, std::pair<NodeId, std::size_t>> reached{{from, {from, 0}}};  // from whom, by which
    std::deque<NodeId> open{from};
    while (!open.empty()) {
      const NodeId at = open.front();
      open.pop_front();
      if (candidates_.at(at).leaderships + 2 <= candidates_.at(from).leaderships) {
        lead(at, 1);
        --candidates_.at(from).leaderships;
        for (NodeId to = at; to != from; to = reached.at(to).first) {
          auto& replicas = partitions[reached.at(to).second];
          std::iter_swap(replicas.begin(), std::ranges::find(replicas, to));
        }
        return true;
      }
      for (std::size_t i = 0; i < partitions.size(); ++i) {
        if (partitions[i].front() != at) continue;
        for (const NodeId next : partitions[i])
          if (reached.emplace(next, std::pair(at, i)).second) open.push_back(next);
      }
    }
    return false;
  }

  std::map<NodeId, Candidate> candidates_;
  std::map<std::string, Rack> racks_;
  std::map<std::pair<NodeId, NodeId>, std::uint64_t> led_;  // how often the first leads the second
};

bool holds(std::span<const NodeId> nodes, NodeId node) {
  return std::ranges::find(nodes, node) != nodes.end();
}

// A crash of its host ends the life of a node's memory; what it has synced lives as long as its log directory.
bool is_alive(const NodeRecord& node, const std::string& life) {
  return life == node.life || life == node.log_id;
}

// In the ISR with a life that it still has.
bool in_sync(const PartitionRecord& record, const ClusterState& state, NodeId node) {
  const auto stored = state.nodes.find(node);
  if (stored == state.nodes.end()) return false;
  return std::ranges::any_of(record.isr, [&](const IsrMember& member) {
    return member.node == node && is_alive(stored->second.record, member.life);
  });
}

bool can_lead(const PartitionRecord& record, const ClusterState& state, NodeId node) {
  const NodeRecord* live = find_live(state, node);
  return live != nullptr && !live->draining && in_sync(record, state, node);
}

// The record, led by `leader`.
PartitionRecord led_by(const PartitionRecord& record, const ClusterState& state, NodeId leader) {
  PartitionRecord next = record;
  next.leader = leader;
  next.leader_incarnation = state.live.at(leader);
  next.leader_epoch = record.leader_epoch + 1;
  ++next.partition_epoch;
  next.unclean = false;
  if (next.wanted_leader == leader) next.wanted_leader.reset();
  std::erase_if(next.isr, [&](const IsrMember& member) {
    const auto node = state.nodes.find(member.node);
    return node != state.nodes.end() && !is_alive(node->second.record, member.life);
  });
  return next;
}

// Of `order`, the record's replicas.
template <class Suits>
std::optional<NodeId> first_of(std::span<const NodeId> order, const PartitionRecord& record, Suits suits) {
  // Who is about to go leads only when nobody else can.
  for (const bool going : {false, true})
    for (const NodeId node : order)
      if (holds(record.removing, node) == going && suits(node)) return node;
  return std::nullopt;
}

}  // namespace

Result<std::vector<std::vector<NodeId>>> place_replicas(const ClusterState& state, std::uint32_t partitions,
                                                        std::uint32_t factor) {
  Placement placement(state);
  if (factor == 0) return fail(Code::invalid_argument, "a partition needs at least one replica");
  if (placement.size() < factor) {
    return fail(
        Code::not_enough_replicas,
        fmt::format("{} replicas need as many nodes, and {} are alive and not draining; start more, or "
                    "lower the replication factor",
                    factor, placement.size()));
  }
  std::vector<std::vector<NodeId>> placed(partitions);
  for (auto& replicas : placed) replicas = placement.choose(factor);
  placement.balance_leaders(placed);
  return placed;
}

// --- Elections -----------------------------------------------------------------------------------

bool is_led(const PartitionRecord& record, const ClusterState& state) {
  if (!record.leader) return false;
  const NodeRecord* live = find_live(state, *record.leader);
  return live != nullptr && live->incarnation == record.leader_incarnation;
}

bool has_in_sync(const PartitionRecord& record, const ClusterState& state) {
  return std::ranges::any_of(record.replicas, [&](NodeId node) { return in_sync(record, state, node); });
}

std::optional<PartitionRecord> elect(const PartitionRecord& record, const ClusterState& state,
                                     bool allow_unclean) {
  const bool led = is_led(record, state);
  if (led && !find_live(state, *record.leader)->draining) return std::nullopt;
  const auto live = [&](NodeId node) { return find_live(state, node) != nullptr; };
  // A leader may give it away because it cannot lead, which no state tells of a node: from the front, two of these would
  // have it from each other for ever, and a third replica never.
  std::vector<NodeId> order = record.replicas;
  if (led) std::ranges::rotate(order, std::ranges::find(order, *record.leader));
  const auto first = [&](auto suits) { return first_of(order, record, suits); };
  auto leader = first([&](NodeId node) { return can_lead(record, state, node); });
  if (!leader && !led)
    leader = first([&](NodeId node) { return live(node) && in_sync(record, state, node); });
  if (leader) return led_by(record, state, *leader);
  if (led || !allow_unclean) return std::nullopt;

  leader = first([&](NodeId node) { return live(node) && !find_live(state, node)->draining; });
  if (!leader) leader = first(live);
  if (!leader) return std::nullopt;
  PartitionRecord next = led_by(record, state, *leader);
  next.unclean = true;
  next.isr = {{*leader, find_live(state, *leader)->life}};
  return next;
}

std::vector<PartitionRecord> move_to_preferred_leaders(const ClusterState& state, std::size_t most) {
  std::vector<PartitionRecord> moves;
  for (const auto& [name, stored] : state.partitions) {
    const PartitionRecord& record = stored.record;
    if (moves.size() == most) break;
    const NodeId preferred = record.replicas.front();
    if (!is_led(record, state) || record.leader == preferred || holds(record.removing, preferred)) continue;
    if (can_lead(record, state, preferred)) moves.push_back(led_by(record, state, preferred));
  }
  return moves;
}

// --- Reassignment --------------------------------------------------------------------------------

Result<PartitionRecord> begin_reassignment(const PartitionRecord& record, const ClusterState& state,
                                           std::span<const NodeId> target) {
  const auto refuse = [&](std::string_view why) {
    return fail(Code::invalid_argument,
                fmt::format("cannot reassign {}-{}: {}", record.topic, record.partition.value(), why));
  };
  if (target.empty()) return refuse("no node is named");
  for (const NodeId node : target) {
    if (std::ranges::count(target, node) > 1)
      return refuse(fmt::format("node {} is named twice", node.value()));
    if (!state.nodes.contains(node)) return refuse(fmt::format("there is no node {}", node.value()));
  }
  PartitionRecord next = record;
  if (record.adding.empty() && record.removing.empty()) next.origin = record.replicas;
  next.replicas.assign(target.begin(), target.end());
  next.adding.clear();
  next.removing.clear();
  // Who was about to go without ever having caught up is as new as those that come.
  const auto goes_in_vain = [&](NodeId node) {
    return holds(record.removing, node) &&
           std::ranges::find(record.isr, node, &IsrMember::node) == record.isr.end();
  };
  for (const NodeId node : target)
    if (!holds(record.replicas, node) || holds(record.adding, node) || goes_in_vain(node))
      next.adding.push_back(node);
  for (const NodeId node : record.replicas) {
    if (holds(target, node)) continue;
    next.replicas.push_back(node);
    next.removing.push_back(node);
  }
  if (next.adding.empty() && next.removing.empty()) next.origin.clear();
  ++next.partition_epoch;
  return next;
}

std::optional<PartitionRecord> step_reassignment(const PartitionRecord& record, const ClusterState& state) {
  if (record.adding.empty() && record.removing.empty()) return std::nullopt;
  if (!std::ranges::all_of(record.adding, [&](NodeId node) { return in_sync(record, state, node); }))
    return std::nullopt;
  const bool leader_goes = record.leader && holds(record.removing, *record.leader);
  if (leader_goes) {
    for (const NodeId node : record.replicas)
      if (!holds(record.removing, node) && can_lead(record, state, node)) return led_by(record, state, node);
    return std::nullopt;
  }
  PartitionRecord next = record;
  std::erase_if(next.replicas, [&](NodeId node) { return holds(record.removing, node); });
  std::erase_if(next.isr, [&](const IsrMember& member) { return holds(record.removing, member.node); });
  if (next.isr.empty()) return std::nullopt;  // the last copy is on a node that goes
  if (next.wanted_leader && !holds(next.replicas, *next.wanted_leader)) next.wanted_leader.reset();
  next.adding.clear();
  next.removing.clear();
  next.origin.clear();
  ++next.partition_epoch;
  return next;
}

}  // namespace ringtail::replication

// A flow of least cost. Every partition flows to one member, and from there to the sink; a member's k-th
// partition costs 2k - 1, so that all costs add up to the squares of the members' counts, and a partition
// that changes hands costs one more of a much smaller coin. A flow is the cheapest exactly when nothing can
// be gained by sending something round in a circle of what is left (Klein 1967). So: begin with what
// members own, deal out and level what a simple rule can, and go round while there are such circles. With
// equal subscriptions the simple rule leaves none.
#include "groups/sticky.h"

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "groups/member_order.h"

namespace ringtail::groups {

namespace {

using Cost = std::int64_t;
// Of evenness, in moves: more than a circle can have.
constexpr Cost kEven = Cost{1} << 24;
constexpr Cost kNever = Cost{1} << 60;
constexpr std::size_t kNone = ~std::size_t{0};

// Members are numbered by rank, partitions in the order of topics and numbers.
class Balancer {
 public:
  Balancer(std::span<const GroupMember> members, std::span<const GroupTopic> topics);

  void keep_owned();
  void deal_rest();
  void level();
  void go_round();
  Assignment result() const;

 private:
  struct Partition {
    std::size_t topic;
    PartitionId number;
    std::size_t member = kNone;
  };

  bool may_have(std::size_t member, std::size_t partition) const {
    return wanted_[partitions_[partition].topic * count_ + member] != 0;
  }
  Cost owns(std::size_t member, std::size_t partition) const { return owned_[partition * count_ + member]; }
  std::size_t load(std::size_t member) const { return held_[member].size(); }
  void give(std::size_t partition, std::size_t member);
  // The partition of `from` that costs least to move to `to`.
  struct Move {
    std::size_t partition = kNone;
    Cost cost = kNever;
  };
  Move cheapest(std::size_t from, std::size_t to) const;
  std::vector<std::size_t> by_load() const;
  bool level_once();
  void price(std::size_t from);
  Cost price_of(std::size_t from, std::size_t to) const;
  std::vector<std::size_t> find_circle() const;

  std::span<const GroupMember> members_;
  std::span<const GroupTopic> topics_;
  std::vector<std::size_t> order_;
  std::size_t count_;
  std::size_t sink_;
  std::vector<Partition> partitions_;
  std::vector<std::uint8_t> wanted_;  // topic x member: subscribes
  std::vector<std::uint8_t> owned_;   // partition x member: had it before, and may keep it
  std::vector<std::vector<std::size_t>> held_;
  std::vector<Move> moves_;  // member x member, kept up to date by price
};

Balancer::Balancer(std::span<const GroupMember> members, std::span<const GroupTopic> topics)
    : members_(members),
      topics_(topics),
      order_(by_id(members)),
      count_(members.size()),
      sink_(count_),
      wanted_(topics.size() * count_),
      held_(count_),
      moves_(count_ * count_) {
  std::vector<std::size_t> first_of;
  for (std::size_t t = 0; t < topics.size(); ++t) {
    bool anybody = false;
    for (std::size_t m = 0; m < count_; ++m) {
      const bool wants = subscribes(members[order_[m]], topics[t].name);
      wanted_[t * count_ + m] = wants ? 1 : 0;
      anybody |= wants;
    }
    first_of.push_back(partitions_.size());
    for (std::uint32_t p = 0; anybody && p < topics[t].partitions; ++p)
      partitions_.push_back({t, PartitionId(p)});
  }
  owned_.resize(partitions_.size() * count_);
  for (std::size_t m = 0; m < count_; ++m) {
    for (const TopicPartition& had : members[order_[m]].owned) {
      const GroupTopic* topic = find_topic(topics, had.topic);
      if (topic == nullptr || had.partition.value() >= topic->partitions) continue;
      const auto t = static_cast<std::size_t>(topic - topics.data());
      if (wanted_[t * count_ + m] != 0) owned_[(first_of[t] + had.partition.value()) * count_ + m] = 1;
    }
  }
}

void Balancer::give(std::size_t partition, std::size_t member) {
  Partition& p = partitions_[partition];
  if (p.member != kNone) std::erase(held_[p.member], partition);
  p.member = member;
  held_[member].push_back(partition);
}

void Balancer::keep_owned() {
  for (std::size_t p = 0; p < partitions_.size(); ++p) {
    for (std::size_t m = 0; m < count_ && partitions_[p].member == kNone; ++m) {
      if (owns(m, p) != 0) give(p, m);
    }
  }
}

// Those that fewest may have come first; each goes to the least loaded of these.
void Balancer::deal_rest() {
  std::vector<std::size_t> takers(topics_.size());
  for (std::size_t t = 0; t < topics_.size(); ++t) {
    const auto row = wanted_.begin() + static_cast<std::ptrdiff_t>(t * count_);
    takers[t] = std::accumulate(row, row + static_cast<std::ptrdiff_t>(count_), std::size_t{0});
  }
  std::vector<std::size_t> rest;
  for (std::size_t p = 0; p < partitions_.size(); ++p) {
    if (partitions_[p].member == kNone) rest.push_back(p);
  }
  std::sort(rest.begin(), rest.end(), [&](std::size_t a, std::size_t b) {
    return std::pair(takers[partitions_[a].topic], a) < std::pair(takers[partitions_[b].topic], b);
  });
  for (const std::size_t p : rest) {
    std::size_t best = kNone;
    for (std::size_t m = 0; m < count_; ++m) {
      if (may_have(m, p) && (best == kNone || load(m) < load(best))) best = m;
    }
    give(p, best);
  }
}

Balancer::Move Balancer::cheapest(std::size_t from, std::size_t to) const {
  Move best;
  for (const std::size_t p : held_[from]) {
    if (!may_have(to, p)) continue;
    const Cost cost = owns(from, p) - owns(to, p);
    // Of equals the last one goes, whatever way they came here.
    if (cost < best.cost || (cost == best.cost && p > best.partition)) best = {p, cost};
  }
  return best;
}

std::vector<std::size_t> Balancer::by_load() const {
  std::vector<std::size_t> ranked(count_);
  std::iota(ranked.begin(), ranked.end(), std::size_t{0});
  std::sort(ranked.begin(), ranked.end(),
            [&](std::size_t a, std::size_t b) { return std::pair(load(a), a) < std::pair(load(b), b); });
  return ranked;
}

// One partition from the most loaded member that can give one to the least loaded that can take it.
bool Balancer::level_once() {
  const std::vector<std::size_t> ranked = by_load();
  for (auto from = ranked.rbegin(); from != ranked.rend(); ++from) {
    for (const std::size_t to : ranked) {
      if (load(to) + 2 > load(*from)) break;
      if (const Move move = cheapest(*from, to); move.partition != kNone) {
        give(move.partition, to);
        return true;
      }
    }
  }
  return false;
}

void Balancer::level() {
  while (level_once()) {
  }
}

void Balancer::price(std::size_t from) {
  for (std::size_t to = 0; to < count_; ++to)
    moves_[from * count_ + to] = to == from ? Move{} : cheapest(from, to);
}

// What it costs to send one more from here to there; with the sink, what it changes of the squares.
Cost Balancer::price_of(std::size_t from, std::size_t to) const {
  if (to == sink_) return kEven * static_cast<Cost>(2 * load(from) + 1);
  if (from == sink_) return load(to) == 0 ? kNever : -kEven * static_cast<Cost>(2 * load(to) - 1);
  return moves_[from * count_ + to].cost;
}

// The parents' chains from a Bellman-Ford search (every node a start) close into a circle as soon as there
// is one that gains.
std::optional<std::vector<std::size_t>> circle_in(const std::vector<std::size_t>& parent) {
  std::vector<std::size_t> seen_from(parent.size(), kNone);
  for (std::size_t start = 0; start < parent.size(); ++start) {
    std::size_t at = start;
    while (at != kNone && seen_from[at] == kNone) {
      seen_from[at] = start;
      at = parent[at];
    }
    if (at == kNone || seen_from[at] != start) continue;
    std::vector<std::size_t> circle = {at};
    for (std::size_t next = parent[at]; next != at; next = parent[next]) circle.push_back(next);
    std::reverse(circle.begin(), circle.end());
    return circle;
  }
  return std::nullopt;
}

// Members, and perhaps the sink, in the order in which something goes round; empty when nothing is gained.
std::vector<std::size_t> Balancer::find_circle() const {
  const std::size_t nodes = count_ + 1;
  std::vector<Cost> distance(nodes, 0);
  std::vector<std::size_t> parent(nodes, kNone);
  for (;;) {
    bool shorter = false;
    for (std::size_t from = 0; from < nodes; ++from) {
      for (std::size_t to = 0; to < nodes; ++to) {
        if (from == to) continue;
        const Cost cost = price_of(from, to);
        if (cost == kNever || distance[from] + cost >= distance[to]) continue;
        distance[to] = distance[from] + cost;
        parent[to] = from;
        shorter = true;
      }
    }
    if (!shorter) return {};
    if (auto circle = circle_in(parent)) return *circle;
  }
}

void Balancer::go_round() {
  for (std::size_t m = 0; m < count_; ++m) price(m);
  for (auto circle = find_circle(); !circle.empty(); circle = find_circle()) {
    std::vector<std::pair<std::size_t, std::size_t>> gifts;  // partition, member
    for (std::size_t i = 0; i < circle.size(); ++i) {
      const std::size_t from = circle[i];
      const std::size_t to = circle[(i + 1) % circle.size()];
      if (from != sink_ && to != sink_) gifts.emplace_back(moves_[from * count_ + to].partition, to);
    }
    for (const auto& [partition, member] : gifts) give(partition, member);
    for (const std::size_t node : circle) {
      if (node != sink_) price(node);
    }
  }
}

Assignment Balancer::result() const {
  Assignment assignment(count_);
  for (const Partition& p : partitions_)
    assignment[order_[p.member]].push_back({topics_[p.topic].name, p.number});
  return assignment;
}

}  // namespace

Assignment assign_sticky(std::span<const GroupMember> members, std::span<const GroupTopic> topics) {
  Balancer balancer(members, topics);
  balancer.keep_owned();
  balancer.deal_rest();
  balancer.level();
  balancer.go_round();
  return balancer.result();
}

}  // namespace ringtail::groups

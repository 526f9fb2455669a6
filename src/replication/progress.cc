#include "replication/progress.h"

#include <algorithm>

namespace ringtail::replication {

using log::LogPoint;

void LeaderProgress::confirm(std::set<NodeId> isr) {
  isr_ = std::move(isr);
  proposed_.reset();
}

void LeaderProgress::on_ack(NodeId node, const LogPoint& end, const LogPoint& synced) {
  Follower& follower = followers_[node];
  follower.streaming = true;
  follower.end = std::max(follower.end, end);
  follower.synced = std::max(follower.synced, synced);
  if (node == self_ && synced >= mark_.end) stored_ns_ = std::max(stored_ns_, mark_.at_ns);
  if (node == self_ && synced >= mark_before_.end) stored_ns_ = std::max(stored_ns_, mark_before_.at_ns);
  // It has all that there was when the mark was made.
  if (has(follower) >= mark_.end)
    follower.caught_up_ns = std::max(follower.caught_up_ns, mark_.at_ns);
  else if (has(follower) >= mark_before_.end)
    follower.caught_up_ns = std::max(follower.caught_up_ns, mark_before_.at_ns);
}

void LeaderProgress::on_stream_begin(NodeId node) {
  Follower& follower = followers_[node];
  follower.end = follower.synced = {};
  follower.streaming = false;
}

void LeaderProgress::on_stream_end(NodeId node) {
  if (const auto found = followers_.find(node); found != followers_.end()) found->second.streaming = false;
}

void LeaderProgress::mark(const LogPoint& leader_end, std::int64_t now_ns) {
  mark_before_ = mark_;
  mark_ = {leader_end, now_ns};
  for (auto& [node, follower] : followers_) {
    if (follower.caught_up_ns == 0) follower.caught_up_ns = now_ns;  // its time begins
    if (follower.streaming && has(follower) >= leader_end) follower.caught_up_ns = now_ns;
  }
  if (stored_ns_ == 0 || followers_[self_].synced >= leader_end) stored_ns_ = now_ns;
  for (const NodeId node : isr_) {
    Follower& follower = followers_[node];
    if (follower.caught_up_ns == 0) follower.caught_up_ns = now_ns;
  }
}

LogPoint LeaderProgress::has(NodeId node) const {
  const auto found = followers_.find(node);
  return found == followers_.end() ? LogPoint{} : has(found->second);
}

LogPoint LeaderProgress::watermark() {
  if (isr_.size() < min_insync_ || isr_.empty()) return watermark_;
  LogPoint least = has(self_);
  for (const NodeId node : isr_) least = std::min(least, has(node));
  // Who is about to leave still counts, and so does who is about to come: which of both it will be is not known.
  if (proposed_)
    for (const NodeId node : *proposed_) least = std::min(least, has(node));
  watermark_ = std::max(watermark_, least);
  return watermark_;
}

std::vector<NodeId> LeaderProgress::lagging(std::int64_t now_ns, std::int64_t patience_ns) const {
  std::vector<NodeId> nodes;
  for (const NodeId node : isr_)
    if (is_lagging(node, now_ns, patience_ns)) nodes.push_back(node);
  return nodes;
}

bool LeaderProgress::is_lagging(NodeId node, std::int64_t now_ns, std::int64_t patience_ns) const {
  const Follower* const follower = node == self_ ? nullptr : find(node);
  // Before the first mark there is nothing that it could be measured by.
  return follower != nullptr && follower->caught_up_ns != 0 && now_ns - follower->caught_up_ns > patience_ns;
}

std::vector<NodeId> LeaderProgress::caught_up() const {
  std::vector<NodeId> nodes;
  for (const auto& [node, follower] : followers_)
    if (node != self_ && !isr_.contains(node) && has_all(node) && follower.end >= mark_before_.end &&
        mark_.at_ns > 0)
      nodes.push_back(node);
  return nodes;
}

bool LeaderProgress::has_all(NodeId node) const {
  const Follower* const follower = find(node);
  return follower != nullptr && follower->streaming && has(*follower) >= std::max(watermark_, start_);
}

const LeaderProgress::Follower* LeaderProgress::find(NodeId node) const {
  const auto found = followers_.find(node);
  return found == followers_.end() ? nullptr : &found->second;
}

}  // namespace ringtail::replication

#include "replication/local_coordinator.h"

#include <fmt/format.h>
#include <pthread.h>

#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "base/clock.h"
#include "base/files.h"
#include "base/random.h"
#include "replication/records.h"

namespace ringtail::replication {

namespace {

constexpr std::size_t kMaxFileBytes = 32 << 20;
constexpr std::size_t kIdBytes = 16;

using Json = nlohmann::json;

}  // namespace

Result<std::unique_ptr<LocalCoordinator>> LocalCoordinator::open(const std::filesystem::path& dir) {
  std::unique_ptr<LocalCoordinator> coordinator(new LocalCoordinator(dir / "cluster.json"));
  if (auto loaded = coordinator->load(); !loaded) return std::unexpected(loaded.error());
  return coordinator;
}

LocalCoordinator::~LocalCoordinator() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Status LocalCoordinator::load() {
  auto text = read_small_file(path_, kMaxFileBytes, FileOf::log);
  if (!text && text.error().code == Code::not_found) {
    std::array<std::byte, kIdBytes> id{};
    if (auto filled = fill_random(id); !filled) return filled;
    Values values;
    values[std::string(kIdentityKey)] = {encode_identity(to_hex(id), wall_clock_ns()), 1};
    return change(std::move(values), 1);
  }
  if (!text) return std::unexpected(text.error());
  const auto refuse = [&](std::string_view why) {
    return fail(Code::corrupt,
                fmt::format("'{}' is malformed: {}; restore it from a copy, or remove it if its "
                            "topics are to be registered anew",
                            path_.native(), why));
  };
  const Json json = Json::parse(*text, nullptr, false);
  if (!json.is_object()) return refuse("no object");
  // Ahead of the rest: in another version it may mean something else.
  const auto version = json.find("version");
  if (version == json.end() || !version->is_number_unsigned()) return refuse("no 'version'");
  if (version->get<std::uint64_t>() != kRecordVersion)
    return fail(
        Code::incompatible_layout,
        fmt::format("'{}' has version {}, this release reads version {}; use the release that wrote it, "
                    "or remove the file if its topics are to be registered anew",
                    path_.native(), version->get<std::uint64_t>(), kRecordVersion));
  if (!json.contains("records") || !json["records"].is_object()) return refuse("no object with 'records'");
  for (const auto& [key, item] : json["records"].items()) {
    const auto revision = item.find("revision");
    if (!item.is_object() || revision == item.end() || !revision->is_number_unsigned() ||
        !item.contains("value"))
      return refuse(fmt::format("'{}' has no revision or no value", key));
    values_[key] = {item["value"].dump(), revision->get<std::int64_t>()};
    revision_ = std::max(revision_, values_[key].revision);
  }
  if (const auto revision = json.find("revision"); revision != json.end() && revision->is_number_unsigned())
    revision_ = std::max(revision_, revision->get<std::int64_t>());
  publish();
  return {};
}

Status LocalCoordinator::store(const Values& values, std::int64_t revision) const {
  Json records = Json::object();
  for (const auto& [key, value] : values)
    records[key] = {{"revision", value.revision}, {"value", Json::parse(value.text, nullptr, false)}};
  const Json json{{"version", kRecordVersion}, {"revision", revision}, {"records", std::move(records)}};
  return write_file_atomically(path_, json.dump(1) + "\n");
}

// Makes `values` those that hold, on the disk first.
Status LocalCoordinator::change(Values values, std::int64_t revision) {
  if (auto stored = store(values, revision); !stored) {
    last_error_ = stored.error().message;
    return stored;
  }
  values_ = std::move(values);
  revision_ = revision;
  publish();
  return {};
}

void LocalCoordinator::publish() {
  builder_.clear();
  for (const auto& [key, value] : values_) builder_.put(key, value.text, value.revision);
  if (node_) builder_.put(live_key(node_->id), encode_live(node_->incarnation), revision_);
  builder_.set_revision(revision_);
  state_ = builder_.snapshot();
  changed_.notify_all();
}

// Tells of changes, as the thread of another coordinator would: never from within a commit.
void LocalCoordinator::run() {
  pthread_setname_np(pthread_self(), "ringtail-meta");
  std::shared_ptr<const ClusterState> told;
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stop_ || told != state_; });
    if (stop_) return;
    told = state_;
    const OnChange tell = on_change_;
    lock.unlock();
    if (tell) tell(told);
    lock.lock();
  }
}

void LocalCoordinator::set_on_change(OnChange on_change) {
  const std::lock_guard lock(mutex_);
  on_change_ = std::move(on_change);
}

Status LocalCoordinator::observe(std::chrono::milliseconds) {
  const std::lock_guard lock(mutex_);
  if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
  return {};
}

Status LocalCoordinator::join(const NodeRecord& node, const JoinOptions& options) {
  if (auto valid = check_record({node}); !valid) return valid;
  {
    const std::lock_guard lock(mutex_);
    const auto known = state_->nodes.find(node.id);
    if (known != state_->nodes.end() && known->second.record.log_id != node.log_id && !options.replace) {
      return fail(
          Code::invalid_argument,
          fmt::format("node {} of '{}' has the log {}, and this log is {}; to go on with this one, join "
                      "with `replace`",
                      node.id.value(), path_.native(), known->second.record.log_id, node.log_id));
    }
    Values values = values_;
    values[node_key(node.id)] = {encode(node), revision_ + 1};
    node_ = node;
    left_ = false;
    if (auto changed = change(std::move(values), revision_ + 1); !changed) {
      node_.reset();
      return changed;
    }
    deadline_ns_.store(std::numeric_limits<std::int64_t>::max(), std::memory_order_relaxed);
  }
  return observe(options.wait);
}

Status LocalCoordinator::leave() {
  const std::lock_guard lock(mutex_);
  deadline_ns_.store(0, std::memory_order_relaxed);
  if (!node_) return {};
  node_.reset();
  left_ = true;
  ++revision_;
  publish();
  return {};
}

// Nobody else reads the word for the sake of other memory, so its value alone counts.
std::int64_t LocalCoordinator::lease_deadline_ns() const {
  return deadline_ns_.load(std::memory_order_relaxed);
}

std::shared_ptr<const ClusterState> LocalCoordinator::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

Result<bool> LocalCoordinator::commit(std::span<const Change> changes) {
  if (auto valid = check_changes(changes); !valid) return std::unexpected(valid.error());
  const std::lock_guard lock(mutex_);
  if (left_) return fail(Code::closed, "this node has left the cluster");
  Values values = values_;
  for (const Change& wanted : changes) {
    const std::string key = key_of(wanted);
    const auto known = values.find(key);
    if ((known == values.end() ? 0 : known->second.revision) != wanted.revision) return false;
    if (wanted.remove)
      values.erase(key);
    else
      values[key] = {value_of(wanted), revision_ + 1};
  }
  if (auto changed = change(std::move(values), revision_ + 1); !changed)
    return std::unexpected(changed.error());
  return true;
}

CoordinatorHealth LocalCoordinator::health() const {
  const std::lock_guard lock(mutex_);
  return {
      .reachable = true, .endpoint = path_.string(), .last_error = last_error_, .seconds_since_contact = 0};
}

}  // namespace ringtail::replication

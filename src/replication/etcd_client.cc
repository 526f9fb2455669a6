#include "replication/etcd_client.h"

#include <fmt/format.h>

namespace ringtail::replication {

namespace {

using Json = nlohmann::json;

constexpr std::size_t kPairsAtOnce = 500;  // far below the size at which etcd cuts messages off

// The first key behind all that begin with `prefix`.
std::string end_of(std::string prefix) {
  prefix.back() = static_cast<char>(prefix.back() + 1);
  return prefix;
}

std::string as_text(std::int64_t number) { return std::to_string(number); }

const Json& member(const Json& object, const char* name) {
  static const Json nothing = Json::object();
  const auto field = object.find(name);
  return field == object.end() ? nothing : *field;
}

std::int64_t revision_of(const Json& answer) { return number_in(member(answer, "header"), "revision"); }

EtcdKeyValue pair_of(const Json& json) {
  return {from_base64(text_in(json, "key")), from_base64(text_in(json, "value")),
          number_in(json, "mod_revision"), number_in(json, "lease")};
}

void take_pairs(const Json& answer, std::vector<EtcdKeyValue>& pairs) {
  for (const Json& json : member(answer, "kvs")) pairs.push_back(pair_of(json));
}

Json range_of(const std::string& key) { return {{"request_range", {{"key", to_base64(key)}}}}; }

// The range answers among those of a transaction.
std::vector<EtcdKeyValue> found_in(const Json& answer) {
  std::vector<EtcdKeyValue> found;
  for (const Json& response : member(answer, "responses"))
    take_pairs(member(response, "response_range"), found);
  return found;
}

EtcdLease lease_of(const Json& json) {
  return {number_in(json, "ID"), std::chrono::seconds(number_in(json, "TTL"))};
}

}  // namespace

Result<EtcdRange> read_prefix(EtcdConnection& connection, const std::string& prefix) {
  EtcdRange range;
  std::string from = prefix;
  for (;;) {
    Json body{{"key", to_base64(from)},
              {"range_end", to_base64(end_of(prefix))},
              {"limit", as_text(kPairsAtOnce)},
              {"sort_order", "ASCEND"},
              {"sort_target", "KEY"}};
    if (range.revision != 0) body["revision"] = as_text(range.revision);
    const auto answer = connection.post("/v3/kv/range", body, Effect::repeatable);
    if (!answer) return std::unexpected(answer.error());
    if (range.revision == 0) range.revision = revision_of(*answer);
    if (range.revision <= 0) return fail(Code::system, "etcd names no revision in its answer");
    take_pairs(*answer, range.pairs);
    if (!flag_in(*answer, "more") || range.pairs.empty()) return range;
    from = range.pairs.back().key + '\0';
  }
}

Result<EtcdRange> read_keys(EtcdConnection& connection, const std::vector<std::string>& keys) {
  Json body{{"success", Json::array()}};
  for (const std::string& key : keys) body["success"].push_back(range_of(key));
  const auto answer = connection.post("/v3/kv/txn", body, Effect::repeatable);
  if (!answer) return std::unexpected(answer.error());
  return EtcdRange{revision_of(*answer), found_in(*answer)};
}

Result<EtcdVerdict> transact(EtcdConnection& connection, const EtcdTransaction& transaction) {
  Json compare = Json::array();
  Json success = Json::array();
  Json failure = Json::array();
  for (const auto& [key, revision] : transaction.revisions)
    compare.push_back({{"key", to_base64(key)},
                       {"target", "MOD"},
                       {"result", "EQUAL"},
                       {"mod_revision", as_text(revision)}});
  for (const auto& [key, lease] : transaction.leases)
    compare.push_back(
        {{"key", to_base64(key)}, {"target", "LEASE"}, {"result", "EQUAL"}, {"lease", as_text(lease)}});
  for (const auto& [key, value, lease] : transaction.puts) {
    Json put{{"key", to_base64(key)}, {"value", to_base64(value)}};
    if (lease != 0) put["lease"] = as_text(lease);
    success.push_back({{"request_put", std::move(put)}});
  }
  for (const std::string& key : transaction.removals)
    success.push_back({{"request_delete_range", {{"key", to_base64(key)}}}});
  for (const std::string& key : transaction.otherwise) failure.push_back(range_of(key));
  const auto answer = connection.post(
      "/v3/kv/txn",
      {{"compare", std::move(compare)}, {"success", std::move(success)}, {"failure", std::move(failure)}},
      Effect::once);
  if (!answer) return std::unexpected(answer.error());
  return EtcdVerdict{flag_in(*answer, "succeeded"), revision_of(*answer), found_in(*answer)};
}

// --- Leases --------------------------------------------------------------------------------------

Result<EtcdLease> grant_lease(EtcdConnection& connection, std::chrono::seconds time_to_live) {
  // Whichever of two grants comes to nothing runs out by itself.
  const auto answer =
      connection.post("/v3/lease/grant", {{"TTL", as_text(time_to_live.count())}}, Effect::repeatable);
  if (!answer) return std::unexpected(answer.error());
  const EtcdLease lease = lease_of(*answer);
  if (lease.id == 0 || lease.time_to_live.count() <= 0)
    return fail(Code::system, fmt::format("etcd grants no lease: {}", answer->dump()));
  return lease;
}

Result<EtcdLease> keep_lease_alive(EtcdConnection& connection, std::int64_t lease) {
  // The answer is a stream of one message.
  const auto answer = connection.post("/v3/lease/keepalive", {{"ID", as_text(lease)}}, Effect::repeatable);
  if (!answer) return std::unexpected(answer.error());
  if (answer->contains("error")) {
    return fail(Code::system,
                fmt::format("etcd does not keep the lease alive: {}", member(*answer, "error").dump()));
  }
  const EtcdLease kept = lease_of(member(*answer, "result"));
  if (kept.id != lease) return fail(Code::system, "etcd answers for another lease");
  return kept;
}

Result<EtcdMembers> list_members(EtcdConnection& connection) {
  auto answer = connection.post("/v3/cluster/member/list", Json::object(), Effect::repeatable);
  if (!answer) return std::unexpected(answer.error());
  EtcdMembers members;
  const auto list = answer->find("members");
  if (list == answer->end() || !list->is_array()) return fail(Code::system, "etcd does not name its members");
  for (const Json& member : *list) {
    ++members.count;
    const auto urls = member.find("clientURLs");
    if (urls == member.end() || !urls->is_array() || urls->empty() || !urls->front().is_string()) continue;
    std::string host = urls->front().get<std::string>();
    if (const std::size_t scheme = host.find("://"); scheme != std::string::npos) host.erase(0, scheme + 3);
    host.erase(std::min(host.rfind(':'), host.size()));
    if (std::ranges::find(members.hosts, host) == members.hosts.end()) members.hosts.push_back(host);
  }
  return members;
}

Status revoke_lease(EtcdConnection& connection, std::int64_t lease) {
  const auto answer = connection.post("/v3/lease/revoke", {{"ID", as_text(lease)}}, Effect::repeatable);
  if (answer || answer.error().code == Code::not_found) return {};
  return std::unexpected(answer.error());
}

// --- Watching ------------------------------------------------------------------------------------

namespace {

constexpr std::size_t kMaxMessageBytes = 64 << 20;

// Takes a stream of messages, one a line, apart.
class WatchReader {
 public:
  WatchReader(Watch& watch, const OnEvents& on_events) : watch_(watch), on_events_(on_events) {}

  bool take(std::string_view data) {
    rest_ += data;
    std::size_t begin = 0;
    for (std::size_t end; (end = rest_.find('\n', begin)) != std::string::npos; begin = end + 1)
      if (end != begin &&
          !take_message(Json::parse(rest_.begin() + static_cast<std::ptrdiff_t>(begin),
                                    rest_.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false)))
        return false;
    rest_.erase(0, begin);
    if (rest_.size() <= kMaxMessageBytes) return true;
    refusal_ = "its message does not end";
    return false;
  }

  bool compacted() const { return compacted_; }
  const std::string& refusal() const { return refusal_; }

 private:
  bool take_message(const Json& message) {
    // It may have told of a change, which those behind it must not hide.
    if (!message.is_object()) refusal_ = "it sends what is no message";
    const Json& result = member(message, "result");
    if (const auto error = message.find("error"); error != message.end()) refusal_ = error->dump();
    if (flag_in(result, "canceled")) {
      compacted_ = number_in(result, "compact_revision") > 0;
      refusal_ = text_in(result, "cancel_reason");
      if (refusal_.empty()) refusal_ = "it gives no reason";
    }
    if (compacted_ || !refusal_.empty()) return false;
    std::vector<EtcdEvent> events;
    for (const Json& json : member(result, "events"))
      events.push_back({text_in(json, "type") == "DELETE", pair_of(member(json, "kv"))});
    if (!events.empty()) {
      watch_.next_revision = events.back().pair.mod_revision + 1;
      return on_events_(events);
    }
    // Word of progress: all up to this revision has been told.
    if (!flag_in(result, "created") && revision_of(result) >= watch_.next_revision)
      watch_.next_revision = revision_of(result) + 1;
    return true;
  }

  Watch& watch_;
  const OnEvents& on_events_;
  std::string rest_;
  std::string refusal_;
  bool compacted_ = false;
};

}  // namespace

Result<WatchEnd> watch_prefix(EtcdConnection& connection, Watch& watch, const OnEvents& on_events) {
  WatchReader reader(watch, on_events);
  auto heard = std::chrono::steady_clock::now();
  const Json body{{"create_request",
                   {{"key", to_base64(watch.prefix)},
                    {"range_end", to_base64(end_of(watch.prefix))},
                    {"start_revision", as_text(watch.next_revision)},
                    {"progress_notify", true}}}};
  const Status streamed = connection.stream("/v3/watch", body, watch.idle, [&](std::string_view data) {
    heard = std::chrono::steady_clock::now();
    return reader.take(data);
  });
  if (!streamed) return std::unexpected(streamed.error());
  if (reader.compacted()) return WatchEnd::compacted;
  if (!reader.refusal().empty()) {
    connection.note_refusal(reader.refusal());
    return fail(Code::system, fmt::format("etcd does not watch: {}", reader.refusal()));
  }
  return std::chrono::steady_clock::now() - heard >= watch.idle ? WatchEnd::idle : WatchEnd::broken;
}

}  // namespace ringtail::replication

// Requests to etcd, as plain functions over a connection: keys, transactions, leases, and watching.
//
// Thread safety: that of the connection. Errors: those of EtcdConnection::post, but where more is said.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "replication/etcd_connection.h"

namespace ringtail::replication {

struct EtcdKeyValue {
  std::string key;
  std::string value;
  std::int64_t mod_revision = 0;
  std::int64_t lease = 0;
};

struct EtcdRange {
  std::int64_t revision = 0;  // of the store when it was read
  std::vector<EtcdKeyValue> pairs;
};

// All keys that begin with `prefix`, at one revision; read in parts, so that it may be any number.
Result<EtcdRange> read_prefix(EtcdConnection& connection, const std::string& prefix);

// The keys named, at one revision; those that are missing are left out. All members agree on what is read.
Result<EtcdRange> read_keys(EtcdConnection& connection, const std::vector<std::string>& keys);

struct EtcdTransaction {
  struct Put {
    std::string key;
    std::string value;
    std::int64_t lease = 0;
  };

  // What must hold; else nothing is done.
  std::vector<std::pair<std::string, std::int64_t>> revisions;  // of keys; 0: there must be none
  std::vector<std::pair<std::string, std::int64_t>> leases;     // by which keys are held
  std::vector<Put> puts;
  std::vector<std::string> removals;
  std::vector<std::string> otherwise;  // keys to be read when something did not hold
};

struct EtcdVerdict {
  bool succeeded = false;
  std::int64_t revision = 0;        // of the store behind it
  std::vector<EtcdKeyValue> found;  // of `otherwise`
};

// Errors: timed_out means that the outcome is unknown.
Result<EtcdVerdict> transact(EtcdConnection& connection, const EtcdTransaction& transaction);

struct EtcdLease {
  std::int64_t id = 0;
  std::chrono::seconds time_to_live{0};  // as granted, which may be more than what was asked for; 0: gone
};

Result<EtcdLease> grant_lease(EtcdConnection& connection, std::chrono::seconds time_to_live);
Result<EtcdLease> keep_lease_alive(EtcdConnection& connection, std::int64_t lease);
// That it is gone already is no error.
Status revoke_lease(EtcdConnection& connection, std::int64_t lease);

// The members of etcd, by the hosts at which clients reach them; a host that several are on is named once.
struct EtcdMembers {
  std::size_t count = 0;
  std::vector<std::string> hosts;
};
Result<EtcdMembers> list_members(EtcdConnection& connection);

// One change of a key. A removal has no value.
struct EtcdEvent {
  bool removed = false;
  EtcdKeyValue pair;
};

// Why watching has ended.
enum class WatchEnd {
  broken,     // the connection, or the watcher was told to end
  idle,       // nothing came; the member may hang as well as there may be no changes
  compacted,  // the history from `next_revision` on is no longer there: read everything anew
};

struct Watch {
  std::string prefix;
  std::int64_t next_revision = 0;  // from which on changes are wanted; moves on with what has been told
  std::chrono::milliseconds idle{5'000};
};

// Follows all keys that begin with the prefix. `on_events` gets the changes of one or more whole revisions;
// false ends it. Blocks. Errors: those of EtcdConnection::stream, permission_denied, system (etcd refuses).
using OnEvents = std::function<bool(const std::vector<EtcdEvent>&)>;
Result<WatchEnd> watch_prefix(EtcdConnection& connection, Watch& watch, const OnEvents& on_events);

}  // namespace ringtail::replication

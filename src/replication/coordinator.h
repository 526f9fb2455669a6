// What the hosts of a cluster know of each other, and how they change it: the records, an immutable snapshot
// of all of them, and the interface to the store that keeps them.
//
// Every change compares the revisions that its author has seen, so two hosts never overwrite each other. Leases
// serve liveness only: a node that holds one is alive for the others; what it may do is in the records.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "ringtail/admin.h"
#include "ringtail/error.h"
#include "ringtail/record.h"
#include "ringtail/types.h"

namespace ringtail::replication {

// Number of a node within its cluster, 1 to 65535, chosen by whoever sets the cluster up.
using NodeId = StrongInt<struct NodeIdTag, std::uint32_t>;
inline constexpr std::uint32_t kMaxNodeId = 65535;

struct Address {
  std::string host;
  std::uint16_t port = 0;

  friend bool operator==(const Address&, const Address&) = default;
};

// A node as it registered itself.
struct NodeRecord {
  NodeId id{0};
  std::uint64_t incarnation = 0;  // random for each start of its daemon, never 0
  std::int64_t started_ns = 0;    // since the Unix epoch
  Address replication;            // where other nodes reach it
  Address http;                   // metrics and dashboard; no host: none
  std::string rack;               // replicas of a partition are spread over racks; may be empty
  std::string log_id;             // identity of its log directory, 32 hexadecimal digits
  std::string life;               // identity of what it would lose in a crash of its host, hexadecimal
  bool draining = false;          // leads nothing that another node could lead
  std::string release;            // of its daemon
  std::map<NodeId, std::string> unreached =
      {};  // nodes it cannot connect to although they are alive, and why

  friend bool operator==(const NodeRecord&, const NodeRecord&) = default;
};

struct TopicRecord {
  std::string name;
  std::uint64_t topic_id = 0;
  std::uint32_t partitions = 0;
  std::uint32_t replication_factor = 0;
  TopicConfigs configs;
  std::int64_t created_ns = 0;  // since the Unix epoch

  friend bool operator==(const TopicRecord&, const TopicRecord&) = default;
};

// An in-sync replica: a node, and the life in which it has the records. In another life it may lack some.
struct IsrMember {
  NodeId node{0};
  std::string life;  // NodeRecord::life, or its log_id where replicas have a record only once it is synced

  friend bool operator==(const IsrMember&, const IsrMember&) = default;
};

struct PartitionRecord {
  std::string topic;
  std::uint64_t topic_id = 0;
  PartitionId partition{0};
  std::vector<NodeId> replicas;  // the preferred leader first
  std::vector<IsrMember> isr;
  std::optional<NodeId> leader;
  std::uint64_t leader_incarnation = 0;
  LeaderEpoch leader_epoch{0};
  std::uint64_t partition_epoch = 0;  // rises by one with each change of this record
  bool unclean = false;               // the last election took a replica that may lack acknowledged records
  std::vector<NodeId> adding;         // of replicas: those that a reassignment brings in
  std::vector<NodeId> removing;       // of replicas: those that it takes out once the others are in sync
  // Replicas before the reassignment that is under way, in their order. Empty: none is, or an older release wrote this.
  std::vector<NodeId> origin = {};
  // Who is to lead, by somebody's wish: the leader hands over to it when it can, and takes the wish back.
  std::optional<NodeId> wanted_leader = {};

  friend bool operator==(const PartitionRecord&, const PartitionRecord&) = default;
};

// What holds for the whole cluster.
struct ClusterSettings {
  std::int64_t replication_throttle_bytes_per_s = 0;  // of catching up, for each node; 0: none

  friend bool operator==(const ClusterSettings&, const ClusterSettings&) = default;
};

// A record, and the revision of the store in which it was last changed; 0: it is not there.
template <class Record>
struct Stored {
  Record record;
  std::int64_t revision = 0;

  friend bool operator==(const Stored&, const Stored&) = default;
};

// A value that cannot be read, which is left out of the state.
struct MalformedRecord {
  std::int64_t revision = 0;
  std::string why;  // names the key

  friend bool operator==(const MalformedRecord&, const MalformedRecord&) = default;
};

// All that was known at one revision of the store. Immutable once handed out; may be kept as long as one likes.
struct ClusterState {
  std::string cluster_id;     // identity of the metadata, 32 hexadecimal digits; another one: they were lost
  std::int64_t revision = 0;  // of the store; 0: nothing has been read yet
  // How often all records were read anew, because changes had gone unseen or the store had lost its data: what is not
  // there since may never have been removed.
  std::uint64_t gaps = 0;
  std::map<NodeId, Stored<NodeRecord>> nodes;
  std::map<NodeId, std::uint64_t> live;  // incarnations of the nodes whose lease stands
  std::map<std::string, Stored<TopicRecord>, std::less<>> topics;
  std::map<TopicPartition, Stored<PartitionRecord>> partitions;
  Stored<ClusterSettings> settings;
  std::map<std::string, MalformedRecord, std::less<>> malformed;  // by key, without the cluster's prefix
};

// The record of a node that is alive in the incarnation it is registered with; null otherwise.
const NodeRecord* find_live(const ClusterState& state, NodeId id);

// A record to be put, or removed, if it still has the revision in which the author of the change has seen it.
struct Change {
  std::variant<NodeRecord, TopicRecord, PartitionRecord, ClusterSettings> record;
  std::int64_t revision = 0;  // 0: there must be no such record
  bool remove = false;        // then only what names the record counts
};

struct JoinOptions {
  bool replace = false;  // take over the id of a node whose log directory was another
  std::chrono::milliseconds wait{10'000};
};

struct CoordinatorHealth {
  bool reachable = false;             // the last exchange with the store succeeded
  std::string endpoint;               // the last one tried
  std::string last_error;             // kept after recovery; empty: there was none
  double seconds_since_contact = -1;  // negative: there was no contact yet
  std::string refusal = {};           // why this node is not registered; empty: it is, or is not to be
};

// Thread safety: all members may be called from any thread, but neither join, observe and leave at once, nor
// any of these three from the callback. Lifetime: destroying it ends its threads without leave(), as a crash
// would: the lease runs out by itself.
class Coordinator {
 public:
  using OnChange = std::function<void(std::shared_ptr<const ClusterState>)>;

  // Changes of one commit at most: etcd's 128 operations, less the one that compares the lease.
  static constexpr std::size_t kMaxChanges = 127;

  virtual ~Coordinator() = default;

  // Who is told of each change, of nodes that come and go as well, on the coordinator's own thread; changes
  // that come close together may be told once. Called before join or observe.
  virtual void set_on_change(OnChange on_change) = 0;

  // Begins to follow the state without being a node: for tools. Returns when it has been read.
  // Errors: timed_out (nothing could be read within `wait`; it goes on trying). Blocks up to `wait`.
  virtual Status observe(std::chrono::milliseconds wait) = 0;

  // Registers this node under a lease, and keeps the lease alive from then on, through any loss of the store:
  // a lease that ran out is taken anew with the same incarnation. Returns when state() contains the node.
  // A living node with the same log directory and address is this daemon's predecessor: it is superseded,
  // for two processes cannot hold one log directory.
  // Errors: timed_out (the store did not answer within `wait`; the attempts go on, and health() tells);
  // already_exists (the id is another living node's), invalid_argument (malformed record, or the id belongs to
  // another log directory and `replace` is not set), incompatible_layout (another release keeps the node's records
  // or the cluster's identity), permission_denied: nothing goes on. Blocks up to `wait`.
  virtual Status join(const NodeRecord& node, const JoinOptions& options = {}) = 0;

  // Gives the lease back, so that the others see it at once. Errors: timed_out (the lease runs out by itself).
  // Blocks until the store has answered, for a few seconds at most.
  virtual Status leave() = 0;

  // Until when (CLOCK_BOOTTIME) the lease stands for the others with certainty: the time at which the last
  // acknowledged keep-alive was sent, plus the time to live. 0: there is no lease. A margin for clocks that
  // run unequally is the caller's. Lock-free.
  virtual std::int64_t lease_deadline_ns() const = 0;

  // The latest state; never null. A commit of one's own is in it once the callback has told.
  virtual std::shared_ptr<const ClusterState> state() const = 0;

  // Makes all the changes, or none. A node's commit also depends on its lease, so that nobody writes after
  // losing it; who has only observed has none and may write without.
  // True: made. False: something had changed meanwhile; look at the new state, and decide again.
  // Errors: timed_out (outcome unknown: the changes may have been made, or may yet be), fenced (this node has no
  // lease now: nothing was changed), limit_exceeded (more than kMaxChanges), invalid_argument (malformed, or
  // one record twice), permission_denied, system (the store cannot be reached: nothing was changed), closed
  // (this node has left). Blocks.
  virtual Result<bool> commit(std::span<const Change> changes) = 0;

  // Ends the registration of a node whose daemon has died, so that nobody waits for its lease to run out. For those
  // who know: its host refuses connections. One that lives nevertheless registers anew, and leads nothing until then.
  // Of another incarnation than this, nothing is ended. False: it is not registered so.
  // Errors: as commit. Blocks.
  virtual Result<bool> expel(NodeId node, std::uint64_t incarnation) = 0;

  virtual CoordinatorHealth health() const = 0;
};

}  // namespace ringtail::replication

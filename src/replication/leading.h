// A partition that this node leads: ships what is appended to its followers, and knows how far they are.
//
// One reader, the head, walks all that is appended; whoever is where the head is gets each piece from it. A
// follower that is behind has a reader of its own until it has come up. What stands only in files is read on
// another thread, so that nobody else waits for the disk.
//
// Thread safety: the network's thread. Lifetime: the context must outlive it.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "log/partition_reader.h"
#include "log/role.h"
#include "replication/network.h"
#include "replication/progress.h"
#include "shm/slots.h"

namespace ringtail::replication {

// How much may be read from files for followers that catch up: a bucket that fills up with time.
class Throttle {
 public:
  // 0: no limit.
  void set_rate(std::int64_t bytes_per_s) { rate_ = bytes_per_s; }
  // To be told the time now and then.
  void refill(std::int64_t now_ns);
  bool is_set() const { return rate_ != 0; }
  bool open() const { return !is_set() || tokens_ > 0; }
  // What was taken while there was no limit is not owed.
  void take(std::size_t bytes) {
    if (is_set()) tokens_ -= static_cast<double>(bytes);
  }

 private:
  std::int64_t rate_ = 0;
  double tokens_ = 0;
  std::int64_t refilled_ns_ = 0;
};

// What all partitions of a replicator share.
struct ShipContext {
  NodeId self{0};
  std::size_t window_bytes = 0;
  Network* network = nullptr;
  std::uint32_t slot = 0;                            // liveness slot of the replicator's readers
  std::function<void(std::function<void()>)> fetch;  // runs it on the thread that reads files
  std::function<void(std::function<void()>)> post;   // on the network's thread
  Throttle throttle;
  std::uint64_t bytes_shipped = 0;
  std::uint64_t bytes_received = 0;
};

class LeadingPartition {
 public:
  // Errors: those of PartitionReader::open_for_shipping.
  static Result<std::unique_ptr<LeadingPartition>> open(ShipContext& context, const log::RoleOutcome& outcome,
                                                        LeaderEpoch epoch, bool synced,
                                                        std::uint32_t min_insync);
  ~LeadingPartition();

  LeaderEpoch epoch() const { return epoch_; }
  LeaderProgress& progress() { return progress_; }
  const LeaderProgress& progress() const { return progress_; }
  const log::PartitionRef& partition() const { return partition_; }
  // What its record says of the in-sync replicas.
  void confirm(std::set<NodeId> isr, std::size_t replicas);
  // What it takes for a record to be confirmed, from now on.
  void require(std::uint32_t min_insync, bool synced);

  // A follower asks to be shipped this partition.
  void on_follow(Link& link, const Message& message);
  void on_ack(NodeId node, const Message& message);
  void end_stream(NodeId node);
  // More of this host's own copy has been synced.
  void on_synced();

  // Ships what there is, as far as followers take it. True when there was something, or has been since the last call: what
  // was fetched is shipped as soon as it is there.
  bool pump();
  // Before sleeping: has producers ring. True: something came meanwhile.
  bool arm_bell();
  // Before a short sleep that ends by itself: has those ring who wait for replicas. False: somebody does already.
  bool rest();
  // Now and then: notes where the log ends, so that lag can be told.
  void mark(std::int64_t now_ns);

  // Whether a follower has to be read for from files.
  bool is_behind() const;
  // Whether there is more to ship once a follower, or the connection to it, takes it.
  bool is_held_up() const { return held_up_; }

  log::LogPoint end();
  // The first trouble with its log, if any: it can ship no more.
  const std::optional<Error>& failure() const { return failure_; }

 private:
  // What another thread has read from files for a follower.
  struct Fetched {
    std::vector<std::byte> bytes;
    io::FileBytes unchecked;  // or this
    log::LogPoint end;
    std::optional<Error> error;

    std::size_t size() const { return bytes.size() + unchecked.size(); }
  };
  struct Stream {
    log::LogPoint sent;
    log::LogPoint acked;
    bool streaming = false;                        // the follower is ready
    bool fetching = false;                         // its reader is with the other thread
    bool told = true;                              // it knows the watermark
    bool unchecked = true;                         // it takes frames that nobody has looked at
    std::shared_ptr<log::PartitionReader> reader;  // while it is behind the head
    std::deque<Fetched> ahead = {};                // to be sent, from `sent` on

    // Whether what is appended there is what it gets next.
    bool is_at(const log::LogPoint& place) const { return sent == place && !fetching && ahead.empty(); }
  };

  LeadingPartition(ShipContext& context, const log::RoleOutcome& outcome, LeaderEpoch epoch, bool synced,
                   std::uint32_t min_insync);

  bool asks_in_vain(NodeId node, std::int64_t now_ns) const;
  MessageHeader header(MessageType type) const;
  bool may_send(NodeId node, const Stream& stream) const;
  bool may_fetch(NodeId node) const;
  MessageHeader frames_header(const Stream& stream) const;
  void send_frames(NodeId node, Stream& stream, std::span<const std::byte> bytes, const log::LogPoint& end,
                   bool is_final);
  void send_unchecked(NodeId node, Stream& stream, io::FileBytes bytes, const log::LogPoint& end);
  bool pump_head();
  bool must_wait() const;
  bool step_over();
  void end_rest();
  bool pump_behind(NodeId node, Stream& stream);
  bool send_ahead(NodeId node, Stream& stream);
  void tell_trouble(NodeId node, const Error& error);
  bool take_reader(NodeId node, Stream& stream);
  void begin_fetch(NodeId node, Stream& stream);
  static void read_files(log::PartitionReader& reader, bool unchecked, Fetched& to);
  void on_fetched(NodeId node, const std::shared_ptr<log::PartitionReader>& reader, Fetched fetched,
                  bool is_last);
  void update_watermark();
  void tell_watermark();
  void refuse(Link& link, const std::string& why);
  void fail(Error error);

  ShipContext& context_;
  log::PartitionRef partition_;
  LeaderEpoch epoch_;
  log::EpochList epochs_;
  LeaderProgress progress_;
  std::unique_ptr<log::PartitionReader> head_;
  std::map<NodeId, Stream> streams_;
  std::map<NodeId, std::int64_t> asking_since_ns_;  // of those who have not begun to take what they ask for
  log::LogPoint watermark_;
  bool held_up_ = false;
  bool shipped_ = false;  // since the last pump
  bool resting_ = false;
  std::optional<Error> failure_;
  std::string trouble_;  // that was told last
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace ringtail::replication

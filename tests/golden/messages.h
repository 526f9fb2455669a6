// What goes over the wire between hosts, and single frames of every kind: what is written, and what is to be
// read.
#pragma once

#include <string>
#include <vector>

#include "replication/records.h"
#include "replication/wire.h"

namespace ringtail::golden {

struct WireMessage {
  std::string name;
  replication::MessageHeader header;  // as it is sent; sizes and checksum are made
  std::string body;
  replication::Compression compression = replication::Compression::none;
};
std::vector<WireMessage> wire_messages();

struct KindOfFrame {
  std::string name;
  std::vector<std::byte> bytes;
  std::string description;  // as describe_frame gives it, but for its checksum
};
std::vector<KindOfFrame> kinds_of_frames();

// Records of a cluster.
replication::NodeRecord node();
replication::TopicRecord topic();
replication::PartitionRecord partition();
inline constexpr replication::ClusterSettings kSettings{.replication_throttle_bytes_per_s = 52'428'800};
inline constexpr std::uint64_t kIncarnation = 0xffff'ffff'ffff'fffe;

}  // namespace ringtail::golden

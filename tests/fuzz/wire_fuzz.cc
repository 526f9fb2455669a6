// What other hosts send, and what stands in the cluster's store: messages, bodies that are compressed, lists of
// epochs, frames to be appended, records. Half of the inputs get checksums that fit, to come past them.
#include <algorithm>
#include <array>
#include <memory>

#include "base/crc32c.h"
#include "fuzz/harness/scene.h"
#include "replication/records.h"
#include "replication/wire.h"
#include "unit/log/replica_test_support.h"

namespace ringtail::replication {
namespace {

using fuzz::demand;
using fuzz::Input;

constexpr std::uint32_t kMostBody = 1 << 16;

std::vector<std::byte> to_bytes(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

void use_epochs(std::span<const std::byte> body) {
  const auto epochs = decode_epochs(body);
  if (!epochs) return;
  const auto again = encode_epochs(*epochs);
  demand(std::ranges::equal(again, body), "a list of epochs is encoded as it was");
  const log::LogPoint end{Position(1'000), Offset(100)};
  const log::LogPoint common = log::common_end(*epochs, end, *epochs, end);
  demand(common <= end, "what is in common is not more than there is");
}

void use_message(std::span<const std::byte> bytes) {
  std::vector<std::byte> unpacked;
  const auto parsed = parse_message(bytes, unpacked, kMostBody);
  if (!parsed || parsed->bytes == 0) return;
  demand(parsed->bytes <= bytes.size(), "a message lies within its bytes");
  demand(parsed->message.body.size() == parsed->message.header.raw_bytes,
         "a body is as long as its header says");
  const auto body = parsed->message.body;
  fuzz::touch({reinterpret_cast<const char*>(body.data()), body.size()});
  use_epochs(body);
}

// A good header, but for what the input says of it.
void use_likely_message(Input& input) {
  MessageHeader header;
  header.type = static_cast<MessageType>(input.pick(9));
  header.compression = static_cast<Compression>(input.pick(4));
  header.flags = static_cast<std::uint8_t>(input.pick(16));
  header.position = input.take<std::uint64_t>();
  const bool odd = input.one_of(8);
  const std::uint32_t raw = input.one_of(2) ? static_cast<std::uint32_t>(input.pick(kMostBody * 2)) : 0;
  const std::string_view body = input.rest();
  header.body_bytes = static_cast<std::uint32_t>(body.size()) + (odd ? 1 : 0);
  header.raw_bytes = raw == 0 ? header.body_bytes : raw;
  const auto covered = (header.flags & kUnchecked) != 0 ? std::string_view() : body;
  header.crc32c = crc32c(crc32c(0, std::as_bytes(std::span(&header, 1))), std::as_bytes(std::span(covered)));
  std::vector<std::byte> bytes(sizeof header);
  std::memcpy(bytes.data(), &header, sizeof header);
  const auto behind = to_bytes(body);
  bytes.insert(bytes.end(), behind.begin(), behind.end());
  use_message(bytes);
}

void send_and_receive(Input& input) {
  MessageHeader header;
  header.type = MessageType::frames;
  const auto how = static_cast<Compression>(input.pick(3));
  const std::uint64_t copies = 1 + input.pick(20);
  std::string body;
  const std::string_view piece = input.rest();
  for (std::uint64_t i = 0; i < copies && body.size() + piece.size() <= kMostBody; ++i) body += piece;
  std::vector<std::byte> sent;
  append_message(sent, header, to_bytes(body), how);
  std::vector<std::byte> unpacked;
  const auto parsed = parse_message(sent, unpacked, kMostBody);
  demand(parsed && parsed->bytes == sent.size(), "what is sent is received");
  demand(std::ranges::equal(parsed->message.body, to_bytes(body)), "as it was");
  for (std::size_t cut = 0; cut < std::min<std::size_t>(sent.size(), 100); ++cut) {
    const auto part = parse_message(std::span(sent).first(cut), unpacked, kMostBody);
    demand(part && part->bytes == 0, "a part of a message is not complete");
  }
}

// --- Frames to be appended -----------------------------------------------------------------------

// Whole frames, as a leader ships them, with one word that is another.
void ship_frames(Input& input) {
  static std::unique_ptr<log::ReplicaHost> host;
  static std::uint64_t used = 0;
  if (!host || ++used % 256 == 0) {
    host = std::make_unique<log::ReplicaHost>(Storage::memory);
    host->take({.role = shm::ReplicaRole::follower, .epoch = LeaderEpoch(1), .leader_node = 1});
  }
  log::ReplicaWriter& writer = *host->outcome().writer;
  const log::LogPoint at = writer.end();
  std::vector<std::uint64_t> words;
  std::uint64_t offset = at.offset.value();
  for (std::uint64_t n = input.pick(6); n > 0; --n) {
    const std::size_t begin = words.size();
    const auto extent = static_cast<std::uint32_t>(32 + 8 * input.pick(20));
    const auto records =
        static_cast<std::uint32_t>(input.one_of(2) ? input.pick(3) : input.take<std::uint32_t>());
    words.resize(begin + extent / 8);
    format::write_filler(words.data() + begin,
                         input.one_of(2) ? format::FrameType::pad : format::FrameType::aborted, extent,
                         Offset(offset), records);
    offset += records;
  }
  if (!words.empty() && input.one_of(2)) words[input.pick(words.size())] = input.take<std::uint64_t>();
  const auto bytes = std::as_bytes(std::span(words));
  const auto taken = writer.append(LeaderEpoch(1), at.position,
                                   bytes.first(bytes.size() - (input.one_of(4) ? bytes.size() % 64 : 0)));
  const log::LogPoint end = writer.end();
  demand(taken ? end.position == at.position + *taken : end == at,
         "what was appended is where the log ends now");
  demand(host->end() == end, "and others find the same end");
  host->turn();
}

// --- The cluster's store -------------------------------------------------------------------------

template <class Record, class Decode>
void use_record(Decode decode, std::string_view key, std::string_view value) {
  const Result<Record> first = decode(key, value);
  if (!first) return demand(!first.error().message.empty(), "a refusal says why");
  const Result<Record> second = decode(key, encode(*first));
  demand(second && *second == *first, "a record is encoded as it was");
}

void use_records(Input& input) {
  const std::uint64_t kind = input.pick(6);
  static constexpr std::array<std::string_view, 6> kKeys = {
      "nodes/1", "topics/orders", "partitions/orders/0", "settings", "live/1", "identity"};
  std::string_view key = kKeys[kind];
  if (input.one_of(4)) key = input.text(40);
  const std::string_view value = input.rest();
  switch (kind) {
    case 0: return use_record<NodeRecord>(decode_node, key, value);
    case 1: return use_record<TopicRecord>(decode_topic, key, value);
    case 2: return use_record<PartitionRecord>(decode_partition, key, value);
    case 3: return use_record<ClusterSettings>(decode_settings, key, value);
    case 4: static_cast<void>(decode_live(key, value)); break;
    default: static_cast<void>(decode_identity(key, value));
  }
  static_cast<void>(node_of_live_key(key));
}

}  // namespace
}  // namespace ringtail::replication

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ringtail::replication;
  ringtail::fuzz::fail_at_once();
  ringtail::fuzz::Input input(data, size);
  switch (input.pick(6)) {
    case 0: use_message(to_bytes(input.rest())); break;
    case 1: use_likely_message(input); break;
    case 2: send_and_receive(input); break;
    case 3: use_epochs(to_bytes(input.rest())); break;
    case 4: ship_frames(input); break;
    default: use_records(input);
  }
  return 0;
}

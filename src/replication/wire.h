// What hosts say to each other: one header of fixed size, then a body. wire.md beside this file is the
// specification of who says what when.
//
// Little-endian. Every message carries its checksum, over the header with that field zero and the body, as it
// goes over the wire; or over the header alone, if the body is of frames from a file, which have their own.
//
// Thread and process safety: pure functions on values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "log/epoch_list.h"
#include "ringtail/error.h"
#include "ringtail/types.h"

namespace ringtail::replication {

inline constexpr std::uint32_t kWireMagic = 0x31505252;  // "RRP1"
inline constexpr std::uint16_t kWireVersion = 2;
// Of a body, before and after compression. A frame is at most an eighth of the largest term.
inline constexpr std::uint32_t kMaxBodyBytes = 16 << 20;

enum class MessageType : std::uint8_t {
  hello = 1,  // the first message of either side; body: who it is, as JSON
  follow =
      2,  // follower to leader: ship me this partition; position and offset: where my log ends; body: my epochs
  start = 3,   // leader to follower: what I ship begins at position and offset; body: my epochs
  frames = 4,  // leader to follower: body: whole frames that stand at position; mark: high watermark
  ack = 5,     // follower to leader: my log ends at position; mark: it is synced up to there
  refuse = 6,  // either way: not in this epoch, or not at all; the stream is at its end; body: why
  ping = 7,    // either way, when there is nothing else to say
};

enum MessageFlags : std::uint8_t {
  kRestart = 1u << 0,   // start: the follower's log has nothing in common with this one, and begins anew
  kAskAgain = 1u << 1,  // refuse: the leader is ready now
  kUnchecked =
      1u << 2,  // frames: the message's checksum is of the header alone, and nobody has looked at the frames
  kCheckAll = 1u << 3,  // follow: nothing unchecked is to be shipped
};

enum class Compression : std::uint8_t { none = 0, lz4 = 1, zstd = 2 };

struct MessageHeader {
  std::uint32_t magic = kWireMagic;
  std::uint16_t version = kWireVersion;
  MessageType type = MessageType::ping;
  Compression compression = Compression::none;
  std::uint32_t body_bytes = 0;  // as sent
  std::uint32_t raw_bytes = 0;   // of the body, uncompressed
  std::uint64_t topic_id = 0;
  std::uint32_t partition = 0;
  std::uint32_t leader_epoch = 0;
  std::uint64_t position = 0;
  std::uint64_t offset = 0;
  std::uint64_t mark_position = 0;
  std::uint64_t mark_offset = 0;
  std::uint8_t flags = 0;
  std::uint8_t reserved[3] = {};
  std::uint32_t crc32c = 0;
};
inline constexpr std::size_t kMessageHeaderBytes = 72;
static_assert(sizeof(MessageHeader) == kMessageHeaderBytes);
static_assert(offsetof(MessageHeader, type) == 6);
static_assert(offsetof(MessageHeader, body_bytes) == 8);
static_assert(offsetof(MessageHeader, topic_id) == 16);
static_assert(offsetof(MessageHeader, partition) == 24);
static_assert(offsetof(MessageHeader, position) == 32);
static_assert(offsetof(MessageHeader, mark_position) == 48);
static_assert(offsetof(MessageHeader, flags) == 64);
static_assert(offsetof(MessageHeader, crc32c) == 68);

// Which partition a message is about.
struct StreamId {
  std::uint64_t topic_id = 0;
  std::uint32_t partition = 0;

  friend auto operator<=>(const StreamId&, const StreamId&) = default;
};
inline StreamId stream_of(const MessageHeader& header) { return {header.topic_id, header.partition}; }

// What was received. The body is valid until the receiver returns.
struct Message {
  MessageHeader header;
  std::span<const std::byte> body;

  log::LogPoint at() const { return {Position(header.position), Offset(header.offset)}; }
  log::LogPoint mark() const { return {Position(header.mark_position), Offset(header.mark_offset)}; }
  LeaderEpoch epoch() const { return LeaderEpoch(header.leader_epoch); }
};

// Appends header and body to `out`, compressed if that is asked for and pays.
void append_message(std::vector<std::byte>& out, MessageHeader header, std::span<const std::byte> body,
                    Compression compression = Compression::none);

// The header of a message whose body follows it as it is, and must not change until it is sent.
MessageHeader complete_header(MessageHeader header, std::span<const std::byte> body);

// The header of a message whose body of `body_bytes` follows it unchecked.
std::vector<std::byte> encode_unchecked(MessageHeader header, std::size_t body_bytes);

// The message at the begin of `bytes`, and how many bytes it takes; 0: it is not complete yet. A compressed body
// is unpacked into `unpacked`. Never reads beyond `bytes`, whatever they are. A body of more than `max_body_bytes`,
// as sent or unpacked, is refused by its header.
// Errors: corrupt (no message of this protocol, a checksum, a size), incompatible_layout (another version).
struct Parsed {
  std::size_t bytes = 0;
  Message message;
};
Result<Parsed> parse_message(std::span<const std::byte> bytes, std::vector<std::byte>& unpacked,
                             std::uint32_t max_body_bytes = kMaxBodyBytes);

// Lists of epochs as bodies. Errors: corrupt.
std::vector<std::byte> encode_epochs(const log::EpochList& epochs);
Result<log::EpochList> decode_epochs(std::span<const std::byte> body);

}  // namespace ringtail::replication

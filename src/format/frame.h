// The frame: one record (or pad, or aborted claim) as it stands in rings, in segment files and on
// the wire. frame.md beside this file is the specification with a worked example.
//
// A frame starts at a multiple of 8 and occupies `align_frame(length)` bytes. The first 8 bytes are
// one atomic word, the state word: its low half is the signed length (negative: claimed, still being
// written; positive: committed, exact number of bytes), its high half type, attributes and extent.
//
// Layout, little-endian:
//
//    0  i32  length            whole frame with header, without alignment; negative while claimed
//    4  u8   type              FrameType
//    5  u8   attributes        Attributes; aborted frames: low byte of extent / 8
//    6  u16  reserved          0; aborted frames: high bytes of extent / 8
//    8  u64  offset            of this record, or of the first record this frame stands for
//   16  i64  timestamp_ns      since the Unix epoch
//   24  u32  key_length        data; pad and aborted: number of offsets the frame uses up
//   28  u32  crc32c            0 while in the ring and unchecked; while claimed: the owner's slot
//   32       [extension 24 B] key, value, [headers, u32 headers_length]
//
// The extension, behind the header of records of idempotent and transactional producers and of markers:
//
//   32  u64  producer_id       never 0
//   40  u32  producer_epoch
//   44  u32  transaction       number within the epoch, from 1; 0: not transactional
//   48  u64  sequence          of the record in its partition, from 0; 0 in markers
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>

#include "ringtail/error.h"
#include "ringtail/record.h"
#include "ringtail/types.h"

namespace ringtail::format {

static_assert(std::endian::native == std::endian::little, "frames are little-endian in memory");

inline constexpr std::uint32_t kFrameAlignment = 8;
inline constexpr std::uint32_t kFrameHeaderBytes = 32;
inline constexpr std::uint32_t kExtensionBytes = 24;
// Every frame, and thus every term that frames fill, stays below this.
inline constexpr std::uint32_t kMaxFrameBytes = 64u << 20;

enum class FrameType : std::uint8_t {
  none = 0,        // no frame: bytes that nobody has written
  data = 1,        // one record
  pad = 2,         // fills the rest of a term or block; readers step over it
  aborted = 3,     // a claim that was never committed; its offsets stay unused
  control = 4,     // a transaction marker
  compressed = 5,  // a batch of records in one compressed frame
};

enum Attributes : std::uint8_t {
  kHasKey = 1u << 0,     // a key is present (it may be empty)
  kNullValue = 1u << 1,  // no value (a tombstone); otherwise a value is present (maybe empty)
  kHasHeaders = 1u << 2,
  kHasExtension = 1u << 3,   // producer id, epoch and sequence follow the header
  kTransactional = 1u << 4,  // visible to read_committed readers only after its commit marker
};
inline constexpr std::uint8_t kKnownAttributes = 0x1f;

struct FrameHeader {
  std::int32_t length;
  FrameType type;
  std::uint8_t attributes;
  std::uint16_t reserved;
  std::uint64_t offset;
  std::int64_t timestamp_ns;
  std::uint32_t key_length;
  std::uint32_t crc32c;
};
static_assert(sizeof(FrameHeader) == kFrameHeaderBytes);
static_assert(offsetof(FrameHeader, length) == 0);
static_assert(offsetof(FrameHeader, type) == 4);
static_assert(offsetof(FrameHeader, attributes) == 5);
static_assert(offsetof(FrameHeader, reserved) == 6);
static_assert(offsetof(FrameHeader, offset) == 8);
static_assert(offsetof(FrameHeader, timestamp_ns) == 16);
static_assert(offsetof(FrameHeader, key_length) == 24);
static_assert(offsetof(FrameHeader, crc32c) == 28);

// Who appended a record, and which of his it is.
struct Extension {
  std::uint64_t producer_id;
  std::uint32_t producer_epoch;
  std::uint32_t transaction;
  std::uint64_t sequence;

  friend bool operator==(const Extension&, const Extension&) = default;
};
static_assert(sizeof(Extension) == kExtensionBytes);
static_assert(offsetof(Extension, producer_id) == 0);
static_assert(offsetof(Extension, producer_epoch) == 8);
static_assert(offsetof(Extension, transaction) == 12);
static_assert(offsetof(Extension, sequence) == 16);

// Tells the end of a transaction: no record of it stands behind its marker.
enum class MarkerKind : std::uint16_t {
  abort = 0,
  commit = 1,
  abort_all = 2,  // written after the host crashed: aborts whatever is still open before it
};
// Nobody's: in the extension of MarkerKind::abort_all.
inline constexpr std::uint64_t kEveryProducer = ~std::uint64_t{0};

// The value of a control frame, behind the extension.
struct MarkerBody {
  std::uint16_t version;
  MarkerKind kind;
  std::uint32_t reserved;
};
inline constexpr std::uint32_t kMarkerBodyBytes = 8;
inline constexpr std::uint16_t kMarkerVersion = 0;
static_assert(sizeof(MarkerBody) == kMarkerBodyBytes);
static_assert(offsetof(MarkerBody, version) == 0);
static_assert(offsetof(MarkerBody, kind) == 2);
static_assert(offsetof(MarkerBody, reserved) == 4);
inline constexpr std::uint32_t kMarkerFrameBytes = kFrameHeaderBytes + kExtensionBytes + kMarkerBodyBytes;

constexpr std::uint32_t align_frame(std::uint32_t length) {
  return (length + (kFrameAlignment - 1)) & ~(kFrameAlignment - 1);
}

// --- The state word ------------------------------------------------------------------------------

// Claimed, `claim_bytes` long in all; nothing else of the frame may be read but its owner.
constexpr std::uint64_t claimed_word(std::uint32_t claim_bytes) {
  return static_cast<std::uint32_t>(-static_cast<std::int32_t>(claim_bytes));
}
constexpr std::uint64_t committed_word(std::uint32_t length, FrameType type, std::uint8_t attributes) {
  return std::uint64_t{length} | std::uint64_t{static_cast<std::uint8_t>(type)} << 32 |
         std::uint64_t{attributes} << 40;
}
// An aborted frame carries its size twice: a late store of the length by the claim's owner, which
// touches the low half alone, cannot hide where the frame ends.
constexpr std::uint64_t aborted_word(std::uint32_t extent) {
  return std::uint64_t{extent} | std::uint64_t{static_cast<std::uint8_t>(FrameType::aborted)} << 32 |
         std::uint64_t{extent / kFrameAlignment} << 40;
}

// A hole that the keeper has taken and is about to make an aborted frame of. Not resolved yet; no commit or
// abort of a claim in it succeeds any more, whatever its owner stores into the low half.
inline constexpr std::uint64_t kSeizedBit = std::uint64_t{1} << 63;
constexpr std::uint64_t seized_word(std::uint32_t extent) { return claimed_word(extent) | kSeizedBit; }
constexpr bool word_is_seized(std::uint64_t word) { return (word & kSeizedBit) != 0; }

constexpr std::int32_t word_length(std::uint64_t word) {
  return static_cast<std::int32_t>(static_cast<std::uint32_t>(word));
}
constexpr FrameType word_type(std::uint64_t word) { return static_cast<FrameType>(word >> 32 & 0xff); }
constexpr std::uint8_t word_attributes(std::uint64_t word) {
  return static_cast<std::uint8_t>(word >> 40 & 0xff);
}
constexpr bool word_is_resolved(std::uint64_t word) {
  return word_length(word) > 0 || word_type(word) == FrameType::aborted;
}
// Bytes that a claim holds, for a word with a negative length; bytes of other processes: any number.
constexpr std::uint64_t claimed_bytes(std::uint64_t word) {
  constexpr std::uint64_t mask = kFrameAlignment - 1;
  return (std::uint64_t{0u - static_cast<std::uint32_t>(word)} + mask) & ~mask;
}
// Bytes the frame occupies, for a resolved word.
constexpr std::uint32_t word_extent(std::uint64_t word) {
  return word_type(word) == FrameType::aborted ? static_cast<std::uint32_t>(word >> 40) * kFrameAlignment
                                               : align_frame(static_cast<std::uint32_t>(word));
}

inline std::atomic_ref<std::uint64_t> state_word(void* frame) {
  return std::atomic_ref<std::uint64_t>(*static_cast<std::uint64_t*>(frame));
}
inline std::uint64_t load_state_word(const void* frame, std::memory_order order) {
  return std::atomic_ref<std::uint64_t>(*const_cast<std::uint64_t*>(static_cast<const std::uint64_t*>(frame)))
      .load(order);
}
static_assert(std::atomic_ref<std::uint64_t>::is_always_lock_free);

// --- Reading -------------------------------------------------------------------------------------

inline FrameHeader load_header(const void* frame) {
  FrameHeader header;
  std::memcpy(&header, frame, sizeof header);
  return header;
}

// The header of a resolved frame that other processes can write to while it is looked at: read once, with
// the state word that was found. What is checked of the copy stays so.
inline FrameHeader load_header_once(const void* frame, std::uint64_t word) {
  FrameHeader header = load_header(frame);
  std::memcpy(&header, &word, sizeof word);
  asm volatile("" : : : "memory");  // so that the compiler does not read it again in place of the copy
  return header;
}

// Number of offsets a resolved frame uses up: 1 for records, the count in pads and aborted frames.
constexpr std::uint64_t frame_records(const FrameHeader& header) {
  switch (header.type) {
    case FrameType::pad:
    case FrameType::aborted: return header.key_length;
    default: return 1;
  }
}

// Why bytes are no valid frame.
enum class FrameFault : std::uint8_t {
  none,
  empty,           // the length is zero: nothing was written here
  claimed,         // the length is negative: never committed
  truncated,       // the frame goes on behind the end of the bytes at hand
  bad_length,      // below the header, or above kMaxFrameBytes, or extent differs from length
  bad_type,        // unknown type, attributes or reserved bits
  bad_key_length,  // key, extension or headers do not fit into the frame
  bad_headers,     // headers malformed
  bad_extension,   // no such producer, or the transaction's number and the attributes differ
  bad_marker,      // a control frame that is no marker of a known kind and version
  bad_crc,
  foreign,  // a type, attributes or a marker that this release does not know, under a checksum that is right
  offset_gap,  // the offset is not the one that follows its predecessor's
};
std::string_view to_string(FrameFault fault);

// Checks the structure of a frame that starts at bytes[0] and is resolved; does not check its CRC.
// Never reads beyond `bytes`. Complexity: constant, plus the number of headers.
FrameFault check_structure(std::span<const std::byte> bytes);
// The same by a header that was read once, for bytes that other processes can write to.
FrameFault check_structure(const FrameHeader& header, std::span<const std::byte> bytes);

// CRC32C of the frame as it is to stand in its crc32c field: over bytes [0, 28) and, but for pads and
// aborted frames, [32, length). Requires a frame without structural fault.
std::uint32_t frame_crc(std::span<const std::byte> frame);

// Structure, then CRC, then offset (`expected` < 0: any). What the structure has that this release does not know
// is damage where the CRC is wrong, and otherwise what a later release has written: foreign.
FrameFault check_frame(std::span<const std::byte> bytes, std::int64_t expected_offset);

// The record in a data frame that is structurally valid by this header: no part of it reaches beyond the
// frame, whatever is written there meanwhile. Requires type data.
inline Record decode_record(const FrameHeader& header, const void* frame, const TopicPartition* source) {
  const char* base = static_cast<const char*>(frame);
  std::uint32_t begin = kFrameHeaderBytes;
  std::uint32_t end = static_cast<std::uint32_t>(header.length);
  Record record;
  record.offset = Offset(header.offset);
  record.timestamp_ns = header.timestamp_ns;
  record.source = source;
  if (header.attributes & (kHasHeaders | kHasExtension | kHasKey | kNullValue)) [[unlikely]] {
    if (header.attributes & kHasExtension) begin += kExtensionBytes;
    if (header.attributes & kHasHeaders) {
      std::uint32_t headers_length;
      std::memcpy(&headers_length, base + end - sizeof headers_length, sizeof headers_length);
      end -= std::uint32_t{sizeof headers_length};
      const std::uint32_t key_length = header.attributes & kHasKey ? header.key_length : 0;
      if (headers_length > end - begin - key_length)
        headers_length = 0;  // it was another when it was checked
      end -= headers_length;
      record.headers = Headers(std::string_view(base + end, headers_length));
    }
    if (header.attributes & kHasKey) {
      record.key = std::string_view(base + begin, header.key_length);
      begin += header.key_length;
    }
    if (header.attributes & kNullValue) return record;
  }
  record.value = std::string_view(base + begin, end - begin);
  return record;
}

// The same of a frame that nobody writes to.
inline Record decode_record(const void* frame, const TopicPartition* source) {
  return decode_record(load_header(frame), frame, source);
}

// The extension of a frame whose header says that it has one.
inline Extension load_extension(const void* frame) {
  Extension extension;
  std::memcpy(&extension, static_cast<const char*>(frame) + kFrameHeaderBytes, sizeof extension);
  return extension;
}

// The extension of a structurally valid frame, if it has one. Requires a type other than pad and aborted.
inline std::optional<Extension> extension_of(const void* frame) {
  if (!(load_header(frame).attributes & kHasExtension)) return std::nullopt;
  return load_extension(frame);
}

// What a structurally valid control frame says. Requires type control.
inline MarkerKind marker_kind(const void* frame) {
  MarkerBody body;
  std::memcpy(&body, static_cast<const char*>(frame) + kFrameHeaderBytes + kExtensionBytes, sizeof body);
  return body.kind;
}
std::string_view to_string(MarkerKind kind);

// --- Writing -------------------------------------------------------------------------------------

// Bytes of the encoded headers with their trailing length; 0 without headers.
std::uint64_t encoded_headers_bytes(std::span<const Header> headers);

// Bytes of a data frame, unaligned. 64 bits, so that absurd arguments do not wrap.
constexpr std::uint64_t data_frame_bytes(std::uint64_t key, std::uint64_t value, std::uint64_t headers) {
  return kFrameHeaderBytes + key + value + headers;
}

// Writes everything of a data frame behind its header. Requires room for data_frame_bytes.
// `value` may be null with value_bytes > 0: the caller fills it in afterwards (a claim in place).
// Returns where the value starts.
std::byte* write_body(void* frame, std::string_view key, const void* value, std::size_t value_bytes,
                      std::span<const Header> headers);
// The same with an extension in front, for which there is room for kExtensionBytes more.
std::byte* write_extended_body(void* frame, const Extension& extension, std::string_view key,
                               const void* value, std::size_t value_bytes, std::span<const Header> headers);

// The attributes that an extension calls for.
constexpr std::uint8_t extension_attributes(const Extension& extension) {
  return static_cast<std::uint8_t>(kHasExtension | (extension.transaction != 0 ? kTransactional : 0));
}

// Writes everything of a control frame behind its header. Requires room for kMarkerFrameBytes.
void write_marker_body(void* frame, const Extension& extension, MarkerKind kind);

// Writes a whole resolved pad or aborted frame of `extent` bytes (a multiple of 8, at least 32) that
// uses up `records` offsets, state word last.
void write_filler(void* frame, FrameType type, std::uint32_t extent, Offset offset, std::uint32_t records);

// A decoded frame as one line of text for tools: position, offset, type, lengths, CRC, timestamp.
std::string describe_frame(std::span<const std::byte> frame);

}  // namespace ringtail::format

// Records as producers give them and as consumers see them.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "ringtail/types.h"

namespace ringtail {

// One header of a record: a name and an optional value. `value.data() == nullptr` means null.
struct Header {
  std::string_view key;
  std::string_view value;
};

// The headers of a record that was read, decoded as they are walked. Valid as long as the record.
class Headers {
 public:
  class Iterator {
   public:
    using value_type = Header;
    using difference_type = std::ptrdiff_t;

    Iterator() = default;
    explicit Iterator(std::string_view bytes) : rest_(bytes) { decode(); }

    const Header& operator*() const { return header_; }
    const Header* operator->() const { return &header_; }
    Iterator& operator++() {
      decode();
      return *this;
    }
    Iterator operator++(int) {
      Iterator before = *this;
      decode();
      return before;
    }
    friend bool operator==(const Iterator& a, const Iterator& b) { return a.at_ == b.at_; }

   private:
    void decode();

    std::string_view rest_;
    const char* at_ = nullptr;  // start of the decoded header; null at the end
    Header header_;
  };

  Headers() = default;
  explicit Headers(std::string_view bytes) : bytes_(bytes) {}

  Iterator begin() const { return Iterator(bytes_); }
  Iterator end() const { return {}; }
  bool empty() const { return bytes_.empty(); }
  std::string_view bytes() const { return bytes_; }

 private:
  std::string_view bytes_;
};

// Which partition of which topic.
struct TopicPartition {
  std::string topic;
  PartitionId partition{0};

  friend auto operator<=>(const TopicPartition&, const TopicPartition&) = default;
};

// A record that was read. It points into the ring or into a read buffer: key, value and headers
// stay valid and unchanged until the next call of Consumer::poll, and no longer.
struct Record {
  Offset offset{0};
  std::int64_t timestamp_ns = 0;  // since the Unix epoch
  std::string_view key;           // key.data() == nullptr: no key
  std::string_view value;         // value.data() == nullptr: null value (a tombstone)
  Headers headers;
  const TopicPartition* source = nullptr;

  bool has_key() const { return key.data() != nullptr; }
  bool is_tombstone() const { return value.data() == nullptr; }
};

// A record to be sent. The producer copies everything before it returns.
struct ProducerRecord {
  std::string_view key = {};    // key.data() == nullptr: no key
  std::string_view value = {};  // value.data() == nullptr: null value (a tombstone)
  std::span<const Header> headers = {};
  std::optional<PartitionId> partition = {};      // chosen by the partitioner when not given
  std::optional<std::int64_t> timestamp_ns = {};  // the time of sending when not given; ignored by
                                                  // topics with message.timestamp.type=LogAppendTime
  // For `send` and `send_batch` of a producer that numbers its records: a number that was sent before (one of the last 1024 of
  // its partition) gives the metadata of then and appends nothing, so a send may be repeated whatever came of
  // it; the number to come next when not given.
  std::optional<std::uint64_t> sequence = {};
};

// Where a record came to stand.
struct RecordMetadata {
  PartitionId partition{0};
  // Of the leadership under which it was appended, or found again where a number was sent again; 0: the partition is
  // not replicated.
  LeaderEpoch epoch{0};
  Offset offset{0};
  Position end{0};  // the position after the record: what Producer::wait_durable waits for
  std::int64_t timestamp_ns = 0;
};

// Encoding of one header: u32 key length, i32 value length (-1: null), key, value; little-endian.
// Bytes were validated when the record was read; a malformed rest ends the walk.
inline void Headers::Iterator::decode() {
  constexpr std::size_t fixed = 8;
  at_ = nullptr;
  if (rest_.size() < fixed) return;
  std::uint32_t key_length;
  std::int32_t value_length;
  std::memcpy(&key_length, rest_.data(), 4);
  std::memcpy(&value_length, rest_.data() + 4, 4);
  const std::size_t value_bytes = value_length < 0 ? 0 : static_cast<std::size_t>(value_length);
  if (key_length > rest_.size() - fixed || value_bytes > rest_.size() - fixed - key_length) return;
  at_ = rest_.data();
  header_.key = rest_.substr(fixed, key_length);
  header_.value = value_length < 0 ? std::string_view{} : rest_.substr(fixed + key_length, value_bytes);
  rest_.remove_prefix(fixed + key_length + value_bytes);
}

}  // namespace ringtail

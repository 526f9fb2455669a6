// Which record of each key is the latest: what compaction knows of the part of a log that it has not
// compacted before. Keys are told apart by 128 bits of their hash, so that memory is bounded whatever
// they are: at most 48 bytes for each.
//
// Thread and process safety: a value.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "ringtail/types.h"

namespace ringtail::log {

struct KeyHash {
  std::uint64_t low = 0;
  std::uint64_t high = 0;

  friend bool operator==(const KeyHash&, const KeyHash&) = default;
};
KeyHash hash_key(std::string_view key);

class KeyTable {
 public:
  explicit KeyTable(std::size_t max_keys);

  // Notes that `offset` is the latest of `key`; offsets must rise. False: no room for another key.
  bool put(const KeyHash& key, Offset offset);
  std::optional<Offset> latest(const KeyHash& key) const;
  std::size_t size() const { return size_; }

 private:
  struct Entry {
    KeyHash key;
    std::uint64_t after = 0;  // the offset + 1; 0: free
  };

  std::size_t find(const KeyHash& key) const;
  void grow();

  std::vector<Entry> entries_;  // open addressing, at most half full
  std::size_t max_keys_;
  std::size_t size_ = 0;
};

}  // namespace ringtail::log

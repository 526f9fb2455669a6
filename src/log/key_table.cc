#include "log/key_table.h"

#define XXH_INLINE_ALL

#include <xxhash.h>

#include <utility>

namespace ringtail::log {
namespace {

constexpr std::size_t kFirstEntries = 1024;

}  // namespace

KeyHash hash_key(std::string_view key) {
  const XXH128_hash_t hash = XXH3_128bits(key.data(), key.size());
  return {hash.low64, hash.high64};
}

KeyTable::KeyTable(std::size_t max_keys) : entries_(kFirstEntries), max_keys_(max_keys) {}

bool KeyTable::put(const KeyHash& key, Offset offset) {
  std::size_t at = find(key);
  if (entries_[at].after == 0) {
    if (size_ >= max_keys_) return false;
    if (2 * (size_ + 1) > entries_.size()) {
      grow();
      at = find(key);
    }
    ++size_;
  }
  entries_[at] = {key, offset.value() + 1};
  return true;
}

std::optional<Offset> KeyTable::latest(const KeyHash& key) const {
  const Entry& entry = entries_[find(key)];
  return entry.after == 0 ? std::nullopt : std::optional(Offset(entry.after - 1));
}

// Where the key is, or where it would go.
std::size_t KeyTable::find(const KeyHash& key) const {
  const std::size_t mask = entries_.size() - 1;
  std::size_t at = key.low & mask;
  while (entries_[at].after != 0 && entries_[at].key != key) at = (at + 1) & mask;
  return at;
}

void KeyTable::grow() {
  const std::vector<Entry> old = std::exchange(entries_, std::vector<Entry>(2 * entries_.size()));
  for (const Entry& entry : old)
    if (entry.after != 0) entries_[find(entry.key)] = entry;
}

}  // namespace ringtail::log

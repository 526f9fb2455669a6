// Connections that were refused, so that whoever goes on trying does not fill the log: each address and reason is
// said once, and again after a while, with how often it came meanwhile.
//
// Thread safety: one thread.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>

namespace ringtail::replication {

class Refusals {
 public:
  static constexpr std::int64_t kQuietNs = 600'000'000'000;
  static constexpr std::size_t kMaxKnown = 64;  // what comes beyond them is not said one by one

  // The line to be logged, if there is one.
  std::optional<std::string> note(const std::string& from, const std::string& why, std::int64_t now_ns) {
    if (known_.size() >= kMaxKnown && !known_.contains({from, why})) {
      std::erase_if(known_, [&](const auto& one) { return now_ns - one.second.said_ns >= kQuietNs; });
      if (known_.size() >= kMaxKnown) return crowded(now_ns);
    }
    const auto [found, news] = known_.try_emplace({from, why});
    Said& said = found->second;
    if (!news && now_ns - said.said_ns < kQuietNs) {
      ++said.since;
      return std::nullopt;
    }
    const std::uint64_t since = std::exchange(said.since, 0);
    said.said_ns = now_ns;
    return fmt::format("a connection from {} was refused: {}{}", from.empty() ? "an unknown address" : from,
                       why, since == 0 ? "" : fmt::format(" (and {} more like it)", since));
  }

 private:
  struct Said {
    std::int64_t said_ns = 0;
    std::uint64_t since = 0;  // how many were not said
  };

  std::optional<std::string> crowded(std::int64_t now_ns) {
    if (crowded_ns_ != 0 && now_ns - crowded_ns_ < kQuietNs) return std::nullopt;
    crowded_ns_ = now_ns;
    return "connections are refused for so many reasons that not each is said";
  }

  std::map<std::pair<std::string, std::string>, Said> known_;  // by address and reason
  std::int64_t crowded_ns_ = 0;
};

}  // namespace ringtail::replication

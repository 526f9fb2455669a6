// What stands in the partitions of the golden log, record by record: what is written, and what is to be read.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tape.h"

namespace ringtail::golden {

// A record as a consumer is to see it.
struct Expected {
  std::uint64_t offset;
  std::optional<std::string> key;
  std::optional<std::string> value;
  std::vector<std::pair<std::string, std::optional<std::string>>> headers = {};
};

// Producers by id; the transactions are theirs.
inline constexpr format::Extension kIdempotent{7, 1, 0, 0};
inline constexpr format::Extension kCommitted{9, 2, 1, 0};
inline constexpr format::Extension kAborted{9, 2, 2, 1};
inline constexpr format::Extension kOpenBefore{9, 2, 3, 2};  // abort_all stands behind it
inline constexpr format::Extension kDecided{11, 1, 4, 0};    // the decision is in __transaction_state
inline constexpr format::Extension kUndecided{13, 1, 1, 0};

inline std::string long_value() { return std::string(6000, '\0'); }

// Topic orders. Offsets 3 and 4 are an aborted claim's, 7, 9 and 13 those of markers.
inline Tape orders_tape() {
  static const std::array headers{Header{"src", "nyse"}, Header{"", std::string_view("", 0)},
                                  Header{"null", {}}};
  using Body = Tape::Body;
  Tape tape;
  tape.record(Body{.key = "alice", .value = "buy 10", .headers = headers});
  tape.record(Body{.value = ""});
  tape.record(Body{.key = "bob"});
  tape.aborted(64, 2);
  tape.record(Body{.key = "", .value = "numbered", .of = kIdempotent});
  tape.record(Body{.value = "committed", .of = kCommitted});
  tape.marker(format::MarkerKind::commit, {9, 2, 1, 0});
  tape.record(Body{.value = "aborted", .of = kAborted});
  tape.marker(format::MarkerKind::abort, {9, 2, 2, 0});
  tape.record(Body{.key = "zeros", .value = long_value()});
  tape.end_segment();
  tape.record(Body{.value = "behind the segment's end"});
  tape.record(Body{.value = "left open", .of = kOpenBefore});
  tape.marker(format::MarkerKind::abort_all, {format::kEveryProducer, 0, 0, 0});
  tape.record(Body{.key = "carol", .value = "sell 3"});
  tape.record(Body{.value = "decided", .of = kDecided});
  tape.record(Body{.value = "undecided", .of = kUndecided});
  return tape;
}

// What read_committed gives, once what was undecided is aborted.
inline std::vector<Expected> orders_committed() {
  return {{0, "alice", "buy 10", {{"src", "nyse"}, {"", ""}, {"null", std::nullopt}}},
          {1, std::nullopt, ""},
          {2, "bob", std::nullopt},
          {5, "", "numbered"},
          {6, std::nullopt, "committed"},
          {10, "zeros", long_value()},
          {11, std::nullopt, "behind the segment's end"},
          {14, "carol", "sell 3"},
          {15, std::nullopt, "decided"}};
}
inline std::vector<Expected> orders_all() {
  std::vector<Expected> all = orders_committed();
  all.insert(all.begin() + 5, {8, std::nullopt, "aborted"});
  all.insert(all.begin() + 8, {12, std::nullopt, "left open"});
  all.push_back({16, std::nullopt, "undecided"});
  return all;
}

// Topic prices, two segments of which are compacted into one, and the one behind.
inline Tape prices_tape() {
  using Body = Tape::Body;
  Tape tape;
  tape.record(Body{.key = "a", .value = "1"});
  tape.record(Body{.key = "b", .value = "1"});
  tape.record(Body{.key = "a", .value = "2"});
  tape.record(Body{.key = "c"});
  tape.record(Body{.value = "without a key"});
  tape.end_segment();
  tape.record(Body{.key = "b", .value = "2"});
  tape.record(Body{.key = "d", .value = "1"});
  tape.end_segment();
  tape.record(Body{.key = "a", .value = "3"});
  return tape;
}
inline std::vector<Expected> prices_kept() {
  return {{2, "a", "2"}, {3, "c", std::nullopt}, {4, std::nullopt, "without a key"},
          {5, "b", "2"}, {6, "d", "1"},          {7, "a", "3"}};
}

// Topic ticks, in a ring: 2 is a dead producer's claim, 4 one that was given up by its owner.
inline std::vector<Expected> ticks() {
  return {{0, std::nullopt, "first"},
          {1, "k", "second"},
          {3, std::nullopt, "behind the hole"},
          {5, std::nullopt, "last", {{"h", "v"}}}};
}

}  // namespace ringtail::golden

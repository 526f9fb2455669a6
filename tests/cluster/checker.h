// What processes of a cluster saw, line by line, and whether one log can explain all of it.
//
// Thread safety: pure functions on values.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ringtail::test {

// One line of a history: "KIND WHO VALUE OFFSET EPOCH TIME_NS DETAIL". Times are of one clock for all processes.
struct Event {
  enum class Kind : std::uint8_t {
    invoked,  // WHO is about to send VALUE; nobody sends it again, unless DETAIL is kNumbered
    acked,    // every in-sync replica has it, at OFFSET; sent under EPOCH
    failed,   // nothing was appended; DETAIL is the error's name
    unknown,  // it was appended or not
    read,     // WHO was given VALUE at OFFSET
  };
  Kind kind = Kind::invoked;
  std::string who = {};
  std::string value = {};
  std::uint64_t offset = 0;
  std::uint32_t epoch = 0;
  std::int64_t time_ns = 0;
  std::string detail = "-";

  friend bool operator==(const Event&, const Event&) = default;
};

// Of a value PREFIX-NUMBER that an idempotent producer sends under that number, as often as it needs to.
inline constexpr std::string_view kNumbered = "numbered";

std::string to_line(const Event& event);
// Nothing when it is no such line, as the last one of a process that was killed while it wrote.
std::optional<Event> parse_line(std::string_view line);

// The records that the last leader holds, by offset; what is missing between two of them was aborted.
using FinalLog = std::map<std::uint64_t, std::string>;

// Every promise that was broken, each explained by the lines that contradict one another; of each kind the
// first few. `history` is the lines of all processes, those of one process in their order.
//
// The promises: a record that was acknowledged stands in the log, at the offset that was acknowledged; one
// that was refused does not, nor one that nobody sent, nor any twice; no offset ever had two contents; a reader
// begins at the first record, and goes on to the next one each time; what was read is in the log; who sends
// after another's record was acknowledged gets a higher offset; an idempotent producer's values stand in the order of
// their numbers, and none is left out.
std::vector<std::string> check(const std::vector<Event>& history, const FinalLog& log);

// The violations, or what was found in order, for people.
std::string report(const std::vector<Event>& history, const FinalLog& log,
                   const std::vector<std::string>& violations);

}  // namespace ringtail::test

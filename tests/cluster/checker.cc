#include "cluster/checker.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <sstream>
#include <unordered_map>
#include <utility>

namespace ringtail::test {
namespace {

using Kind = Event::Kind;

constexpr std::array<std::string_view, 5> kKinds = {"invoked", "acked", "failed", "unknown", "read"};
constexpr std::size_t kMostOfAKind = 3;

template <class T>
bool parse_number(std::string_view text, T& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

std::string entry_line(const FinalLog::value_type& entry) {
  return "the log has " + entry.second + " at " + std::to_string(entry.first);
}

class Checker {
 public:
  Checker(const std::vector<Event>& history, const FinalLog& log) : history_(history), log_(log) {
    for (const auto& entry : log_) {
      const auto [first, fresh] = places_.emplace(entry.second, &entry);
      if (!fresh) blame("a record stands in the log twice", entry_line(*first->second), entry_line(entry));
    }
    for (const Event& event : history_)
      if (event.kind == Kind::invoked) {
        const auto [first, fresh] = sent_.emplace(event.value, &event);
        if (!fresh && (first->second->detail != kNumbered || event.detail != kNumbered))
          blame("a value was sent twice: the history is no good", *first->second, event);
        if (first->second->time_ns > event.time_ns) first->second = &event;
      }
  }

  std::vector<std::string> run() {
    for (const auto& entry : log_)
      if (!sent_.contains(entry.second))
        blame("a record that nobody sent", entry_line(entry), "and no line of the history sends it");
    for (const Event& event : history_) {
      switch (event.kind) {
        case Kind::invoked:
        case Kind::unknown: break;
        case Kind::acked: check_acked(event); break;
        case Kind::failed: check_failed(event); break;
        case Kind::read: check_read(event); break;
      }
    }
    check_order();
    check_numbers();
    return std::move(violations_);
  }

 private:
  void blame(const std::string& what, const std::string& one, const std::string& other) {
    if (++counts_[what] <= kMostOfAKind) violations_.push_back(what + ":\n    " + one + "\n    " + other);
  }
  void blame(const std::string& what, const Event& one, const Event& other) {
    blame(what, to_line(one), to_line(other));
  }

  // An offset has one content, whoever tells of it.
  void check_content(const Event& event) {
    const auto [first, fresh] = contents_.emplace(event.offset, &event);
    if (!fresh && first->second->value != event.value)
      blame("an offset had two contents", *first->second, event);
  }

  void check_acked(const Event& event) {
    check_content(event);
    if (!sent_.contains(event.value))
      blame("acknowledged before it was sent: the history is no good", to_line(event), "nothing sent it");
    const auto found = places_.find(event.value);
    if (found == places_.end()) {
      const auto there = log_.find(event.offset);
      return blame("an acknowledged record is lost", to_line(event),
                   there != log_.end() ? entry_line(*there)
                   : log_.empty()      ? "the log is empty"
                                       : "the log's last is " + entry_line(*log_.rbegin()));
    }
    if (found->second->first != event.offset)
      blame("an acknowledged record stands elsewhere", to_line(event), entry_line(*found->second));
  }

  void check_failed(const Event& event) {
    if (const auto found = places_.find(event.value); found != places_.end())
      blame("a record that was refused stands in the log", to_line(event), entry_line(*found->second));
  }

  void check_read(const Event& event) {
    check_content(event);
    const auto there = log_.find(event.offset);
    if (there == log_.end() || there->second != event.value)
      blame("what was read was taken back", to_line(event),
            there != log_.end() ? entry_line(*there)
                                : "the log has nothing at " + std::to_string(event.offset));
    const Event*& last = last_reads_[event.who];
    if (last != nullptr && last->offset >= event.offset) blame("a reader went back", *last, event);
    const auto next = last == nullptr ? log_.begin() : log_.upper_bound(last->offset);
    if (next != log_.end() && next->first < event.offset)
      blame("a reader skipped a record", to_line(event), entry_line(*next));
    last = &event;
  }

  // Who begins after an acknowledgement was given comes behind it.
  void check_order() {
    std::vector<const Event*> by_time;
    for (const Event& event : history_)
      if (event.kind == Kind::invoked || event.kind == Kind::acked) by_time.push_back(&event);
    std::ranges::sort(by_time, {}, &Event::time_ns);
    const Event* highest = nullptr;
    for (const Event* const event : by_time) {
      if (event->kind == Kind::acked) {
        if (highest == nullptr || highest->offset < event->offset) highest = event;
      } else if (highest != nullptr && highest->time_ns < event->time_ns && sent_[event->value] == event) {
        const auto found = places_.find(event->value);
        if (found != places_.end() && found->second->first < highest->offset)
          blame("sent after an acknowledgement, and stands before it", to_line(*highest),
                to_line(*event) + ", and " + entry_line(*found->second));
      }
    }
  }

  void check_numbers() {
    struct Last {
      std::uint64_t number;
      const FinalLog::value_type* entry;
    };
    std::map<std::string_view, Last> last;  // by what is in front of the number
    for (const auto& entry : log_) {
      const auto sent = sent_.find(entry.second);
      if (sent == sent_.end() || sent->second->detail != kNumbered) continue;
      const std::string_view value = entry.second;
      const std::size_t dash = value.rfind('-');
      std::uint64_t number = 0;
      if (dash == std::string_view::npos || !parse_number(value.substr(dash + 1), number)) continue;
      const auto before = last.find(value.substr(0, dash));
      const std::uint64_t expected = before == last.end() ? 0 : before->second.number + 1;
      if (number != expected)
        blame("a producer's numbers are out of order", entry_line(entry),
              before == last.end() ? "it is the first" : entry_line(*before->second.entry));
      last[value.substr(0, dash)] = {number, &entry};
    }
  }

  const std::vector<Event>& history_;
  const FinalLog& log_;
  std::unordered_map<std::string, const FinalLog::value_type*> places_;
  std::unordered_map<std::string, const Event*> sent_;
  std::unordered_map<std::uint64_t, const Event*> contents_;
  std::map<std::string, const Event*> last_reads_;
  std::map<std::string, std::size_t> counts_;
  std::vector<std::string> violations_;
};

}  // namespace

std::string to_line(const Event& event) {
  std::string line(kKinds[static_cast<std::size_t>(event.kind)]);
  line += ' ' + event.who + ' ' + event.value + ' ' + std::to_string(event.offset) + ' ' +
          std::to_string(event.epoch) + ' ' + std::to_string(event.time_ns) + ' ' + event.detail;
  return line;
}

std::optional<Event> parse_line(std::string_view line) {
  std::array<std::string_view, 7> words;
  for (std::string_view& word : words) {
    const std::size_t space = line.find(' ');
    const bool last = &word == &words.back();
    if ((space == std::string_view::npos) != last) return std::nullopt;
    word = line.substr(0, space);
    if (!last) line.remove_prefix(space + 1);
  }
  const auto* const kind = std::ranges::find(kKinds, words[0]);
  Event event{.who = std::string(words[1]), .value = std::string(words[2]), .detail = std::string(words[6])};
  if (kind == kKinds.end() || event.detail.empty() || !parse_number(words[3], event.offset) ||
      !parse_number(words[4], event.epoch) || !parse_number(words[5], event.time_ns))
    return std::nullopt;
  event.kind = static_cast<Kind>(kind - kKinds.begin());
  return event;
}

std::vector<std::string> check(const std::vector<Event>& history, const FinalLog& log) {
  return Checker(history, log).run();
}

std::string report(const std::vector<Event>& history, const FinalLog& log,
                   const std::vector<std::string>& violations) {
  std::array<std::size_t, kKinds.size()> counts{};
  for (const Event& event : history) ++counts[static_cast<std::size_t>(event.kind)];
  std::ostringstream text;
  for (std::size_t i = 0; i < kKinds.size(); ++i) text << counts[i] << ' ' << kKinds[i] << ", ";
  text << log.size() << " records in the log";
  if (violations.empty()) text << ": every promise was kept";
  for (const std::string& violation : violations) text << "\n  " << violation;
  return text.str();
}

}  // namespace ringtail::test

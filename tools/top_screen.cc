#include "tools/top_screen.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <ctime>

#include "tools/output.h"
#include "tools/session.h"

namespace ringtail::tools {
namespace {

using std::chrono::milliseconds;

constexpr int kLeastRows = 6;
constexpr int kLeastColumns = 40;
constexpr int kBarColumns = 8;
constexpr std::size_t kHistory = 30;
constexpr std::array<milliseconds, 9> kIntervals = {
    milliseconds(100),   milliseconds(200),    milliseconds(500),    milliseconds(1'000), milliseconds(2'000),
    milliseconds(5'000), milliseconds(10'000), milliseconds(30'000), milliseconds(60'000)};
constexpr std::array<std::string_view, 8> kEighthsUp = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
constexpr std::array<std::string_view, 8> kEighthsRight = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};

constexpr std::array<std::array<std::string_view, 2>, 11> kHelp = {{
    {"t p g", "topics, processes, consumer groups"},
    {"up down j k", "choose a row; also PgUp, PgDn, Home, End"},
    {"Enter", "the partitions of the chosen topic or group"},
    {"Esc", "back"},
    {"s S", "sort by the next column, by the one before"},
    {"r", "the other way round"},
    {"/", "show only rows that contain a text; Esc forgets it"},
    {"+ -", "sample less often, more often"},
    {"space", "sample now"},
    {"? h", "this help"},
    {"q", "leave"},
}};

Tone tone_of(Cell::Mood mood) {
  switch (mood) {
    case Cell::Mood::plain: return Tone::plain;
    case Cell::Mood::dim: return Tone::dim;
    case Cell::Mood::warning: return Tone::warning;
    case Cell::Mood::bad: return Tone::bad;
  }
  return Tone::plain;
}

std::string clock_text(std::int64_t wall_ns) {
  const std::time_t seconds = wall_ns / 1'000'000'000;
  std::tm local = {};
  ::localtime_r(&seconds, &local);
  return fmt::format("{:%H:%M:%S}", local);
}

// All texts are ASCII but for what the screen itself adds.
int width_of(const Cell& cell) {
  return static_cast<int>(cell.text.size()) + (cell.bar ? kBarColumns + 1 : 0);
}

// As wide as the widest cell; a heading has room for its mark.
std::vector<int> widths_of(const View& view) {
  std::vector<int> widths;
  for (std::size_t c = 0; c < view.columns.size(); ++c) {
    int width = static_cast<int>(view.columns[c].title.size()) + 1;
    for (const auto& row : view.rows) width = std::max(width, width_of(row[c]));
    widths.push_back(width);
  }
  return widths;
}

}  // namespace

TopScreen::TopScreen(Screen& screen, std::string title, milliseconds interval, std::size_t tab)
    : screen_(screen), title_(std::move(title)), interval_(interval), tab_(tab) {
  for (const Tab& one : tabs()) places_.emplace_back(one.sort, one.descending);
}

Status TopScreen::run(const std::function<Result<Sample>()>& take) {
  using Clock = std::chrono::steady_clock;
  if (auto taken = take_sample(take); !taken) return taken;
  // Rates need two samples: do not let people wait for them.
  auto next = Clock::now() + std::min(interval_, milliseconds(250));
  while (!done_ && !interrupt::pending()) {
    draw();
    if (const auto key = screen_.wait_key(std::max(next - Clock::now(), Clock::duration(0)))) {
      if (*key == ' ' && !filtering_) next = Clock::now();
      const milliseconds before = interval_;
      press(*key);
      if (interval_ != before) next = Clock::now() + interval_;
    }
    if (done_ || Clock::now() < next) continue;
    if (auto taken = take_sample(take); !taken) return taken;
    next = Clock::now() + interval_;
  }
  return {};
}

Status TopScreen::take_sample(const std::function<Result<Sample>()>& take) {
  Result<Sample> sample = take();
  if (!sample) return std::unexpected(sample.error());
  if (samples_.now.wall_ns != 0) samples_.before = std::move(samples_.now);
  samples_.now = std::move(*sample);
  if (const auto sum = totals(samples_)) history_.push_back(sum->records_per_s);
  if (history_.size() > kHistory) history_.erase(history_.begin());
  if (!chosen_.empty() && std::ranges::none_of(tab().make(samples_).rows, [this](const auto& row) {
        return row.front().text == chosen_;
      }))
    chosen_.clear();
  return {};
}

View TopScreen::current_view() const {
  return chosen_.empty() ? tab().make(samples_) : tab().details(samples_, chosen_);
}

// --- Keys ----------------------------------------------------------------------------------------

void TopScreen::press(int key) {
  if (filtering_) return press_in_filter(key);
  if (help_ && key != kKeyResize) {
    help_ = false;
    if (key != 'q') return;
  }
  for (std::size_t t = 0; t < tabs().size(); ++t) {
    if (key == tabs()[t].key) tab_ = t, chosen_.clear();
  }
  switch (key) {
    case 'q': done_ = true; break;
    case '?':
    case 'h': help_ = true; break;
    case 'j':
    case kKeyDown: choose(1); break;
    case 'k':
    case kKeyUp: choose(-1); break;
    case kKeyPageDown: choose(page_); break;
    case kKeyPageUp: choose(-page_); break;
    case kKeyHome: choose(-static_cast<int>(rows_)); break;
    case kKeyEnd: choose(static_cast<int>(rows_)); break;
    case kKeyEnter: drill_down(); break;
    case kKeyBackspace:
    case kKeyEscape: step_back(); break;
    case 's': change_sort(1); break;
    case 'S': change_sort(-1); break;
    case 'r': place().descending = !place().descending; break;
    case '+': change_interval(1); break;
    case '-': change_interval(-1); break;
    case '/': filtering_ = true; break;
    default: break;
  }
}

void TopScreen::press_in_filter(int key) {
  if (key == kKeyEnter) {
    filtering_ = false;
  } else if (key == kKeyEscape) {
    filtering_ = false;
    filter_.clear();
  } else if (key == kKeyBackspace) {
    if (!filter_.empty()) filter_.pop_back();
  } else if (key >= ' ' && key < 127) {
    filter_ += static_cast<char>(key);
  }
}

void TopScreen::change_interval(int direction) {
  if (direction > 0) {
    const auto longer = std::ranges::upper_bound(kIntervals, interval_);
    if (longer != kIntervals.end()) interval_ = *longer;
  } else {
    const auto shorter = std::ranges::lower_bound(kIntervals, interval_);
    if (shorter != kIntervals.begin()) interval_ = *(shorter - 1);
  }
}

void TopScreen::change_sort(int direction) {
  if (columns_ == 0) return;
  place().sort = (place().sort + columns_ + static_cast<std::size_t>(direction)) % columns_;
}

void TopScreen::choose(int direction) {
  if (rows_ == 0) return;
  const auto last = static_cast<std::ptrdiff_t>(rows_) - 1;
  const auto wanted = static_cast<std::ptrdiff_t>(place().row) + direction;
  place().row = static_cast<std::size_t>(std::clamp<std::ptrdiff_t>(wanted, 0, last));
  place().id.clear();
  place().is_followed = true;
}

void TopScreen::drill_down() {
  if (!chosen_.empty() || tab().details == nullptr || place().id.empty()) return;
  const std::string chosen = place().id;
  chosen_ = chosen;
  partitions_ = {};
  filter_.clear();
}

void TopScreen::step_back() {
  if (!filter_.empty()) {
    filter_.clear();
  } else {
    chosen_.clear();
  }
}

void TopScreen::find_chosen(const View& view) {
  Place& at = place();
  rows_ = view.rows.size();
  columns_ = view.columns.size();
  if (rows_ == 0) {
    at.row = 0;
    return;
  }
  const auto id_of = [&](std::size_t row) -> const std::string& { return view.rows[row].front().text; };
  at.row = std::min(at.row, rows_ - 1);
  if (at.is_followed && !at.id.empty() && id_of(at.row) != at.id) {
    for (std::size_t row = 0; row < rows_; ++row) {
      if (id_of(row) == at.id) at.row = row;
    }
  }
  at.id = id_of(at.row);
}

// --- Drawing -------------------------------------------------------------------------------------

void TopScreen::draw() {
  screen_.erase();
  if (screen_.rows() < kLeastRows || screen_.columns() < kLeastColumns) {
    screen_.put(0, 0, fmt::format("needs {} x {}; q leaves", kLeastColumns, kLeastRows), screen_.columns());
  } else {
    draw_head();
    View view = current_view();
    arrange(view, filter_, place().sort, place().descending);
    find_chosen(view);
    if (help_) {
      draw_help(3);
    } else {
      draw_view(view, 3);
    }
    draw_foot();
  }
  screen_.show();
}

void TopScreen::draw_head() {
  const int width = screen_.columns();
  int column = screen_.put(0, 0, "ringtail top", width, Tone::accent);
  column += screen_.put(0, column, "  " + title_, width - column, Tone::bold);
  const auto keeper =
      std::ranges::find(samples_.now.processes, ProcessRole::keeper, &ProcessDescription::role);
  const bool kept = keeper != samples_.now.processes.end();
  const std::string role =
      kept ? fmt::format("keeper {} {}", keeper->pid, keeper->name) : "nobody keeps the log";
  const std::string right = fmt::format("every {:g} s  {}", static_cast<double>(interval_.count()) / 1e3,
                                        clock_text(samples_.now.wall_ns));
  const int right_at = width - static_cast<int>(right.size());
  if (column + 2 < right_at) {
    screen_.put(0, column + 2, role, right_at - column - 4, kept ? Tone::dim : Tone::bad);
    screen_.put(0, right_at, right, width, Tone::dim);
  }

  column = 0;
  for (std::size_t t = 0; t < tabs().size(); ++t) {
    const bool shown = t == tab_;
    const std::string name =
        fmt::format("{}{} {}{}", shown ? "[" : " ", tabs()[t].key, tabs()[t].name, shown ? "]" : " ");
    column += screen_.put(1, column, name, width - column, shown ? Tone::accent : Tone::dim) + 1;
  }
  if (!chosen_.empty()) column += screen_.put(1, column, "> " + chosen_, width - column, Tone::accent) + 1;
  if (const auto sum = totals(samples_)) {
    const std::string all = fmt::format("{} records/s  {}/s  ", human_count(sum->records_per_s),
                                        human_bytes(static_cast<std::uint64_t>(sum->bytes_per_s)));
    const int length = static_cast<int>(all.size() + (screen_.is_utf8() ? kHistory : 0));
    if (const int at = width - length; column + 2 < at) {
      screen_.put(1, at, all, width - at, Tone::bold);
      screen_.put(1, at + static_cast<int>(all.size()), sparkline(), width, Tone::good);
    }
  }
}

// The latest rates of all topics, as high as they are beside the highest.
std::string TopScreen::sparkline() const {
  if (!screen_.is_utf8() || history_.empty()) return {};
  const double most = std::max(*std::ranges::max_element(history_), 1.0);
  std::string line(kHistory - history_.size(), ' ');
  for (const double rate : history_) {
    line += rate == 0 ? " " : kEighthsUp[static_cast<std::size_t>(std::lround(rate / most * 7))];
  }
  return line;
}

std::string TopScreen::bar(double part) const {
  const auto eighths = static_cast<std::size_t>(std::lround(std::clamp(part, 0.0, 1.0) * kBarColumns * 8));
  std::string text;
  std::size_t columns = 0;
  for (; columns < eighths / 8; ++columns) text += screen_.is_utf8() ? "█" : "#";
  if (screen_.is_utf8() && eighths % 8 != 0) text += kEighthsRight[eighths % 8], ++columns;
  return text + std::string(kBarColumns - columns, ' ');
}

void TopScreen::draw_view(const View& view, int row) {
  const std::vector<int> widths = widths_of(view);
  const Place& at = place();
  int column = 0;
  for (std::size_t c = 0; c < view.columns.size() && column < screen_.columns(); ++c) {
    const Column& heading = view.columns[c];
    const bool sorted = c == at.sort;
    const std::string mark = !sorted             ? ""
                             : screen_.is_utf8() ? (at.descending ? "▼" : "▲")
                                                 : (at.descending ? "v" : "^");
    const int used = static_cast<int>(heading.title.size()) + (sorted ? 1 : 0);
    const int indent = heading.right ? widths[c] - used : 0;
    screen_.put(row, column + indent, heading.title + mark, screen_.columns(), Tone::bold);
    column += widths[c] + 2;
  }
  screen_.highlight(row, Tone::bold);

  page_ = std::max(screen_.rows() - row - 2, 1);
  const auto page = static_cast<std::size_t>(page_);
  Place& moving = place();
  if (moving.row < moving.first) moving.first = moving.row;
  if (moving.row >= moving.first + page) moving.first = moving.row - page + 1;
  moving.first = std::min(moving.first, view.rows.size() > page ? view.rows.size() - page : 0);
  for (std::size_t r = 0; r < page && moving.first + r < view.rows.size(); ++r) {
    const int y = row + 1 + static_cast<int>(r);
    draw_row(view, view.rows[moving.first + r], widths, y);
    if (moving.first + r == moving.row) screen_.highlight(y);
  }
  if (view.rows.empty())
    screen_.put(row + 2, 2, filter_.empty() ? "nothing here yet" : "nothing matches", screen_.columns(),
                Tone::dim);
}

void TopScreen::draw_row(const View& view, const std::vector<Cell>& cells, const std::vector<int>& widths,
                         int row) {
  int column = 0;
  for (std::size_t c = 0; c < cells.size() && column < screen_.columns(); ++c) {
    const Cell& cell = cells[c];
    const int indent = view.columns[c].right ? widths[c] - static_cast<int>(cell.text.size()) : 0;
    const Tone tone = tone_of(cell.mood);
    if (cell.bar)
      screen_.put(row, column + widths[c] - width_of({.text = "100%", .value = {}, .bar = 0.0}),
                  bar(*cell.bar), kBarColumns, tone == Tone::plain ? Tone::good : tone);
    const bool last = c + 1 == cells.size();
    screen_.put(row, column + indent, cell.text, last ? screen_.columns() : widths[c],
                c == 0 ? Tone::bold : tone);
    column += widths[c] + 2;
  }
}

void TopScreen::draw_help(int row) {
  for (const auto& [keys, what] : kHelp) {
    screen_.put(row, 2, keys, 14, Tone::accent);
    screen_.put(row, 17, what, screen_.columns());
    ++row;
  }
  ++row;
  for (const std::string_view line :
       {"ring: how much of the fullest ring is not yet on disk; producers wait when it is full",
        "not durable: records that are committed, but not yet synced on this host",
        "lag: records between a consumer, or what a group has committed, and the log end",
        "records/s of a group: how its committed offsets move; automatic commits come every 5 s",
        "idle: time since a member of a group last polled"})
    screen_.put(row++, 2, line, screen_.columns(), Tone::dim);
}

void TopScreen::draw_foot() {
  const int row = screen_.rows() - 1;
  if (filtering_) {
    const int column = screen_.put(row, 0, "/" + filter_, screen_.columns() - 1, Tone::accent);
    screen_.put(row, column, "_", 1, Tone::accent);
    return;
  }
  int column = 0;
  if (!filter_.empty()) column = screen_.put(row, 0, "/" + filter_ + "  ", screen_.columns(), Tone::accent);
  std::string keys = "q quit  ? help  s sort  r reverse  / filter  +- interval";
  if (!chosen_.empty()) {
    keys += "  Esc back";
  } else if (tab().details != nullptr) {
    keys += "  Enter partitions";
  }
  screen_.put(row, column, keys, screen_.columns() - column, Tone::dim);
}

}  // namespace ringtail::tools

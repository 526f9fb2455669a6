#include "tools/screen.h"

#define NCURSES_NOMACROS 1  // its names are too common for macros
#include <curses.h>
#include <fmt/format.h>
#include <langinfo.h>
#include <unistd.h>

#include <algorithm>
#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <cwchar>
#include <string>

#include "tools/session.h"

namespace ringtail::tools {
namespace {

// Pairs of colours, by tone.
constexpr short kAccentPair = 1, kGoodPair = 2, kWarningPair = 3, kBadPair = 4;

void restore_terminal() {
  if (!::isendwin()) ::endwin();
}

attr_t attributes_of(Tone tone, bool colours) {
  const auto pair = [colours](short number) {
    return colours ? static_cast<attr_t>(COLOR_PAIR(number)) : attr_t{A_NORMAL};
  };
  switch (tone) {
    case Tone::plain: return A_NORMAL;
    case Tone::dim: return A_DIM;
    case Tone::bold: return A_BOLD;
    case Tone::accent: return A_BOLD | pair(kAccentPair);
    case Tone::good: return pair(kGoodPair);
    case Tone::warning: return A_BOLD | pair(kWarningPair);
    case Tone::bad: return A_BOLD | pair(kBadPair);
  }
  return A_NORMAL;
}

// As much of `text` as fits into `columns`, as characters that this terminal can show.
std::wstring fit(std::string_view text, int columns, int& taken) {
  std::wstring shown;
  std::mbstate_t state = {};
  taken = 0;
  while (!text.empty()) {
    wchar_t character = 0;
    std::size_t bytes = std::mbrtowc(&character, text.data(), text.size(), &state);
    int width = bytes > text.size() ? -1 : ::wcwidth(character);
    if (bytes == 0 || bytes > text.size()) bytes = 1, state = {};
    if (width < 0 || character == 0) character = L'?', width = 1;
    if (taken + width > columns) break;
    shown += character;
    taken += width;
    text.remove_prefix(bytes);
  }
  return shown;
}

int translate(int key) {
  switch (key) {
    case KEY_UP: return kKeyUp;
    case KEY_DOWN: return kKeyDown;
    case KEY_PPAGE: return kKeyPageUp;
    case KEY_NPAGE: return kKeyPageDown;
    case KEY_HOME: return kKeyHome;
    case KEY_END: return kKeyEnd;
    case KEY_ENTER: return kKeyEnter;
    case KEY_LEFT: return kKeyEscape;
    case KEY_RIGHT: return kKeyEnter;
    case KEY_BACKSPACE: return kKeyBackspace;
    case KEY_RESIZE: return kKeyResize;
    default: return kKeyOther;
  }
}

}  // namespace

bool can_show_screen() {
  const char* type = std::getenv("TERM");
  return type != nullptr && std::string_view(type) != "dumb" && ::isatty(STDIN_FILENO) != 0 &&
         ::isatty(STDOUT_FILENO) != 0;
}

Result<std::unique_ptr<Screen>> Screen::open(bool colours) {
  if (!can_show_screen()) return fail(Code::unsupported, "this is no terminal that can be drawn upon");
  std::setlocale(LC_CTYPE, "");
  const bool utf8 = std::string_view(::nl_langinfo(CODESET)) == "UTF-8";
  if (::newterm(nullptr, stdout, stdin) == nullptr)
    return fail(Code::unsupported, "TERM names no terminal that is known here");
  if (::tigetstr("cup") == nullptr) {
    ::endwin();
    return fail(Code::unsupported, "this terminal cannot move its cursor");
  }
  std::atexit(restore_terminal);
  ::cbreak();
  ::noecho();
  ::nonl();
  ::curs_set(0);
  ::keypad(stdscr, TRUE);
  ::nodelay(stdscr, TRUE);
  ::set_escdelay(25);
  if (colours && ::has_colors()) {
    ::start_color();
    ::use_default_colors();
    ::init_pair(kAccentPair, COLOR_CYAN, -1);
    ::init_pair(kGoodPair, COLOR_GREEN, -1);
    ::init_pair(kWarningPair, COLOR_YELLOW, -1);
    ::init_pair(kBadPair, COLOR_RED, -1);
  }
  return std::unique_ptr<Screen>(new Screen(colours && ::has_colors(), utf8));
}

Screen::~Screen() { restore_terminal(); }

int Screen::rows() const { return ::getmaxy(stdscr); }
int Screen::columns() const { return ::getmaxx(stdscr); }
void Screen::erase() { ::werase(stdscr); }
void Screen::show() { ::wrefresh(stdscr); }

int Screen::put(int row, int column, std::string_view text, int columns, Tone tone) {
  if (row < 0 || row >= rows() || column < 0) return 0;
  int taken = 0;
  const std::wstring shown = fit(text, std::min(columns, this->columns() - column), taken);
  ::wattrset(stdscr, static_cast<int>(attributes_of(tone, colours_)));
  ::mvwaddnwstr(stdscr, row, column, shown.c_str(), static_cast<int>(shown.size()));
  ::wattrset(stdscr, A_NORMAL);
  return taken;
}

void Screen::highlight(int row, Tone tone) {
  const attr_t attributes = A_REVERSE | attributes_of(tone, colours_);
  ::mvwchgat(stdscr, row, 0, -1, attributes, static_cast<short>(PAIR_NUMBER(static_cast<int>(attributes))),
             nullptr);
}

std::optional<int> Screen::wait_key(std::chrono::nanoseconds timeout) {
  wint_t character = 0;
  int kind = ::wget_wch(stdscr, &character);
  if (kind == ERR) {
    if (interrupt::wait(STDIN_FILENO, timeout) == interrupt::Wake::signalled) return std::nullopt;
    kind = ::wget_wch(stdscr, &character);  // also tells of a new size, which ended the wait
  }
  if (kind == ERR) return std::nullopt;
  if (kind == KEY_CODE_YES) return translate(static_cast<int>(character));
  switch (character) {
    case '\r':
    case '\n': return kKeyEnter;
    case 27: return kKeyEscape;
    case 8:
    case 127: return kKeyBackspace;
    default: return static_cast<int>(character);
  }
}

}  // namespace ringtail::tools

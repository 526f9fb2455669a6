// The whole terminal as a canvas: a thin layer over ncurses.
//
// ncurses writes only what changed, and sees to SIGWINCH, SIGTSTP and SIGCONT; the terminal is as it was
// once a Screen is destroyed, or the program exits. Thread safety: one thread; one Screen at a time.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string_view>

#include "ringtail/error.h"

namespace ringtail::tools {

enum class Tone { plain, dim, bold, accent, good, warning, bad };

// Keys that are no characters.
enum Key : int {
  kKeyUp = 0x110000,  // above all characters
  kKeyDown,
  kKeyPageUp,
  kKeyPageDown,
  kKeyHome,
  kKeyEnd,
  kKeyEnter,
  kKeyEscape,
  kKeyBackspace,
  kKeyResize,
  kKeyOther,
};

class Screen {
 public:
  // Errors: unsupported (no terminal on standard input and output, an unknown one, or one that cannot
  // move its cursor).
  static Result<std::unique_ptr<Screen>> open(bool colours);
  Screen(const Screen&) = delete;
  Screen& operator=(const Screen&) = delete;
  ~Screen();

  int rows() const;
  int columns() const;
  // Whether characters beyond ASCII can be shown.
  bool is_utf8() const { return utf8_; }

  void erase();
  // Writes text, cut where `columns` columns are full; what cannot be printed becomes '?'. Returns how many
  // columns it took. What lies outside the terminal is left out.
  int put(int row, int column, std::string_view text, int columns, Tone tone = Tone::plain);
  // Shows a row as it is, in reverse: the one that is chosen, or a heading.
  void highlight(int row, Tone tone = Tone::plain);
  void show();

  // The next key, a character or one of Key; nothing when the time is over or a signal came.
  std::optional<int> wait_key(std::chrono::nanoseconds timeout);

 private:
  Screen(bool colours, bool utf8) : colours_(colours), utf8_(utf8) {}
  bool colours_;
  bool utf8_;
};

// Whether it is worth to try: a terminal on standard input and output, and not one named "dumb".
bool can_show_screen();

}  // namespace ringtail::tools

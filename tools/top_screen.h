// The full-screen form of `ringtail top`.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "tools/screen.h"
#include "tools/top_model.h"

namespace ringtail::tools {

// What is shown, and how keys change it. Thread safety: one thread.
class TopScreen {
 public:
  TopScreen(Screen& screen, std::string title, std::chrono::milliseconds interval, std::size_t tab);

  // Shows samples, one each interval, until `q` or a signal. Errors: those of `take`.
  Status run(const std::function<Result<Sample>()>& take);

 private:
  // How one view is sorted, and which row is chosen.
  struct Place {
    Place() = default;
    Place(std::size_t by, bool downwards) : sort(by), descending(downwards) {}
    std::size_t sort = 0;
    bool descending = false;
    std::size_t row = 0;
    std::string id;            // of that row
    bool is_followed = false;  // once somebody has chosen a row, it is followed where sorting takes it
    std::size_t first = 0;
  };

  Status take_sample(const std::function<Result<Sample>()>& take);
  View current_view() const;
  Place& place() { return chosen_.empty() ? places_[tab_] : partitions_; }
  const Tab& tab() const { return tabs()[tab_]; }

  void press(int key);
  void press_in_filter(int key);
  void change_interval(int direction);
  void change_sort(int direction);
  void choose(int direction);
  void drill_down();
  void step_back();
  void find_chosen(const View& view);

  void draw();
  void draw_head();
  void draw_view(const View& view, int row);
  void draw_row(const View& view, const std::vector<Cell>& cells, const std::vector<int>& widths, int row);
  void draw_help(int row);
  void draw_foot();
  std::string bar(double part) const;
  std::string sparkline() const;

  Screen& screen_;
  std::string title_;
  std::chrono::milliseconds interval_;
  Samples samples_;
  std::vector<Place> places_;  // of the tabs
  Place partitions_;
  std::size_t tab_;
  std::string chosen_;  // the topic or group whose partitions are shown; empty: a tab
  std::string filter_;
  bool filtering_ = false;
  bool help_ = false;
  bool done_ = false;
  std::size_t rows_ = 0;         // of the view drawn last
  std::size_t columns_ = 0;      // likewise
  int page_ = 1;                 // rows that can be seen
  std::vector<double> history_;  // records/s of all topics, the latest last
};

}  // namespace ringtail::tools

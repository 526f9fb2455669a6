#include "tools/topic_create.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "base/descriptor.h"
#include "tools/session.h"

namespace ringtail::tools {
namespace {

using std::chrono::milliseconds;

// The work of the library, on a thread that can be left behind: neither recovery nor the making of rings can be
// interrupted, and a keeper that stands still is waited for.
class Creation {
 public:
  Creation(const GlobalOptions& options, const TopicSpec& spec)
      : options_(options), spec_(spec), done_(::eventfd(0, EFD_CLOEXEC)), thread_([this] { run(); }) {}

  int finish() {
    if (interrupt::wait(done_.get(), {}) == interrupt::Wake::readable) return report_result();
    // Most are done in less; and then this process ends as it should.
    constexpr milliseconds kGrace{500};
    if (is_done_within(kGrace)) return report_result();
    Stage before = Stage::preparing;
    // SYNC: with the thread's: one of the two comes first, so it is known whether anything was begun; pairs with the
    // same in run for log_.
    if (stage_.compare_exchange_strong(before, Stage::given_up, std::memory_order_acq_rel))
      leave(fmt::format("interrupted: nothing of topic '{}' was created", spec_.name));
    while (!exists())
      if (is_done_within(milliseconds(20))) return report_result();
    leave(fmt::format(
        "interrupted: topic '{0}' exists, with all of its partitions; those of its rings that are not "
        "made yet are made by whoever keeps the log. `ringtail topic delete {0}` removes it",
        spec_.name));
  }

 private:
  enum class Stage { preparing, creating, given_up };

  void run() {
    create();
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(done_.get(), &one, sizeof one);
  }
  void create() {
    auto log = open_log(options_, OpenMode::create);
    if (!log) {
      result_ = std::unexpected(log.error());
      return;
    }
    log_.emplace(std::move(*log));
    if (!exists()) {  // else it is no sign of this creation, which is refused at once
      Stage before = Stage::preparing;
      // SYNC: with that of finish.
      if (!stage_.compare_exchange_strong(before, Stage::creating, std::memory_order_acq_rel)) return;
    }
    result_ = Admin(*log_).create_topic(spec_);
  }

  bool exists() const {
    const auto names = Admin(*log_).list_topics();
    return names && std::ranges::find(*names, spec_.name) != names->end();
  }
  bool is_done_within(milliseconds time) const {
    pollfd done = {done_.get(), POLLIN, 0};
    return ::poll(&done, 1, static_cast<int>(time.count())) > 0;
  }

  int report_result() {
    thread_.join();
    log_.reset();
    if (!result_) {
      const int code = report(options_, result_.error());
      return interrupt::pending() ? interrupt::exit_code() : code;
    }
    if (interrupt::pending()) {
      note(options_, fmt::format("interrupted: topic '{}' was created", spec_.name));
      return interrupt::exit_code();
    }
    return finish_with_result();
  }
  int finish_with_result() const {
    return tools::finish(options_,
                         {{"topic", spec_.name}, {"partitions", spec_.partitions}, {"created", true}},
                         fmt::format("created topic '{}' with {} partition{}\n", spec_.name, spec_.partitions,
                                     spec_.partitions == 1 ? "" : "s"));
  }

  // What the thread is doing can be left at any point, as by processes that die.
  [[noreturn]] void leave(const std::string& why) const {
    note(options_, why);
    ::_exit(interrupt::exit_code());
  }

  const GlobalOptions& options_;
  const TopicSpec& spec_;
  Descriptor done_;
  std::atomic<Stage> stage_{Stage::preparing};
  std::optional<Log> log_;  // the thread's, until it has set `creating` or is done
  Status result_;
  std::thread thread_;
};

}  // namespace

int create_topic(const GlobalOptions& options, const TopicSpec& spec) {
  return Creation(options, spec).finish();
}

}  // namespace ringtail::tools

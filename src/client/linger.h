// Whether a consumer that has found nothing looks on for a while before it sleeps.
//
// A sleep costs the consumer its waking up and the producer a system call, some microseconds each. Who looks on for as
// long as a sleep costs never pays more than twice what the better choice would (competitive spinning: Karlin, Li,
// Manasse, Owicki, "Empirical studies of competitive spinning for a shared-memory multiprocessor", SOSP 1991). Here it
// is some three times as long, for between two who both sleep an answer takes two wake-ups and more, and neither would
// begin to look on. In return it does so only while that has paid: once a sleep was that short; no longer when it looked
// on in vain, and then each time after twice as many short sleeps as before, for where there are more processes than
// CPUs the record may be waiting for this very CPU. So who waits for rare records only sleeps.
//
// Thread safety: none.
#pragma once

#include <algorithm>
#include <cstdint>

namespace ringtail {

class Linger {
 public:
  static constexpr std::int64_t kNs = 20'000;
  static constexpr int kMostDoubt = 255;

  // Nothing was there: whether to look on (true) or to sleep.
  bool goes_on(std::int64_t now_ns) {
    if (pays_) {
      if (until_ns_ == 0) until_ns_ = now_ns + kNs;
      if (now_ns < until_ns_) return true;
      pays_ = false;
      doubt_ = std::min(2 * doubt_ + 1, kMostDoubt);
      short_sleeps_ = 0;
    }
    if (slept_since_ns_ == 0) slept_since_ns_ = now_ns;
    return false;
  }

  // After goes_on: the wait has ended, with records or for another reason.
  void end(std::int64_t now_ns, bool with_records) {
    if (slept_since_ns_ != 0) {
      if (with_records && now_ns - slept_since_ns_ <= kNs) pays_ = ++short_sleeps_ > doubt_;
    } else if (with_records && until_ns_ != 0) {
      doubt_ /= 2;
    }
    until_ns_ = slept_since_ns_ = 0;
  }

  bool pays() const { return pays_; }

 private:
  bool pays_ = false;
  int doubt_ = 0;                    // so many short sleeps are not enough to try again
  int short_sleeps_ = 0;             // since it was in vain
  std::int64_t until_ns_ = 0;        // of the present wait, 0: not looking on
  std::int64_t slept_since_ns_ = 0;  // of the present wait, 0: not slept
};

}  // namespace ringtail

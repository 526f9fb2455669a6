// How long threads were on a CPU, by what the scheduler has counted: of this process, and of others by their ids.
//
// The kernel charges what it does for a socket to the thread whose call set it going. Over a pair of virtual
// interfaces that includes the TCP of the other end: the receiver's, when a sender sends. Where the kernel knows of
// time that the hypervisor took, that is not in it. A thread that has ended by the second look is not in the result.
//
// Thread safety: none.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cluster/program.h"

namespace ringtail::bench {

class ThreadTimes {
 public:
  // `processes`: "NAME=PID,...", to which this one, named "self", is added; may be empty.
  explicit ThreadTimes(std::string_view processes);

  // What is counted begins here.
  void begin() { begin_ = look(); }
  // [{"process", "thread", "tid", "cpu_ns"}] of all that ran since begin(), the busiest first.
  Json since_begin() const;

 private:
  struct Thread {
    std::string process;
    std::string name;
    std::uint64_t cpu_ns = 0;
  };
  using Threads = std::map<int, Thread>;  // by thread id

  Threads look() const;

  std::vector<std::pair<std::string, int>> processes_;
  Threads begin_;
};

}  // namespace ringtail::bench

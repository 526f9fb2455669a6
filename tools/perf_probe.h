// How far apart two CPUs are: the round trip of a cache line between them, without any of our code
// in between. It moves with the machine (on virtual machines from minute to minute), so every
// measurement carries the probe of before and after; results compare only where the probes agree.
#pragma once

#include "ringtail/error.h"

namespace ringtail::tools::perf {

class TickClock;

// Nanoseconds, medians of many slices.
struct Probe {
  double two_lines = 0;  // each side writes a line of its own and reads the other's, as two rings do
  double one_line = 0;   // both write the same line in turn
};

// Measures in two processes pinned to the two CPUs (-1: not pinned). Blocks for about 0.3 s.
// Requires that the calling process has one thread. Errors: invalid_argument for a CPU that this
// process may not use; system.
Result<Probe> measure_probe(const TickClock& clock, int first_cpu, int second_cpu);

}  // namespace ringtail::tools::perf

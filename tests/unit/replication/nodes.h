// Nodes that tests are about.
#pragma once

#include "replication/coordinator.h"

namespace ringtail::replication {

inline constexpr NodeId kOne{1};
inline constexpr NodeId kTwo{2};
inline constexpr NodeId kThree{3};
inline constexpr NodeId kFour{4};

}  // namespace ringtail::replication

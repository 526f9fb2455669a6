// The sticky assignor: even first, then with the fewest moves.
//
// Thread and process safety: a pure function.
#pragma once

#include <span>

#include "ringtail/assignor.h"

namespace ringtail::groups {

Assignment assign_sticky(std::span<const GroupMember> members, std::span<const GroupTopic> topics);

}  // namespace ringtail::groups

// ringtail topic create on this host: rings may take a while to be made, and a signal does not wait for them.
#pragma once

#include "ringtail/ringtail.h"
#include "tools/options.h"

namespace ringtail::tools {

// Creates the topic, and the log directory where it is missing. Returns the exit code. After SIGINT or SIGTERM
// there is the whole topic, or nothing of it, and a line says which.
int create_topic(const GlobalOptions& options, const TopicSpec& spec);

}  // namespace ringtail::tools

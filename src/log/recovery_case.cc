// The names of what recovery finds and does.

#include "log/recovery.h"

namespace ringtail::log {

std::string_view to_string(RecoveryCase what) {
  switch (what) {
    case RecoveryCase::prepared_file: return "prepared_file";
    case RecoveryCase::compaction_file: return "compaction_file";
    case RecoveryCase::orphan_index: return "orphan_index";
    case RecoveryCase::headless_segment: return "headless_segment";
    case RecoveryCase::sealed_too_long: return "sealed_too_long";
    case RecoveryCase::merged_segment: return "merged_segment";
    case RecoveryCase::index_rebuilt: return "index_rebuilt";
    case RecoveryCase::torn_tail: return "torn_tail";
    case RecoveryCase::unsynced_gap: return "unsynced_gap";
    case RecoveryCase::padded: return "padded";
  }
  return "unknown";
}

}  // namespace ringtail::log

// What must hold between settings, and of the files they name.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "daemon/config.h"

namespace ringtail::daemon {

// Where a setting was given.
struct Origin {
  std::string where = {};
  std::uint32_t line = 0;  // of the file; 0: not there
};
using SettingOrigins = std::map<std::string, Origin, std::less<>>;  // by the setting's name

// Adds the problems of the configuration as a whole; what is missing is said of `file`. Settings that have a
// problem already are left alone. Blocks on the disk.
void check_whole(LoadedConfig& loaded, const SettingOrigins& origins, const std::filesystem::path& file);

}  // namespace ringtail::daemon

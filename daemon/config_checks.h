// What must hold between settings, and of the files they name.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "daemon/config.h"

namespace ringtail::daemon {

// Where each setting that was given stands, by its name.
using SettingOrigins = std::map<std::string, std::string, std::less<>>;

// Adds the problems of the configuration as a whole; what is missing is said of `file`. Settings that have a
// problem already are left alone. Blocks on the disk.
void check_whole(LoadedConfig& loaded, const SettingOrigins& origins, const std::filesystem::path& file);

}  // namespace ringtail::daemon

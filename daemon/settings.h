// The table of settings behind config.h: what each is called, how its value is read, and how it is shown.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>

#include "base/toml_values.h"
#include "daemon/config.h"

namespace ringtail::daemon {

using SettingValue = decltype(TomlValue::value);

// What is wrong with a value and what to write instead. Empty: nothing is wrong.
struct Objection {
  std::string problem;
  std::string remedy;
};

struct Setting {
  std::string_view table;
  std::string_view key;
  std::string_view description;
  bool reloads;
  // Stores the value. From the command line every value is text (`from_option`).
  std::function<Objection(Config&, const SettingValue&, bool from_option)> read;
  std::function<nlohmann::json(const Config&)> show;

  std::string name() const { return std::string(table) + "." + std::string(key); }
};

// In the order in which they are shown.
std::span<const Setting> settings();

// Of `names`, the one that `name` was most likely meant to be; empty when none is near.
std::string_view nearest(std::string_view name, std::span<const std::string_view> names);

}  // namespace ringtail::daemon

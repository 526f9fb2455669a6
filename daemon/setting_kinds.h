// The kinds of settings: texts, choices, numbers, times, sizes, addresses. Each makes a row of the table.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/settings.h"

namespace ringtail::daemon {

// Where in a configuration a setting's value is.
template <class T>
using Place = std::function<T&(Config&)>;

Setting text_setting(std::string_view table, std::string_view key, std::string_view description,
                     const Place<std::string>& place, bool reloads = false);
Setting choice_setting(std::string_view table, std::string_view key, std::string_view description,
                       const std::vector<std::string>& choices,
                       const std::function<void(Config&, std::size_t)>& store,
                       const std::function<std::size_t(const Config&)>& load, bool reloads = false);
Setting bool_setting(std::string_view table, std::string_view key, std::string_view description,
                     const Place<bool>& place, bool reloads = false);
Setting integer_setting(std::string_view table, std::string_view key, std::string_view description,
                        std::int64_t least, std::int64_t most, const Place<std::int64_t>& place);
Setting duration_setting(std::string_view table, std::string_view key, std::string_view description,
                         nanoseconds least, nanoseconds most, const Place<nanoseconds>& place);
Setting bytes_setting(std::string_view table, std::string_view key, std::string_view description,
                      const Place<std::int64_t>& place, bool reloads);
Setting endpoint_setting(std::string_view table, std::string_view key, std::string_view description,
                         const std::function<void(Config&, const Endpoint*)>& store,
                         const std::function<std::optional<Endpoint>(const Config&)>& load,
                         bool reloads = false);
Setting etcd_setting();

}  // namespace ringtail::daemon

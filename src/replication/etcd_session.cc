#include <fmt/format.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <charconv>
#include <filesystem>

#include "base/clock.h"
#include "base/result.h"
#include "replication/etcd_connection.h"

namespace ringtail::replication {

namespace {

Status check_file(const std::string& path, std::string_view what) {
  if (path.empty() || ::access(path.c_str(), R_OK) == 0) return {};
  return fail_errno(errno, fmt::format("cannot read the {} '{}'", what, path));
}

}  // namespace

Status check_options(const EtcdOptions& options) {
  const auto refuse = [](std::string message) { return fail(Code::invalid_argument, std::move(message)); };
  if (options.endpoints.empty()) return refuse("no endpoint of etcd is given, such as http://10.0.0.1:2379");
  for (const std::string& endpoint : options.endpoints) {
    const bool plain = endpoint.starts_with("http://");
    const std::size_t colon = endpoint.rfind(':');
    const std::string_view port = std::string_view(endpoint).substr(colon + 1);
    std::uint16_t number = 0;
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
    if ((!plain && !endpoint.starts_with("https://")) || error != std::errc{} ||
        end != port.data() + port.size())
      return refuse(fmt::format(
          "'{}' is no endpoint of etcd; write it as http://host:port or https://host:port", endpoint));
    if (plain && !options.certificate_file.empty())
      return refuse(fmt::format(
          "a certificate is given, and the endpoint '{}' does without TLS; write https://", endpoint));
  }
  if (options.certificate_file.empty() != options.key_file.empty())
    return refuse("a certificate needs its key, and a key its certificate; give both or neither");
  if (options.user.empty() && !options.password.empty()) return refuse("a password is given, and no user");
  if (auto file = check_file(options.ca_file, "authorities"); !file) return file;
  if (auto file = check_file(options.certificate_file, "certificate"); !file) return file;
  return check_file(options.key_file, "key");
}

std::string EtcdSession::token() const {
  const std::lock_guard lock(mutex_);
  return token_;
}

void EtcdSession::set_token(std::string token) {
  const std::lock_guard lock(mutex_);
  token_ = std::move(token);
}

void EtcdSession::drop_token(const std::string& token) {
  const std::lock_guard lock(mutex_);
  if (token_ == token) token_.clear();
}

void EtcdSession::note_contact(const std::string& endpoint) {
  const std::lock_guard lock(mutex_);
  contact_ns_ = boottime_ns();
  health_.reachable = true;
  health_.endpoint = endpoint;
}

void EtcdSession::note_failure(const std::string& endpoint, const std::string& what) {
  const std::lock_guard lock(mutex_);
  health_.reachable = false;
  health_.endpoint = endpoint;
  health_.last_error = what;
}

CoordinatorHealth EtcdSession::health() const {
  const std::lock_guard lock(mutex_);
  CoordinatorHealth health = health_;
  if (contact_ns_ != 0)
    health.seconds_since_contact =
        std::chrono::duration<double>(std::chrono::nanoseconds(boottime_ns() - contact_ns_)).count();
  return health;
}

std::int64_t number_in(const nlohmann::json& object, const char* name) {
  const auto field = object.find(name);
  if (field == object.end()) return 0;
  if (field->is_number_integer()) return field->get<std::int64_t>();
  if (!field->is_string()) return 0;
  // Identities are unsigned, and only compared; so they may be read as if they were signed.
  const auto& text = field->get_ref<const std::string&>();
  std::int64_t number = 0;
  if (std::from_chars(text.data(), text.data() + text.size(), number).ec == std::errc{}) return number;
  std::uint64_t large = 0;
  std::from_chars(text.data(), text.data() + text.size(), large);
  return static_cast<std::int64_t>(large);
}

std::string text_in(const nlohmann::json& object, const char* name) {
  const auto field = object.find(name);
  return field != object.end() && field->is_string() ? field->get<std::string>() : std::string();
}

bool flag_in(const nlohmann::json& object, const char* name) {
  const auto field = object.find(name);
  return field != object.end() && field->is_boolean() && field->get<bool>();
}

std::string to_base64(std::string_view bytes) {
  std::string text(4 * ((bytes.size() + 2) / 3) + 1, '\0');  // and the zero that OpenSSL writes behind it
  const int size =
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()),
                      reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<int>(bytes.size()));
  text.resize(static_cast<std::size_t>(size));
  return text;
}

std::string from_base64(std::string_view text) {
  std::string bytes(3 * (text.size() / 4) + 3, '\0');
  const int size =
      EVP_DecodeBlock(reinterpret_cast<unsigned char*>(bytes.data()),
                      reinterpret_cast<const unsigned char*>(text.data()), static_cast<int>(text.size()));
  if (size < 0) return {};
  std::size_t padding = 0;
  while (padding < 2 && padding < text.size() && text[text.size() - 1 - padding] == '=') ++padding;
  bytes.resize(static_cast<std::size_t>(size) - padding);
  return bytes;
}

}  // namespace ringtail::replication

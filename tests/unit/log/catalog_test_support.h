// What the tests of the catalog share.
#pragma once

#include <gtest/gtest.h>
#include <sys/fsuid.h>
#include <sys/resource.h>
#include <sys/types.h>

#include <csignal>
#include <filesystem>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>

#include "../base/scratch_dir.h"
#include "log/catalog.h"

namespace ringtail::log {
namespace fs = std::filesystem;
using testing::get_file;
using testing::put_file;
using testing::ScratchDir;

// Everything below a directory with the content of files: what must not change when a change fails.
inline std::map<std::string, std::string> snapshot(const fs::path& dir) {
  std::map<std::string, std::string> tree;
  for (const auto& entry : fs::recursive_directory_iterator(dir)) {
    const std::string name = fs::relative(entry.path(), dir);
    if (name != "catalog.lock") tree[name] = entry.is_directory() ? "directory" : get_file(entry.path());
  }
  return tree;
}

// This thread without the rights of root on files.
class WithoutPrivileges {
 public:
  WithoutPrivileges() : previous_(static_cast<uid_t>(::setfsuid(kNobody))) {}
  WithoutPrivileges(const WithoutPrivileges&) = delete;
  WithoutPrivileges& operator=(const WithoutPrivileges&) = delete;
  ~WithoutPrivileges() { ::setfsuid(previous_); }

 private:
  static constexpr uid_t kNobody = 65534;
  uid_t previous_;
};

// Makes every write to a file fail, as a full disk does, but on any machine and without privileges.
class WithoutFileSpace {
 public:
  WithoutFileSpace() {
    ::getrlimit(RLIMIT_FSIZE, &previous_);
    const rlimit none{0, previous_.rlim_max};
    handler_ = std::signal(SIGXFSZ, SIG_IGN);
    ::setrlimit(RLIMIT_FSIZE, &none);
  }
  WithoutFileSpace(const WithoutFileSpace&) = delete;
  WithoutFileSpace& operator=(const WithoutFileSpace&) = delete;
  ~WithoutFileSpace() {
    ::setrlimit(RLIMIT_FSIZE, &previous_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit previous_{};
  void (*handler_)(int) = SIG_DFL;
};

class CatalogTest : public ::testing::Test {
 protected:
  Catalog open() {
    auto catalog = Catalog::open(dir(), true);
    EXPECT_TRUE(catalog) << to_string(catalog.error());
    return *catalog;
  }
  fs::path dir() const { return scratch_ / "log"; }
  fs::path topic_file(const char* topic) const { return dir() / "topics" / topic / "topic.toml"; }

  static void expect_error(const Error& error, Code code, std::initializer_list<std::string_view> parts) {
    EXPECT_EQ(error.code, code) << to_string(error);
    for (const std::string_view part : parts) {
      EXPECT_NE(error.message.find(part), std::string::npos) << "no '" << part << "' in: " << error.message;
    }
  }

  ScratchDir scratch_;
};

}  // namespace ringtail::log

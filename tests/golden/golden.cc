#include "golden.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <charconv>
#include <sstream>

#include "unit/base/scratch_dir.h"

namespace ringtail::golden {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kLine = 16;
constexpr std::string_view kHex = ".hex";

std::string to_dump(const std::string& bytes) {
  std::string text = fmt::format("bytes {}\n", bytes.size());
  for (std::size_t at = 0; at < bytes.size(); at += kLine) {
    const std::string_view line = std::string_view(bytes).substr(at, kLine);
    if (std::ranges::all_of(line, [](char c) { return c == 0; })) continue;
    text += fmt::format("{:08x}", at);
    for (const char c : line) text += fmt::format(" {:02x}", static_cast<unsigned char>(c));
    text += '\n';
  }
  return text;
}

std::string from_dump(const std::string& text, const std::string& name) {
  std::istringstream lines(text);
  std::string word;
  std::size_t size = 0;
  lines >> word >> size >> std::ws;
  std::string bytes(size, '\0');
  for (std::string line; std::getline(lines, line);) {
    std::istringstream numbers(line);
    std::size_t at = 0;
    unsigned byte = 0;
    numbers >> std::hex >> at;
    while (numbers >> byte)
      if (at < size) bytes[at++] = static_cast<char>(byte);
    EXPECT_TRUE(numbers.eof()) << name << ": " << line;
  }
  return bytes;
}

// What people may read as it is.
bool is_text(std::string_view name) {
  return name.ends_with(".toml") || name.ends_with(".json") || name.ends_with("leader-epochs");
}

}  // namespace

Tree load(const fs::path& dir) {
  Tree tree;
  for (const auto& entry : fs::recursive_directory_iterator(dir)) {
    if (!entry.is_regular_file()) continue;
    std::string name = fs::relative(entry.path(), dir).string();
    std::string content = testing::get_file(entry.path());
    if (name.ends_with(kHex)) {
      name.resize(name.size() - kHex.size());
      content = from_dump(content, name);
    }
    tree.emplace(std::move(name), std::move(content));
  }
  return tree;
}

void store(const fs::path& dir, const Tree& tree) {
  for (const auto& [name, bytes] : tree) {
    const fs::path path = dir / (is_text(name) ? name : name + std::string(kHex));
    fs::create_directories(path.parent_path());
    testing::put_file(path, is_text(name) ? bytes : to_dump(bytes));
  }
}

void lay_out(const fs::path& dir, const Tree& tree, std::string_view prefix) {
  for (const auto& [name, bytes] : tree) {
    if (!name.starts_with(prefix)) continue;
    const fs::path path = dir / name.substr(prefix.size());
    fs::create_directories(path.parent_path());
    testing::put_file(path, bytes);
  }
}

const Tree& committed() {
  static const Tree tree = load(RINGTAIL_GOLDEN_DIR);
  return tree;
}

const std::string& file(std::string_view name) {
  static const std::string none;
  const auto found = committed().find(name);
  if (found != committed().end()) return found->second;
  ADD_FAILURE() << "there is no golden file " << name;
  return none;
}

bool is_packed(std::string_view name) { return name.ends_with("-lz4") || name.ends_with("-zstd"); }

}  // namespace ringtail::golden

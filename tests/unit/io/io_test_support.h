// What the tests of the I/O seam share: a directory of their own, aligned memory, random bytes, child
// processes.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <new>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "io/backend.h"

namespace ringtail::io {

inline constexpr std::size_t kBlock = 4096;
inline constexpr std::size_t kMiB = std::size_t{1} << 20;

class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "ringtail-io-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) std::abort();
    path_ = name;
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// Zeroed memory that starts at a multiple of 4096.
class AlignedBytes {
 public:
  explicit AlignedBytes(std::size_t bytes)
      : data_(static_cast<std::byte*>(::operator new(bytes, std::align_val_t{kBlock}))), bytes_(bytes) {
    std::fill_n(data_.get(), bytes, std::byte{0});
  }
  std::byte* data() { return data_.get(); }
  std::size_t size() const { return bytes_; }
  std::span<std::byte> all() { return {data_.get(), bytes_}; }
  std::span<std::byte> part(std::size_t at, std::size_t bytes) { return all().subspan(at, bytes); }

 private:
  struct Free {
    void operator()(std::byte* data) const { ::operator delete(data, std::align_val_t{kBlock}); }
  };
  std::unique_ptr<std::byte, Free> data_;
  std::size_t bytes_;
};

inline std::uint64_t print_seed() {
  const std::uint64_t seed = std::random_device{}();
  std::cout << "seed " << seed << '\n';
  return seed;
}

inline void fill_random(std::span<std::byte> bytes, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  for (std::size_t at = 0; at < bytes.size(); at += sizeof(std::uint64_t)) {
    const std::uint64_t word = random();
    std::memcpy(bytes.data() + at, &word, std::min(sizeof word, bytes.size() - at));
  }
}

inline std::vector<std::byte> file_bytes(const std::filesystem::path& path) {
  std::vector<std::byte> bytes(std::filesystem::file_size(path));
  std::ifstream in(path, std::ios::binary);
  in.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

inline bool equal(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}

// The completion of the only operation in flight.
inline Completion reap_one(Backend& backend) {
  std::array<Completion, 4> out{};
  const std::size_t count = backend.reap(out, true);
  EXPECT_EQ(count, 1u);
  EXPECT_EQ(backend.in_flight(), 0u);
  return out[0];
}

// Runs `body` in a child process and fails the test when an expectation in it fails.
template <class Body>
void in_child(Body body) {
  std::cout.flush();
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    body();
    std::cout.flush();
    ::_exit(::testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "child's wait status " << status;
}

}  // namespace ringtail::io

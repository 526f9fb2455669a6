#include "support/unreliable_backend.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ranges>
#include <thread>
#include <utility>

#include "base/result.h"

namespace ringtail::testing {
namespace {

std::uint64_t number_of(const io::File& file) {
  struct stat status{};
  if (::fstat(file.fd(), &status) != 0) std::abort();
  return status.st_ino;
}

}  // namespace

template <class Submit>
std::int64_t UnreliableBackend::run(Submit submit) {
  submit();
  std::array<io::Completion, 1> done{};
  inner().reap(done, true);
  return done[0].result;
}

void UnreliableBackend::finish(std::uint64_t token, std::int64_t result) {
  Clock::time_point due = Clock::now();
  if (happens(rates_.slow)) {
    ++counts_.slow;
    due += std::chrono::microseconds(random_() % static_cast<std::uint64_t>(rates_.max_delay.count()));
  }
  finished_.push_back({{token, result}, due});
}

std::size_t UnreliableBackend::reap(std::span<io::Completion> out, bool wait) {
  std::size_t count = 0;
  while (count < out.size() && !finished_.empty()) {
    const auto first = std::ranges::min_element(finished_, {}, &Finished::due);
    if (first->due > Clock::now()) {
      if (!wait || count > 0) break;
      std::this_thread::sleep_until(first->due);
    }
    out[count++] = first->completion;
    finished_.erase(first);
  }
  return count;
}

// --- Metadata ------------------------------------------------------------------------------------

Status UnreliableBackend::preallocate(const io::File& file, std::uint64_t bytes) {
  if (!happens(rates_.no_space)) return inner().preallocate(file, bytes);
  ++counts_.no_space;
  return fail_errno(ENOSPC, fmt::format("no space for {} bytes, by chance", bytes));
}

Status UnreliableBackend::sync_file(const io::File& file) {
  if (happens(rates_.sync_error)) {
    ++counts_.sync_errors;
    return fail_errno(EIO, "a sync failed, by chance");
  }
  unsynced_.erase(number_of(file));
  return inner().sync_file(file);
}

// --- Data ----------------------------------------------------------------------------------------

UnreliableBackend::Unsynced& UnreliableBackend::unsynced_of(const io::File& file) {
  Unsynced& unsynced = unsynced_[number_of(file)];
  // Without O_DIRECT, for sectors may be smaller than the device's blocks.
  if (!unsynced.file.is_open())
    unsynced.file = io::File(::open(fmt::format("/proc/self/fd/{}", file.fd()).c_str(), O_RDWR | O_CLOEXEC));
  return unsynced;
}

std::int64_t UnreliableBackend::write(const io::File& file, std::span<const std::byte> bytes,
                                      std::uint64_t file_offset) {
  Unsynced& unsynced = unsynced_of(file);
  const bool fails = happens(rates_.write_error);
  const bool is_short = !fails && bytes.size() > rates_.sector && happens(rates_.short_write);
  if (is_short) {
    ++counts_.short_writes;
    const std::uint64_t sectors = bytes.size() / rates_.sector;
    bytes = bytes.first(random_() % sectors * rates_.sector);
  }
  counts_.write_errors += fails ? 1 : 0;
  for (std::uint64_t at = 0; at < bytes.size();) {
    const std::uint64_t begin = file_offset + at;
    const std::uint64_t part = std::min(bytes.size() - at, rates_.sector - begin % rates_.sector);
    std::vector<std::byte> before(part);
    if (::pread(unsynced.file.fd(), before.data(), part, static_cast<off_t>(begin)) < 0) std::abort();
    unsynced.sectors.push_back({begin, std::move(before)});
    // A whole write goes the way of the wrapped Backend, below.
    if ((fails || is_short) && (is_short || random_() % 2 == 0) &&
        ::pwrite(unsynced.file.fd(), bytes.data() + at, part, static_cast<off_t>(begin)) !=
            static_cast<ssize_t>(part))
      std::abort();
    at += part;
  }
  if (fails) return -EIO;
  if (is_short) return static_cast<std::int64_t>(bytes.size());
  return run([&] { inner().submit_write(file, bytes, file_offset, 0); });
}

std::int64_t UnreliableBackend::sync(const io::File& file) {
  if (happens(rates_.sync_error)) {
    ++counts_.sync_errors;
    return -EIO;
  }
  unsynced_.erase(number_of(file));
  return run([&] { inner().submit_sync(file, 0); });
}

void UnreliableBackend::submit_write(const io::File& file, std::span<const std::byte> bytes,
                                     std::uint64_t file_offset, std::uint64_t token) {
  finish(token, write(file, bytes, file_offset));
}

void UnreliableBackend::submit_write_and_sync(const io::File& file, std::span<const std::byte> bytes,
                                              std::uint64_t file_offset, std::uint64_t token) {
  std::int64_t result = write(file, bytes, file_offset);
  if (result == static_cast<std::int64_t>(bytes.size())) {
    if (const std::int64_t synced = sync(file); synced < 0) result = synced;
  }
  finish(token, result);
}

void UnreliableBackend::submit_sync(const io::File& file, std::uint64_t token) { finish(token, sync(file)); }

void UnreliableBackend::submit_read(const io::File& file, std::span<std::byte> bytes,
                                    std::uint64_t file_offset, std::uint64_t token) {
  if (happens(rates_.read_error)) {
    ++counts_.read_errors;
    return finish(token, -EIO);
  }
  const std::int64_t result = run([&] { inner().submit_read(file, bytes, file_offset, 0); });
  if (result > 0 && happens(rates_.rotten_read)) {
    ++counts_.rotten_reads;
    const std::uint64_t bit = random_() % (static_cast<std::uint64_t>(result) * 8);
    bytes[bit / 8] ^= static_cast<std::byte>(1U << bit % 8);
  }
  finish(token, result);
}

void UnreliableBackend::lose_unsynced() {
  if (!finished_.empty()) std::abort();
  for (const auto& [number, unsynced] : unsynced_) {
    // Backwards: of a sector that was written several times, any of its states may be there.
    for (const Sector& sector : std::views::reverse(unsynced.sectors)) {
      if (random_() % 2 == 0) continue;
      ++counts_.sectors_lost;
      if (::pwrite(unsynced.file.fd(), sector.before.data(), sector.before.size(),
                   static_cast<off_t>(sector.offset)) != static_cast<ssize_t>(sector.before.size()))
        std::abort();
    }
  }
  unsynced_.clear();
}

}  // namespace ringtail::testing

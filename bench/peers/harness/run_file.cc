#include "harness/run_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ctime>
#include <utility>

#include "base/clock.h"
#include "base/result.h"

namespace ringtail::peers {
namespace {

constexpr std::uint64_t kDone = std::uint64_t{1} << 63;

Result<void*> map(const std::string& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC, 0600);
  if (fd < 0) return fail_errno(errno, fmt::format("cannot open the run file '{}'", path));
  void* memory = MAP_FAILED;
  int error = 0;
  if ((flags & O_CREAT) != 0 && ::ftruncate(fd, RunFile::kBytes) != 0) error = errno;
  if (error == 0) {
    memory = ::mmap(nullptr, RunFile::kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) error = errno;
  }
  ::close(fd);
  if (error != 0) return fail_errno(error, fmt::format("cannot map the run file '{}'", path));
  return memory;
}

}  // namespace

Result<RunFile> RunFile::create(const std::string& path, std::uint64_t producers, std::uint64_t consumers) {
  auto memory = map(path, O_RDWR | O_CREAT | O_EXCL);
  if (!memory) return std::unexpected(memory.error());
  RunFile file(*memory);
  file.words_->producers.value = producers;
  file.words_->consumers.value = consumers;
  file.words_->version = kRunVersion;
  file.words_->magic = kRunMagic;
  return file;
}

Result<RunFile> RunFile::open(const std::string& path) {
  auto memory = map(path, O_RDWR);
  if (!memory) return std::unexpected(memory.error());
  RunFile file(*memory);
  if (file.words_->magic != kRunMagic || file.words_->version != kRunVersion) {
    return fail(Code::incompatible_layout,
                fmt::format("'{}' is no run file of version {}", path, kRunVersion));
  }
  return file;
}

RunFile::RunFile(RunFile&& other) noexcept : words_(std::exchange(other.words_, nullptr)) {}

RunFile::~RunFile() {
  if (words_ != nullptr) ::munmap(words_, kBytes);
}

std::uint64_t RunFile::wait_for_start() const {
  words_->ready.value.fetch_add(1, std::memory_order_acq_rel);  // SYNC: the runner's look
  const timespec pause{0, 50'000};
  while (!stopped()) {
    const std::uint64_t start = load(words_->start_ns);
    if (start != 0 && static_cast<std::int64_t>(start) - monotonic_ns() < 20'000'000) return start;
    ::nanosleep(&pause, nullptr);
  }
  return 0;
}

void RunFile::finish_sending(unsigned producer, std::uint64_t sent) const {
  words_->sent[producer].value.store(sent | kDone, std::memory_order_release);  // SYNC: all_sent
}

bool RunFile::all_sent(std::uint64_t& total) const {
  std::uint64_t sum = 0;
  for (std::uint64_t k = 0; k < producers() && k < kMaxProducers; ++k) {
    const std::uint64_t sent = load(words_->sent[k]);  // SYNC: finish_sending
    if ((sent & kDone) == 0) return false;
    sum += sent & ~kDone;
  }
  total = sum;
  return true;
}

}  // namespace ringtail::peers

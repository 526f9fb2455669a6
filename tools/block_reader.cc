#include "tools/block_reader.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "tools/session.h"

namespace ringtail::tools {

BlockReader::BlockReader(int fd, std::string name) : fd_(fd), name_(std::move(name)), buffer_(2 * kBlock) {}

Result<bool> BlockReader::fill() {
  if (at_end_) return false;
  if (begin_ > 0) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  if (end_ >= kMaxRest) {
    return fail(Code::limit_exceeded, fmt::format("{}: a record is longer than 64 MiB", name_));
  }
  if (buffer_.size() - end_ < kBlock) buffer_.resize(buffer_.size() * 2);
  while (true) {
    if (interrupt::wait(fd_, {}) == interrupt::Wake::signalled) {
      return fail(Code::closed, fmt::format("interrupted while reading {}", name_), EINTR);
    }
    const ssize_t got = ::read(fd_, buffer_.data() + end_, kBlock);
    if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (got < 0) {
      return fail(Code::system, fmt::format("cannot read {}: {}", name_, std::strerror(errno)), errno);
    }
    at_end_ = got == 0;
    end_ += static_cast<std::size_t>(got);
    bytes_read_ += static_cast<std::uint64_t>(got);
    return !at_end_;
  }
}

bool take_line(BlockReader& reader, std::string_view& line) {
  const std::string_view rest = reader.rest();
  const std::size_t end = rest.find('\n');
  if (end == std::string_view::npos) return false;
  line = rest.substr(0, end);
  reader.consume(end + 1);
  return true;
}

Result<bool> next_line(BlockReader& reader, std::string_view& line) {
  while (!take_line(reader, line)) {
    const Result<bool> more = reader.fill();
    if (!more) return std::unexpected(more.error());
    if (*more) continue;
    line = reader.rest();
    reader.consume(line.size());
    return !line.empty();
  }
  return true;
}

}  // namespace ringtail::tools

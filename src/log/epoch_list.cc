#include "log/epoch_list.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <string>

#include "base/crc32c.h"
#include "base/files.h"

namespace ringtail::log {

namespace {

constexpr std::string_view kFile = "leader-epochs";
constexpr std::string_view kTitle = "ringtail leader epochs ";
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kMaxBytes = 16 << 20;

std::uint32_t checksum(std::string_view text) { return crc32c(0, std::as_bytes(std::span(text))); }

// The next number of `text`, and what separates it from what follows.
template <class T>
bool take_number(std::string_view& text, char separator, T& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error != std::errc() || end == text.data() + text.size() || *end != separator) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()) + 1);
  return true;
}

// The version in the first line. It is read before the checksum: another version may keep its own elsewhere.
std::optional<std::uint32_t> version_of(std::string_view text) {
  std::uint32_t version = 0;
  if (!text.starts_with(kTitle)) return std::nullopt;
  text.remove_prefix(kTitle.size());
  return take_number(text, '\n', version) ? std::optional(version) : std::nullopt;
}

std::optional<std::vector<EpochStart>> parse(std::string_view text) {
  constexpr std::string_view crc_title = "crc32c ";
  const std::size_t tail = text.rfind(crc_title);
  if (tail == std::string_view::npos) return std::nullopt;
  std::string_view sum = text.substr(tail + crc_title.size());
  std::uint32_t expected = 0;
  if (!take_number(sum, '\n', expected) || !sum.empty() || expected != checksum(text.substr(0, tail)))
    return std::nullopt;
  std::vector<EpochStart> starts;
  const std::size_t begin = text.find('\n') + 1;
  for (std::string_view lines = text.substr(begin, tail - begin); !lines.empty();) {
    std::uint32_t epoch = 0;
    std::uint64_t position = 0;
    std::uint64_t offset = 0;
    if (!take_number(lines, ' ', epoch) || !take_number(lines, ' ', position) ||
        !take_number(lines, '\n', offset))
      return std::nullopt;
    starts.push_back({LeaderEpoch(epoch), {Position(position), Offset(offset)}});
  }
  return starts;
}

}  // namespace

Result<EpochList> EpochList::of(std::vector<EpochStart> starts) {
  for (std::size_t i = 1; i < starts.size(); ++i) {
    const EpochStart& a = starts[i - 1];
    const EpochStart& b = starts[i];
    if (a.epoch >= b.epoch || a.start.position >= b.start.position || a.start.offset > b.start.offset)
      return fail(Code::invalid_argument,
                  fmt::format("leader epochs {} and {} do not ascend", a.epoch.value(), b.epoch.value()));
  }
  EpochList list;
  list.starts_ = std::move(starts);
  return list;
}

Result<EpochList> EpochList::load(const std::filesystem::path& dir) {
  const auto path = dir / kFile;
  auto text = read_small_file(path, kMaxBytes, FileOf::log);
  if (!text && text.error().code == Code::not_found) return EpochList();
  if (!text) return std::unexpected(text.error());
  const auto version = version_of(*text);
  if (version && *version != kVersion)
    return fail(
        Code::incompatible_layout,
        fmt::format("'{}' has version {}, this release reads version {}; use the release that wrote it, "
                    "or remove the partition's directory to have it copied from another replica anew",
                    path.native(), *version, kVersion));
  if (auto starts = version ? parse(*text) : std::nullopt)
    if (auto list = of(std::move(*starts))) return list;
  return fail(Code::corrupt,
              fmt::format("'{}' is damaged; remove the partition's directory to have it copied from another "
                          "replica anew",
                          path.native()));
}

Status EpochList::store(const std::filesystem::path& dir) const {
  std::string text = fmt::format("{}{}\n", kTitle, kVersion);
  for (const EpochStart& s : starts_)
    text += fmt::format("{} {} {}\n", s.epoch.value(), s.start.position.value(), s.start.offset.value());
  return write_file_atomically(dir / kFile, text + fmt::format("crc32c {}\n", checksum(text)));
}

bool EpochList::begin(LeaderEpoch epoch, const LogPoint& start) {
  if (!starts_.empty() && starts_.back().epoch == epoch) return false;
  while (!starts_.empty() && starts_.back().start.position >= start.position) starts_.pop_back();
  starts_.push_back({epoch, start});
  return true;
}

void EpochList::cut(const LogPoint& end) {
  while (!starts_.empty() && starts_.back().start.position >= end.position) starts_.pop_back();
}

bool EpochList::has(LeaderEpoch epoch, Position end) const {
  const auto found = std::ranges::find(starts_, epoch, &EpochStart::epoch);
  if (found == starts_.end()) return false;
  return std::next(found) == starts_.end() || end <= std::next(found)->start.position;
}

LogPoint common_end(const EpochList& mine, const LogPoint& end, const EpochList& theirs,
                    const LogPoint& their_end) {
  const auto a = mine.starts();
  const auto b = theirs.starts();
  for (std::size_t i = a.size(); i-- > 0;) {
    const auto same = std::ranges::find(b, a[i].epoch, &EpochStart::epoch);
    if (same == b.end() || same->start != a[i].start) continue;
    const LogPoint mine_ends = i + 1 < a.size() ? a[i + 1].start : end;
    const LogPoint theirs_ends = std::next(same) != b.end() ? std::next(same)->start : their_end;
    // A list may tell of an epoch of which nothing has arrived yet.
    return std::min({mine_ends, end, theirs_ends, their_end});
  }
  return {};
}

}  // namespace ringtail::log

#include "log/truncate.h"

#include "log/segment_files.h"

namespace ringtail::log {

using format::FileKind;

Status truncate_log(io::Backend& backend, const std::filesystem::path& dir,
                    const format::SegmentIdentity& identity, const LogPoint& end) {
  auto listing = list_segments(dir);
  if (!listing) return std::unexpected(listing.error());
  // From the back, so that what remains is always a log without a gap.
  for (std::size_t i = listing->logs.size(); i-- > 0;) {
    const auto path = segment_path(dir, FileKind::log, listing->logs[i]);
    auto opened = open_checked(backend, path, FileKind::log, identity);
    if (!opened) return std::unexpected(opened.error());
    const Position base(opened->header.base_position);
    // The first segment stays, though it be empty: it tells where the log begins.
    if (base >= end.position && i > 0) {
      if (auto removed = remove_segment(backend, path); !removed) return removed;
      continue;
    }
    // Its indexes tell of what is cut off. Recovery makes them anew.
    for (const FileKind kind : {FileKind::index, FileKind::time_index})
      if (auto removed = backend.unlink(sibling(path, kind));
          !removed && removed.error().code != Code::not_found)
        return removed;
    const std::uint64_t bytes = format::file_offset(base, std::max(base, end.position));
    if (opened->bytes > bytes) {
      auto file = backend.open(path, io::OpenMode::write_direct);
      if (!file) return std::unexpected(file.error());
      if (auto done = backend.truncate(*file, bytes); !done) return done;
      if (auto done = backend.sync_file(*file); !done) return done;
    }
    break;
  }
  return backend.sync_directory(dir);
}

Status clear_log(io::Backend& backend, const std::filesystem::path& dir) {
  auto listing = list_segments(dir);
  if (!listing) return std::unexpected(listing.error());
  for (std::size_t i = listing->logs.size(); i-- > 0;)
    if (auto removed = remove_segment(backend, segment_path(dir, FileKind::log, listing->logs[i])); !removed)
      return removed;
  return backend.sync_directory(dir);
}

}  // namespace ringtail::log

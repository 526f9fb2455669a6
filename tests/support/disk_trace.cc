#include "support/disk_trace.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string_view>
#include <utility>

#include "io/backend.h"

namespace ringtail::test {
namespace {

namespace fs = std::filesystem;

// The kernel's number of a file; nothing when it is not there.
std::optional<std::uint64_t> number_of(const fs::path& path) {
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0) return std::nullopt;
  return status.st_ino;
}

fs::path link_of(pid_t process, std::uint64_t descriptor) {
  return fmt::format("/proc/{}/fd/{}", process, descriptor);
}

// Where a descriptor stands in its file.
std::uint64_t standing_of(pid_t process, std::uint64_t descriptor) {
  std::ifstream info(fmt::format("/proc/{}/fdinfo/{}", process, descriptor));
  std::string name;
  std::uint64_t position = 0;
  info >> name >> position;
  return position;
}

}  // namespace

// --- Bytes ---------------------------------------------------------------------------------------

void SparseBytes::write(std::uint64_t offset, std::span<const std::byte> bytes) {
  size_ = std::max(size_, offset + bytes.size());
  while (!bytes.empty()) {
    auto& block = blocks_[offset / kBlock];
    block.resize(kBlock);
    const std::size_t at = offset % kBlock;
    const std::size_t part = std::min(bytes.size(), kBlock - at);
    std::copy_n(bytes.begin(), part, block.begin() + static_cast<std::ptrdiff_t>(at));
    offset += part;
    bytes = bytes.subspan(part);
  }
}

void SparseBytes::resize(std::uint64_t size) {
  if (size < size_) {
    blocks_.erase(blocks_.lower_bound((size + kBlock - 1) / kBlock), blocks_.end());
    if (const auto last = blocks_.find(size / kBlock); last != blocks_.end())
      std::fill(last->second.begin() + static_cast<std::ptrdiff_t>(size % kBlock), last->second.end(),
                std::byte{0});
  }
  size_ = size;
}

void SparseBytes::load(const fs::path& from) {
  std::ifstream file(from, std::ios::binary);
  std::vector<std::byte> block(kBlock);
  for (std::uint64_t at = 0; file; at += kBlock) {
    file.read(reinterpret_cast<char*>(block.data()), kBlock);
    const auto got = static_cast<std::size_t>(file.gcount());
    const auto part = std::span(block).first(got);
    if (std::ranges::any_of(part, [](std::byte byte) { return byte != std::byte{0}; })) write(at, part);
    size_ = std::max(size_, at + got);
  }
}

void SparseBytes::save(const fs::path& to) const {
  const io::File file(::open(to.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
  bool saved = ::ftruncate(file.fd(), static_cast<off_t>(size_)) == 0;
  for (const auto& [number, block] : blocks_) {
    const std::size_t bytes = std::min<std::uint64_t>(kBlock, size_ - number * kBlock);
    saved = saved && ::pwrite(file.fd(), block.data(), bytes, static_cast<off_t>(number * kBlock)) ==
                         static_cast<ssize_t>(bytes);
  }
  if (!saved) std::abort();  // the test's own folder is broken
}

std::string_view to_string(PowerCut cut) {
  switch (cut) {
    case PowerCut::loses_all: return "nothing unsynced is kept";
    case PowerCut::keeps_all: return "all is kept";
    case PowerCut::tears_512: return "sectors of 512 bytes are kept";
    case PowerCut::tears_4096: return "sectors of 4096 bytes are kept";
  }
  return "?";
}

// --- Taking note ---------------------------------------------------------------------------------

DiskTrace::DiskTrace(fs::path root) : root_(std::move(root)) { add_existing(root_); }

DiskTrace::NodeId DiskTrace::add_existing(const fs::path& path) {
  const NodeId node = next_++;
  nodes_[number_of(path).value_or(0)] = node;
  if (!fs::is_directory(path)) {
    initial_.files[node].load(path);
    return node;
  }
  directories_.insert(node);
  Names names;
  for (const auto& entry : fs::directory_iterator(path))
    names[entry.path().filename()] = add_existing(entry.path());
  initial_.directories[node] = live_[node] = std::move(names);
  return node;
}

std::optional<DiskTrace::Place> DiskTrace::place_of(const fs::path& path) const {
  const fs::path relative = path.lexically_normal().lexically_relative(root_);
  if (relative.empty() || relative == "." || *relative.begin() == "..") return std::nullopt;
  Place place{0, {}};
  for (const fs::path& part : relative) {
    if (!place.name.empty()) {
      const auto node = node_at(place);
      if (!node) return std::nullopt;
      place.directory = *node;
    }
    place.name = part;
  }
  return place;
}

std::optional<DiskTrace::NodeId> DiskTrace::node_at(const Place& place) const {
  const auto names = live_.find(place.directory);
  if (names == live_.end()) return std::nullopt;
  const auto found = names->second.find(place.name);
  return found == names->second.end() ? std::nullopt : std::optional(found->second);
}

// By the kernel's number: another thread may have renamed the file meanwhile.
std::optional<DiskTrace::NodeId> DiskTrace::node_of(const Tracer& tracer, std::uint64_t descriptor) const {
  const auto number = number_of(link_of(tracer.process(), descriptor));
  if (!number) return std::nullopt;
  const auto found = nodes_.find(*number);
  if (found == nodes_.end() || !tracer.path_of_descriptor(descriptor).starts_with(root_.native()))
    return std::nullopt;
  return found->second;
}

bool DiskTrace::add(Event event) {
  events_.push_back(std::move(event));
  return true;
}

bool DiskTrace::note(const Tracer& tracer, const Call& call) {
  if (!call.ended) {
    begun_[call.thread] = events_.size();
    return false;
  }
  if (call.result < 0) return false;
  switch (call.number) {
    case SYS_openat: return note_open(tracer, call);
    case SYS_mkdir: return note_make_directory(tracer.path_at(call, 0));
    case SYS_mkdirat: return note_make_directory(tracer.path_at(call, 0, 1));
    case SYS_linkat: return note_link(tracer, call);
    case SYS_rename: return note_rename(tracer.path_at(call, 0), tracer.path_at(call, 1));
    case SYS_renameat: return note_rename(tracer.path_at(call, 0, 1), tracer.path_at(call, 2, 3));
    case SYS_rmdir:
    case SYS_unlink: return note_unlink(tracer.path_at(call, 0));
    case SYS_unlinkat: return note_unlink(tracer.path_at(call, 0, 1));
    case SYS_write:
    case SYS_pwrite64: return note_write(tracer, call);
    case SYS_fsync:
    case SYS_fdatasync:
    case SYS_ftruncate:
    case SYS_fallocate: return note_descriptor(tracer, call);
    default: break;
  }
  // What the disk does not know of must not concern it.
  if (call.number == SYS_io_uring_enter || !tracer.path_of(call).starts_with(root_.native())) return false;
  fmt::print(stderr, "the trace knows nothing of {} of '{}'\n", name_of_call(call.number),
             tracer.path_of(call));
  std::abort();
}

bool DiskTrace::note_open(const Tracer& tracer, const Call& call) {
  const auto flags = call.arguments[2];
  if ((flags & O_TMPFILE) == O_TMPFILE) return note_nameless(tracer, call);
  if ((flags & (O_CREAT | O_TRUNC)) == 0) return false;
  const auto place = place_of(tracer.path_at(call, 0, 1));
  if (!place) return false;
  if (const auto node = node_at(*place)) {
    return (flags & O_TRUNC) != 0 && add({.kind = Kind::resize, .node = *node, .may_shrink = true});
  }
  const NodeId made = next_++;
  const auto number = number_of(link_of(tracer.process(), static_cast<std::uint64_t>(call.result)));
  nodes_[number.value_or(0)] = made;
  live_[place->directory][place->name] = made;
  return add({.kind = Kind::make, .node = place->directory, .name = place->name, .made = made});
}

// A file that has no name is no change of the folder yet; what is written to it may come to be.
bool DiskTrace::note_nameless(const Tracer& tracer, const Call& call) {
  const auto descriptor = static_cast<std::uint64_t>(call.result);
  if (!tracer.path_of_descriptor(descriptor).starts_with(root_.native())) return false;
  nodes_[number_of(link_of(tracer.process(), descriptor)).value_or(0)] = next_++;
  return false;
}

// Gives a nameless file, known by its descriptor, a name.
bool DiskTrace::note_link(const Tracer& tracer, const Call& call) {
  const auto place = place_of(tracer.path_at(call, 2, 3));
  if (!place) return false;
  const auto number = number_of(tracer.path_at(call, 2, 3));
  const auto made = number ? nodes_.find(*number) : nodes_.end();
  if (made == nodes_.end()) std::abort();  // of a file from elsewhere, which the disk does not know
  live_[place->directory][place->name] = made->second;
  return add({.kind = Kind::make, .node = place->directory, .name = place->name, .made = made->second});
}

bool DiskTrace::note_make_directory(const fs::path& path) {
  const auto place = place_of(path);
  if (!place) return false;
  const NodeId made = next_++;
  nodes_[number_of(path).value_or(0)] = made;
  directories_.insert(made);
  live_[place->directory][place->name] = made;
  live_[made] = {};
  return add({.kind = Kind::make, .node = place->directory, .name = place->name, .made = made});
}

bool DiskTrace::note_rename(const fs::path& from, const fs::path& to) {
  const auto before = place_of(from);
  const auto after = place_of(to);
  if (!before || !after) return false;
  if (before->directory != after->directory) std::abort();  // a journal keeps the order within one directory
  Event event{.kind = Kind::rename, .node = before->directory, .name = before->name, .to = after->name};
  apply_name(live_[event.node], event);
  return add(std::move(event));
}

bool DiskTrace::note_unlink(const fs::path& path) {
  const auto place = place_of(path);
  if (!place) return false;
  Event event{.kind = Kind::unlink, .node = place->directory, .name = place->name};
  apply_name(live_[event.node], event);
  return add(std::move(event));
}

bool DiskTrace::note_write(const Tracer& tracer, const Call& call) {
  const std::uint64_t descriptor = call.arguments[0];
  const auto node = node_of(tracer, descriptor);
  if (!node) return false;
  const auto bytes = static_cast<std::uint64_t>(call.result);
  const std::uint64_t offset =
      call.number == SYS_pwrite64 ? call.arguments[3] : standing_of(tracer.process(), descriptor) - bytes;
  return add({.kind = Kind::write,
              .node = *node,
              .offset = offset,
              .bytes = tracer.memory(call.arguments[1], bytes)});
}

bool DiskTrace::note_descriptor(const Tracer& tracer, const Call& call) {
  const auto node = node_of(tracer, call.arguments[0]);
  if (!node) return false;
  if (call.number == SYS_ftruncate)
    return add({.kind = Kind::resize, .node = *node, .size = call.arguments[1], .may_shrink = true});
  if (call.number == SYS_fallocate)
    return add({.kind = Kind::resize, .node = *node, .size = call.arguments[2] + call.arguments[3]});
  return add({.kind = Kind::sync, .node = *node, .covers = begun_[call.thread]});
}

std::string DiskTrace::describe(std::size_t event) const {
  if (event >= events_.size()) return "the end";
  const Event& e = events_[event];
  switch (e.kind) {
    case Kind::make: return fmt::format("'{}' is made in {}", e.name, e.node);
    case Kind::write:
      return fmt::format("{} bytes at {} are written to {}", e.bytes.size(), e.offset, e.node);
    case Kind::resize: return fmt::format("{} gets {} bytes", e.node, e.size);
    case Kind::rename: return fmt::format("'{}' becomes '{}' in {}", e.name, e.to, e.node);
    case Kind::unlink: return fmt::format("'{}' is removed in {}", e.name, e.node);
    case Kind::sync: return fmt::format("{} is synced", e.node);
  }
  return "?";
}

// --- Laying out ----------------------------------------------------------------------------------

void DiskTrace::apply_name(Names& names, const Event& event) {
  if (event.kind == Kind::make) {
    names[event.name] = event.made;
  } else if (auto moved = names.extract(event.name); event.kind == Kind::rename && !moved.empty()) {
    names[event.to] = moved.mapped();
  }
}

void DiskTrace::apply_whole(Disk& disk, const Event& event) {
  switch (event.kind) {
    case Kind::write: disk.files[event.node].write(event.offset, event.bytes); break;
    case Kind::resize:
      if (SparseBytes& file = disk.files[event.node]; event.may_shrink || event.size > file.size())
        file.resize(event.size);
      break;
    default: apply_name(disk.directories[event.node], event);
  }
}

void DiskTrace::apply_torn(SparseBytes& file, const Event& event, bool keeps_size, std::uint64_t sector,
                           std::mt19937_64& random) {
  if (event.kind == Kind::resize) {
    if (keeps_size && (event.may_shrink || event.size > file.size())) file.resize(event.size);
    return;
  }
  const std::span<const std::byte> bytes(event.bytes);
  for (std::uint64_t at = 0; at < bytes.size();) {
    const std::uint64_t part = std::min(bytes.size() - at, sector - (event.offset + at) % sector);
    const bool is_beyond = event.offset + at + part > file.size();
    if (random() % 2 == 0 && (keeps_size || !is_beyond))
      file.write(event.offset + at, bytes.subspan(at, part));
    at += part;
  }
  if (keeps_size) file.resize(std::max(file.size(), event.offset + bytes.size()));
}

// Some files and directories have nothing or all of their changes, for these are the edges.
void DiskTrace::tear(Disk& disk, NodeId node, const std::vector<std::size_t>& pending, std::uint64_t sector,
                     std::mt19937_64& random) const {
  const std::uint64_t luck = random() % 4;
  if (luck == 0) return;
  const std::size_t kept = luck == 1 ? pending.size() : random() % (pending.size() + 1);
  for (std::size_t i = 0; i < pending.size(); ++i) {
    const Event& event = events_[pending[i]];
    if (luck == 1) {
      apply_whole(disk, event);
    } else if (directories_.contains(node)) {
      if (i < kept) apply_name(disk.directories[node], event);
    } else {
      apply_torn(disk.files[node], event, i < kept, sector, random);
    }
  }
}

DiskTrace::Disk DiskTrace::replay(std::size_t events) const {
  Disk disk = initial_;
  for (std::size_t i = 0; i < std::min(events, events_.size()); ++i) {
    const Event& event = events_[i];
    auto& pending = disk.pending[event.node];
    if (event.kind != Kind::sync) {
      pending.push_back(i);
      continue;
    }
    const auto covered = std::ranges::lower_bound(pending, event.covers);
    for (auto it = pending.begin(); it != covered; ++it) apply_whole(disk, events_[*it]);
    pending.erase(pending.begin(), covered);
  }
  return disk;
}

void DiskTrace::lay_out(std::size_t events, PowerCut cut, std::mt19937_64& random, const fs::path& to) const {
  Disk disk = replay(events);
  for (const auto& [node, pending] : disk.pending) {
    if (cut == PowerCut::keeps_all)
      for (const std::size_t event : pending) apply_whole(disk, events_[event]);
    if (cut == PowerCut::tears_512 || cut == PowerCut::tears_4096)
      tear(disk, node, pending, cut == PowerCut::tears_512 ? 512 : 4096, random);
  }
  save(disk, 0, to);
}

void DiskTrace::save(const Disk& disk, NodeId directory, const fs::path& to) const {
  fs::create_directory(to);
  const auto names = disk.directories.find(directory);
  if (names == disk.directories.end()) return;
  for (const auto& [name, node] : names->second) {
    if (directories_.contains(node)) {
      save(disk, node, to / name);
    } else if (const auto file = disk.files.find(node); file != disk.files.end()) {
      file->second.save(to / name);
    } else {
      SparseBytes().save(to / name);
    }
  }
}

}  // namespace ringtail::test

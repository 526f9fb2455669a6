// What a process has done to the files of one folder, and what a power cut leaves of it.
//
// The process is led by a Tracer, which hands each of its calls over. From that, the folder can be laid out as a disk
// may have it when the power goes after any number of changes: what was synced is there; of what was not, a part.
//
// The disk is a harsh one. A file's bytes survive from its sync on, its name from the sync of its directory on; a sync
// covers what had been done when it began. Of what no sync covers, any sectors of a file's writes may be there, in
// whatever order they were made; changes of sizes are kept up to some point of each file, and changes of names up to
// some point of each directory, as journals keep them.
//
// Thread safety: none. Lifetime: of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "support/tracer.h"

namespace ringtail::test {

// A file's bytes, of which most may be zero.
class SparseBytes {
 public:
  static constexpr std::size_t kBlock = 4096;

  std::uint64_t size() const { return size_; }
  void write(std::uint64_t offset, std::span<const std::byte> bytes);
  void resize(std::uint64_t size);
  void load(const std::filesystem::path& from);
  void save(const std::filesystem::path& to) const;

 private:
  std::uint64_t size_ = 0;
  std::map<std::uint64_t, std::vector<std::byte>> blocks_;
};

// What becomes of changes that no sync covers.
enum class PowerCut : std::uint8_t {
  loses_all,
  keeps_all,
  tears_512,   // any sectors of 512 bytes
  tears_4096,  // any of 4096
};
std::string_view to_string(PowerCut cut);

class DiskTrace {
 public:
  // What is in `root` now is on the disk.
  explicit DiskTrace(std::filesystem::path root);

  // Takes note of a call's end. True when it was a change of the folder, or a sync in it.
  bool note(const Tracer& tracer, const Call& call);
  // Changes and syncs so far.
  std::size_t size() const { return events_.size(); }
  // What an event was, for messages.
  std::string describe(std::size_t event) const;

  // Makes the folder `to` as the disk may have it when the power goes behind the first `events`.
  void lay_out(std::size_t events, PowerCut cut, std::mt19937_64& random,
               const std::filesystem::path& to) const;

 private:
  using NodeId = std::uint32_t;
  enum class Kind : std::uint8_t { make, write, resize, rename, unlink, sync };

  struct Event {
    Kind kind;
    NodeId node = 0;  // the file; of names, their directory
    std::string name = {};
    std::string to = {};  // of rename
    NodeId made = 0;      // of make
    std::uint64_t offset = 0;
    std::vector<std::byte> bytes = {};
    std::uint64_t size = 0;   // of resize
    bool may_shrink = false;  // likewise
    std::size_t covers = 0;   // of sync: the events before this one
  };
  using Names = std::map<std::string, NodeId>;
  struct Disk {
    std::map<NodeId, SparseBytes> files;
    std::map<NodeId, Names> directories;
    std::map<NodeId, std::vector<std::size_t>> pending;  // events no sync has covered
  };

  // Where a name stands: the directory and the name in it.
  struct Place {
    NodeId directory;
    std::string name;
  };

  NodeId add_existing(const std::filesystem::path& path);
  std::optional<Place> place_of(const std::filesystem::path& path) const;
  std::optional<NodeId> node_at(const Place& place) const;
  std::optional<NodeId> node_of(const Tracer& tracer, std::uint64_t descriptor) const;
  bool add(Event event);
  bool note_open(const Tracer& tracer, const Call& call);
  bool note_nameless(const Tracer& tracer, const Call& call);
  bool note_link(const Tracer& tracer, const Call& call);
  bool note_make_directory(const std::filesystem::path& path);
  bool note_rename(const std::filesystem::path& from, const std::filesystem::path& to);
  bool note_unlink(const std::filesystem::path& path);
  bool note_write(const Tracer& tracer, const Call& call);
  bool note_descriptor(const Tracer& tracer, const Call& call);
  Disk replay(std::size_t events) const;
  static void apply_name(Names& names, const Event& event);
  static void apply_whole(Disk& disk, const Event& event);
  static void apply_torn(SparseBytes& file, const Event& event, bool keeps_size, std::uint64_t sector,
                         std::mt19937_64& random);
  void tear(Disk& disk, NodeId node, const std::vector<std::size_t>& pending, std::uint64_t sector,
            std::mt19937_64& random) const;
  void save(const Disk& disk, NodeId directory, const std::filesystem::path& to) const;

  std::filesystem::path root_;
  std::map<std::uint64_t, NodeId> nodes_;  // by the kernel's number
  std::map<pid_t, std::size_t> begun_;     // events when a thread's present call began
  NodeId next_ = 0;
  std::set<NodeId> directories_;
  Disk initial_;
  std::map<NodeId, Names> live_;  // names as the process sees them
  std::vector<Event> events_;
};

}  // namespace ringtail::test

// The files of a partition, changed in every way that a disk, a file system, an operator or an enemy might: nothing
// crashes; recovery keeps only what was written, or refuses and changes nothing; a reader gives back the true records
// or says corrupt. An enemy makes new checksums for what he has changed: then what is read need not be true.
#include <fmt/format.h>

#include <cstdlib>
#include <map>
#include <utility>

#include "base/crc32c.h"
#include "fuzz/harness/scene.h"
#include "log/epoch_list.h"
#include "log/verify.h"
#include "unit/log/segment_test_support.h"

namespace ringtail::log {
namespace {

namespace fs = std::filesystem;
using fuzz::demand;
using testing::get_file;
using testing::put_file;

using Files = std::map<std::string, std::string>;

class RecoveryFuzz : public SegmentTest {
 public:
  RecoveryFuzz() {
    config_.segment_bytes = 16 << 10;
    config_.index_interval_bytes = 1 << 10;
    open_writer(ring_);
    for (int i = 0; i < 120; ++i) add(i);
    flush(ring_);
    writer_.reset();
    demand(
        static_cast<bool>(EpochList::of({{LeaderEpoch(1), {}}, {LeaderEpoch(7), {Position(4096), Offset(9)}}})
                              ->store(dir())),
        "the list of epochs is stored");
    pristine_ = snapshot();
    demand(logs().size() > 2, "there are several segments");
  }

  void run(fuzz::Input input) {
    input_ = &input;
    forged_ = false;
    Files files = pristine_;
    for (std::uint64_t n = 1 + pick(3); n > 0; --n) mutate(files);
    restore(files);
    check();
    input_ = nullptr;
  }

 private:
  void TestBody() override {}

  void add(int i) {
    if (i % 29 == 0) ring_.add_filler(format::FrameType::aborted, 48, 2);
    if (i % 41 == 0) ring_.add_filler(format::FrameType::pad, 320, 0);
    const std::string value(static_cast<std::size_t>(i * 31 % 900), 'z');
    const format::Extension extension{7, 1, i % 3 == 0 ? static_cast<std::uint32_t>(1 + i / 20) : 0,
                                      static_cast<std::uint64_t>(i)};
    if (i % 2 == 0)
      ring_.add_record(i, value);
    else
      ring_.add_record(i, value, extension);
    if (i % 20 == 19)
      ring_.add_marker(i, i % 40 == 19 ? format::MarkerKind::commit : format::MarkerKind::abort,
                       {7, 1, static_cast<std::uint32_t>(1 + i / 20), 0});
    if (i % 7 == 0) flush(ring_);
  }

  Files snapshot() const {
    Files files;
    for (const auto& entry : fs::directory_iterator(dir()))
      files[entry.path().filename()] = get_file(entry.path());
    return files;
  }
  void restore(const Files& files) const {
    for (const auto& entry : fs::directory_iterator(dir())) fs::remove(entry.path());
    for (const auto& [name, bytes] : files) put_file(dir() / name, bytes);
  }

  // --- Changes -----------------------------------------------------------------------------------

  std::uint64_t pick(std::uint64_t n) { return input_->pick(n); }
  // Mostly where something is, not in the free space behind it.
  std::uint64_t pick_place(const std::string& bytes) {
    const std::size_t last = bytes.find_last_not_of('\0');
    const std::uint64_t used = last == std::string::npos ? bytes.size() : last + 1;
    return pick(pick(8) == 0 ? bytes.size() : used);
  }
  Files::iterator pick_file(Files& files) {
    return std::next(files.begin(), static_cast<long>(pick(files.size())));
  }

  void mutate(Files& files) {
    if (files.empty()) return;
    const auto victim = pick_file(files);
    std::string& bytes = victim->second;
    const std::uint64_t kind = pick(13);
    if (kind == 0) {
      files.erase(victim);
    } else if (kind == 1) {
      bytes = pick_file(files)->second;
    } else if (kind == 2) {
      bytes.append(pick(10'000), static_cast<char>(pick(256)));
    } else if (!bytes.empty()) {
      const std::uint64_t at = pick_place(bytes);
      const std::uint64_t length = std::min<std::uint64_t>(1 + pick(5'000), bytes.size() - at);
      switch (kind) {
        case 3: bytes.resize(at); break;
        case 4: bytes.erase(at / 8 * 8, 8); break;
        case 5: bytes.insert(at / 8 * 8, std::string(8 * (1 + pick(10)), '\0')); break;
        case 6: bytes.replace(at, length, length, '\0'); break;
        case 7: bytes.replace(at, length, bytes.substr(pick_place(bytes), length)); break;
        case 8: overwrite_with(bytes, at, input_->text(length)); break;
        case 9: forge_header(bytes); break;
        case 10: forge_frame(bytes, at); break;
        case 11: forge_epochs(files); break;
        default: bytes[at] = static_cast<char>(bytes[at] ^ (1 << pick(8)));
      }
    }
  }
  static void overwrite_with(std::string& bytes, std::uint64_t at, std::string_view with) {
    bytes.replace(at, with.size(), with);
  }

  // A number that may be where another one was: near it, near a limit, or any.
  std::uint64_t forged_number(std::uint64_t now) {
    switch (pick(5)) {
      case 0: return now + 8 * pick(64);
      case 1: return now - 8 * pick(64);
      case 2: return ~std::uint64_t{0} - pick(5'000);
      case 3: return std::uint64_t{1} << pick(64);
      default: return input_->take<std::uint64_t>();
    }
  }
  void forge_header(std::string& bytes) {
    if (bytes.size() < format::kBlockBytes) return;
    forged_ = true;
    format::FileHeader header;
    std::memcpy(&header, bytes.data(), sizeof header);
    switch (pick(7)) {
      case 0: header.base_offset = forged_number(header.base_offset); break;
      case 1: header.base_position = forged_number(header.base_position) & ~std::uint64_t{7}; break;
      case 2: header.synced_position = forged_number(header.synced_position) & ~std::uint64_t{7}; break;
      case 3: header.synced_offset = forged_number(header.synced_offset); break;
      case 4: header.created_ns = static_cast<std::int64_t>(forged_number(0)); break;
      case 5: header.compactions = static_cast<std::uint32_t>(pick(3)); break;
      default: header.frame_words = static_cast<std::uint32_t>(forged_number(header.frame_words));
    }
    std::vector<std::byte> block(format::kBlockBytes);
    format::encode_header(header, block);
    std::memcpy(bytes.data(), block.data(), block.size());
  }
  // One of the frames of a log, as far as what stands at a place is one.
  void forge_frame(std::string& bytes, std::uint64_t at) {
    at = at / 8 * 8;
    const auto whole = std::as_writable_bytes(std::span(bytes));
    while (at >= format::kBlockBytes &&
           format::check_frame(whole.subspan(at), -1) != format::FrameFault::none)
      at -= 8;
    if (at < format::kBlockBytes || at >= bytes.size()) return;
    forged_ = true;
    std::byte* const frame = whole.data() + at;
    format::FrameHeader header = format::load_header(frame);
    switch (pick(4)) {
      case 0: header.offset = forged_number(header.offset); break;
      case 1: header.timestamp_ns = static_cast<std::int64_t>(forged_number(0)); break;
      case 2: header.key_length = static_cast<std::uint32_t>(forged_number(header.key_length)); break;
      default:
        header.length = static_cast<std::int32_t>(forged_number(static_cast<std::uint32_t>(header.length)));
    }
    std::memcpy(frame, &header, sizeof header);
    if (format::check_structure(whole.subspan(at)) != format::FrameFault::none) return;
    header.crc32c = format::frame_crc(whole.subspan(at));
    std::memcpy(frame, &header, sizeof header);
  }
  void forge_epochs(Files& files) {
    std::string text = "ringtail leader epochs 1\n";
    text += input_->text(200);
    files["leader-epochs"] =
        text + fmt::format("crc32c {}\n", crc32c(0, std::as_bytes(std::span(std::as_const(text)))));
  }

  // --- What must hold ----------------------------------------------------------------------------

  const MadeFrame* made_at(Position position) const {
    const auto found = std::ranges::lower_bound(ring_.frames(), position, {}, &MadeFrame::position);
    return found != ring_.frames().end() && found->position == position ? &*found : nullptr;
  }

  // Every frame that a reader gives is one that was written, where it was written.
  void expect_only_truth(Position from, Position limit) {
    auto reader = SegmentReader::open(dir(), kTestIdentity, {.read_ahead_bytes = 64 * 1024});
    demand(reader.has_value(), "files can be read");
    for (Position at = from; at < limit;) {
      const auto read = (*reader)->read(at, limit);
      if (!read) return;
      const std::span<const std::byte> bytes = read->bytes;
      demand(!bytes.empty() || read->position >= limit, "a reader that finds nothing says why");
      demand(forged_ || read->position == at, "frames stand where they were written");
      for (std::size_t i = 0; i < bytes.size();) {
        const auto header = format::load_header(bytes.data() + i);
        const std::uint32_t extent = format::align_frame(static_cast<std::uint32_t>(header.length));
        // Recovery ends the log with a pad, at a block.
        const bool ends_log = at + i + extent == limit && limit == format::block_down(limit);
        if (!forged_ && (header.type != format::FrameType::pad || !ends_log)) {
          const MadeFrame* made = made_at(at + i);
          demand(made != nullptr && header.offset == made->offset.value() && header.type == made->type,
                 "a frame that is read was written there");
          demand(made->type != format::FrameType::data ||
                     format::decode_record(bytes.data() + i, nullptr).value == made->value,
                 "a record that is read is the one that was written");
        }
        i += extent;
      }
      at = read->position + bytes.size();
    }
  }

  void check() {
    demand(verify_partition(dir()).has_value(), "files can be verified");
    for (const Offset base : logs()) {
      static_cast<void>(dump_segment(log_file(base.value()), {}, [](const DumpedFrame& frame) {
        return frame.fault != format::FrameFault::none || !format::describe_frame(frame.frame).empty();
      }));
    }
    static_cast<void>(EpochList::load(dir()));
    expect_only_truth(Position(0), ring_.end());
    auto reader = SegmentReader::open(dir(), kTestIdentity);
    demand(reader.has_value(), "files can be read");
    static_cast<void>((*reader)->locate(Offset(pick(400)), ring_.end()));
    static_cast<void>((*reader)->locate_time(static_cast<std::int64_t>(pick(400)), ring_.end()));

    const Files before = snapshot();
    const bool accepts = recover({.writable = false, .pad_to_block = true}).has_value();
    demand(snapshot() == before, "recovery that may not write changes nothing");
    demand(recover({.pad_to_block = true}).has_value() == accepts,
           "recovery that may write decides the same");
    if (!accepts) return demand(snapshot() == before, "a refusal changes nothing");
    if (!recovered_.segments.empty()) check_recovered();
  }

  void check_recovered() {
    const RecoveredLog first = recovered_;
    expect_only_truth(first.segments.front().base_position, first.end_position);
    demand(recover({.pad_to_block = true}).has_value(), "what was recovered is recovered again");
    demand(recovered_.end_position == first.end_position && recovered_.next_offset == first.next_offset,
           "to the same end");
    // Nobody comes to where positions end.
    if (first.end_position.value() > ~std::uint64_t{0} / 2 ||
        first.next_offset.value() > ~std::uint64_t{0} / 2)
      return;
    FakeRing fresh(1 << 16, first.end_position, first.next_offset);
    auto writer = SegmentWriter::open(*backend_, kTestIdentity, dir(), config_, recovered_);
    demand(writer.has_value(), "what was recovered can be appended to");
    writer_ = std::move(*writer);
    writer_->set_source(fresh.window());
    fresh.add_record(1, "after");
    flush(fresh);
    expect_readable(fresh, first.end_position, fresh.end());
    writer_.reset();
  }

  fuzz::Input* input_ = nullptr;
  bool forged_ = false;
  FakeRing ring_{1 << 20};
  Files pristine_;
};

}  // namespace
}  // namespace ringtail::log

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ringtail::fuzz::fail_at_once();
  // In memory: there are thousands of files and syncs.
  ::setenv("TMPDIR", "/dev/shm", 0);
  static ringtail::log::RecoveryFuzz target;
  target.run({data, size});
  return 0;
}

// Mutates the files of a partition in every way a disk, a file system or an operator might, and
// demands that nothing crashes, that recovery keeps only what was written or refuses and changes
// nothing, and that a reader gives back the true records or says corrupt.
//
// Smoke mode by default; RINGTAIL_FUZZ_ROUNDS=n goes on longer, RINGTAIL_FUZZ_SEED=n repeats a run.
#include <cstdio>
#include <cstdlib>
#include <map>

#include "base/clock.h"
#include "log/verify.h"
#include "unit/log/segment_test_support.h"

namespace ringtail::log {
namespace {

namespace fs = std::filesystem;
using testing::get_file;
using testing::put_file;

using Files = std::map<std::string, std::string>;

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

class SegmentFuzz : public SegmentTest {
 protected:
  void SetUp() override {
    config_.segment_bytes = 16 << 10;
    config_.index_interval_bytes = 1 << 10;
    open_writer(ring_);
    for (int i = 0; i < 300; ++i) {
      if (i % 29 == 0) ring_.add_filler(format::FrameType::aborted, 48, 2);
      if (i % 41 == 0) ring_.add_filler(format::FrameType::pad, 320, 0);
      const std::string value(static_cast<std::size_t>(i * 31 % 500), 'z');
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
    flush(ring_);
    writer_.reset();
    pristine_ = snapshot();
    ASSERT_GT(logs().size(), 3u);
  }

  Files snapshot() const {
    Files files;
    for (const auto& entry : fs::directory_iterator(dir()))
      files[entry.path().filename()] = get_file(entry.path());
    return files;
  }
  void restore(const Files& files) {
    for (const auto& entry : fs::directory_iterator(dir())) fs::remove(entry.path());
    for (const auto& [name, bytes] : files) put_file(dir() / name, bytes);
  }

  std::uint64_t pick(std::uint64_t n) {
    return std::uniform_int_distribution<std::uint64_t>(0, n - 1)(random_);
  }
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
    const unsigned kind = static_cast<unsigned>(pick(10));
    story_ += " " + std::to_string(kind) + ":" + victim->first;
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
        case 8:
          for (std::uint64_t i = 0; i < length; ++i) bytes[at + i] = static_cast<char>(pick(256));
          break;
        default: bytes[at] = static_cast<char>(bytes[at] ^ (1 << pick(8)));
      }
    }
  }

  const MadeFrame* made_at(Position position) const {
    const auto found = std::ranges::lower_bound(ring_.frames(), position, {}, &MadeFrame::position);
    return found != ring_.frames().end() && found->position == position ? &*found : nullptr;
  }

  // Every frame that a reader gives is one that was written, where it was written.
  void expect_only_truth(Position from, Position limit) {
    auto reader = SegmentReader::open(dir(), kTestIdentity, {.read_ahead_bytes = 64 * 1024});
    ASSERT_TRUE(reader);
    for (Position at = from; at < limit;) {
      const auto read = (*reader)->read(at, limit);
      if (!read) return;
      const std::span<const std::byte> bytes = read->bytes;
      ASSERT_FALSE(bytes.empty());
      for (std::size_t i = 0; i < bytes.size();) {
        const auto header = format::load_header(bytes.data() + i);
        const std::uint32_t extent = format::align_frame(static_cast<std::uint32_t>(header.length));
        const MadeFrame* made = made_at(at + i);
        // Recovery ends the log with a pad, at a block.
        const bool ends_log = at + i + extent == limit && limit == format::block_down(limit);
        if (header.type != format::FrameType::pad || !ends_log) {
          ASSERT_NE(made, nullptr);
          ASSERT_EQ(header.offset, made->offset.value());
          ASSERT_EQ(header.type, made->type);
          if (made->type == format::FrameType::data) {
            ASSERT_EQ(format::decode_record(bytes.data() + i, nullptr).value, made->value);
          }
        }
        i += extent;
      }
      at += bytes.size();
    }
  }

  void check() {
    ASSERT_TRUE(verify_partition(dir()));
    for (const Offset base : logs()) {
      static_cast<void>(dump_segment(log_file(base.value()), {}, [](const DumpedFrame& frame) {
        return frame.fault != format::FrameFault::none || !format::describe_frame(frame.frame).empty();
      }));
    }
    expect_only_truth(Position(0), ring_.end());
    auto reader = SegmentReader::open(dir(), kTestIdentity);
    ASSERT_TRUE(reader);
    static_cast<void>((*reader)->locate(Offset(pick(400)), ring_.end()));
    static_cast<void>((*reader)->locate_time(static_cast<std::int64_t>(pick(400)), ring_.end()));

    const Files before = snapshot();
    const bool accepts = recover({.writable = false, .pad_to_block = true}).has_value();
    ASSERT_TRUE(snapshot() == before) << "read-only recovery changed something";
    ASSERT_EQ(recover({.pad_to_block = true}).has_value(), accepts);
    if (!accepts) {
      ASSERT_TRUE(snapshot() == before) << "a refusal changed something";
      return;
    }
    if (recovered_.segments.empty()) return;
    const RecoveredLog first = recovered_;
    expect_only_truth(first.segments.front().base_position, first.end_position);
    ASSERT_TRUE(recover({.pad_to_block = true})) << "what was recovered is recovered again";
    ASSERT_EQ(recovered_.end_position, first.end_position);
    ASSERT_EQ(recovered_.next_offset, first.next_offset);
    // And it can be appended to.
    FakeRing fresh(1 << 16, first.end_position, first.next_offset);
    auto writer = SegmentWriter::open(*backend_, kTestIdentity, dir(), config_, recovered_);
    ASSERT_TRUE(writer) << writer.error().message;
    writer_ = std::move(*writer);
    writer_->set_source(fresh.window());
    fresh.add_record(1, "after");
    flush(fresh);
    expect_readable(fresh, first.end_position, fresh.end());
    writer_.reset();
  }

  FakeRing ring_{1 << 20};
  Files pristine_;
  std::mt19937_64 random_;
  std::string story_;  // kind and file of the mutations of this round
};

TEST_F(SegmentFuzz, MutatedFilesAreRecoveredOrRefused) {
  const std::uint64_t seed =
      from_environment("RINGTAIL_FUZZ_SEED", static_cast<std::uint64_t>(wall_clock_ns()));
  const std::uint64_t rounds = from_environment("RINGTAIL_FUZZ_ROUNDS", 300);
  std::printf("seed %llu, %llu rounds\n", static_cast<unsigned long long>(seed),
              static_cast<unsigned long long>(rounds));
  for (std::uint64_t round = 0; round < rounds; ++round) {
    random_.seed(seed + round);
    story_.clear();
    Files files = pristine_;
    for (std::uint64_t n = 1 + pick(3); n > 0; --n) mutate(files);
    SCOPED_TRACE(::testing::Message() << "RINGTAIL_FUZZ_SEED=" << seed + round << " mutations" << story_);
    restore(files);
    check();
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace ringtail::log

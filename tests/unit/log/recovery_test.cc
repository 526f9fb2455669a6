// One test for each row of the table in log/recovery.h.
#include "log/recovery.h"

#include <cerrno>
#include <map>

#include "log/verify.h"
#include "segment_test_support.h"

namespace ringtail::log {
namespace {

namespace fs = std::filesystem;
using testing::get_file;
using testing::put_file;

class RecoveryTest : public SegmentTest {
 protected:
  // Three segments, the last of them not full, all of it synced and closed cleanly.
  void SetUp() override {
    write_log(ring_, 250, 10'000);
    ASSERT_EQ(logs().size(), 3u);
    last_ = logs().back().value();
    middle_ = logs()[1].value();
  }

  void expect_refused(Code code, const fs::path& path) {
    const auto before = snapshot();
    const Status done = recover();
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, code) << done.error().message;
    EXPECT_NE(done.error().message.find(path.filename().string()), std::string::npos) << done.error().message;
    EXPECT_TRUE(snapshot() == before) << "a refusal changes nothing";
  }
  void expect_kept_whole() {
    const Status done = recover();
    ASSERT_TRUE(done) << done.error().message;
    EXPECT_EQ(recovered_.end_position, ring_.end());
    EXPECT_EQ(recovered_.next_offset, ring_.next_offset());
    expect_readable(ring_, Position(0), ring_.end());
  }
  // The frame in the middle of what the file `base_offset` holds.
  const MadeFrame& frame_in(std::uint64_t base_offset, std::size_t index) const {
    return *std::ranges::find_if(ring_.frames(),
                                 [&](const MadeFrame& f) { return f.offset.value() == base_offset + index; });
  }
  std::uint64_t place(std::uint64_t base_offset, const MadeFrame& frame) const {
    return format::file_offset(frame_in(base_offset, 0).position, frame.position);
  }
  std::map<std::string, std::string> snapshot() const {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::directory_iterator(dir())) {
      files[entry.path().filename()] = get_file(entry.path());
    }
    return files;
  }
  // Makes the mark of the last segment say `position`, as if nothing later had been synced.
  void set_mark(Position position) {
    std::string bytes = get_file(index_file(last_));
    auto header = *format::decode_header(std::as_bytes(std::span(bytes)), format::FileKind::index, "index");
    header.synced_position = position.value();
    std::vector<std::byte> block(format::kBlockBytes);
    format::encode_header(header, block);
    bytes.resize(format::kBlockBytes);
    std::memcpy(bytes.data(), block.data(), block.size());
    put_file(index_file(last_), bytes);
  }

  FakeRing ring_{4 << 20};
  std::uint64_t last_ = 0;
  std::uint64_t middle_ = 0;
};

// --- directory ---

TEST_F(RecoveryTest, AnEmptyDirectoryIsAnEmptyLog) {
  for (const auto& entry : fs::directory_iterator(dir())) fs::remove(entry.path());
  ASSERT_TRUE(recover({.pad_to_block = true}));
  EXPECT_TRUE(recovered_.segments.empty());
  EXPECT_EQ(recovered_.end_position, Position(0));
  EXPECT_EQ(recovered_.next_offset, Offset(0));
  EXPECT_TRUE(report_.findings.empty());
}

TEST_F(RecoveryTest, AMissingDirectoryIsAnError) {
  const auto done = recover_partition(*backend_, dir() / "none", kTestIdentity, {}, report_);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Code::not_found);
}

TEST_F(RecoveryTest, PreparedFilesAreRemoved) {
  put_file(dir() / ".prepared-17", "zeros");
  expect_kept_whole();
  EXPECT_TRUE(has_finding(RecoveryCase::prepared_file));
  EXPECT_FALSE(fs::exists(dir() / ".prepared-17"));
}

TEST_F(RecoveryTest, IndexesWithoutTheirLogAreRemoved) {
  put_file(index_file(7), "left over");
  put_file(time_index_file(7), "left over");
  expect_kept_whole();
  EXPECT_TRUE(has_finding(RecoveryCase::orphan_index));
  EXPECT_FALSE(fs::exists(index_file(7)));
  EXPECT_FALSE(fs::exists(time_index_file(7)));
}

TEST_F(RecoveryTest, OtherFilesAreLeftAlone) {
  put_file(dir() / "notes.txt", "mine");
  expect_kept_whole();
  EXPECT_EQ(get_file(dir() / "notes.txt"), "mine");
}

// --- header ---

TEST_F(RecoveryTest, ALastFileWithoutItsHeaderIsRemoved) {
  for (const std::uint64_t bytes : {0u, 1u, 95u, 4095u}) {
    put_file(log_file(ring_.next_offset().value()), std::string(bytes, '\0'));
    expect_kept_whole();
    EXPECT_TRUE(has_finding(RecoveryCase::headless_segment));
    EXPECT_EQ(logs().size(), 3u);
  }
}

TEST_F(RecoveryTest, WhatWasSyncedInALastFileWithoutItsHeaderIsSaidToBeLost) {
  const Position base = frame_in(last_, 0).position;
  set_mark(base + 4'096);
  fs::resize_file(log_file(last_), 100);
  ASSERT_TRUE(recover());
  EXPECT_EQ(recovered_.next_offset, Offset(last_));
  const auto lost =
      std::ranges::find(report_.findings, RecoveryCase::headless_segment, &RecoveryFinding::what);
  ASSERT_NE(lost, report_.findings.end());
  EXPECT_EQ(lost->durable_lost, 4'096u);
  EXPECT_NE(lost->message.find("had been synced are gone"), std::string::npos) << lost->message;
}

TEST_F(RecoveryTest, AnOnlyFileWithoutItsHeaderIsRefusedUnlessItIsTheFirst) {
  for (const auto& entry : fs::directory_iterator(dir())) fs::remove(entry.path());
  put_file(log_file(5), "short");
  expect_refused(Code::corrupt, log_file(5));
  fs::remove(log_file(5));
  put_file(log_file(0), "short");
  ASSERT_TRUE(recover());
  EXPECT_EQ(recovered_.next_offset, Offset(0));
  EXPECT_TRUE(logs().empty());
}

TEST_F(RecoveryTest, AWrongMagicIsRefused) {
  overwrite(log_file(last_), 0, "X");
  expect_refused(Code::corrupt, log_file(last_));
}

TEST_F(RecoveryTest, AWrongHeaderCrcIsRefused) {
  overwrite(log_file(middle_), offsetof(format::FileHeader, base_position), "X");
  expect_refused(Code::corrupt, log_file(middle_));
}

TEST_F(RecoveryTest, AWrongNameIsRefused) {
  fs::rename(log_file(last_), log_file(last_ + 1));
  expect_refused(Code::corrupt, log_file(last_ + 1));
}

TEST_F(RecoveryTest, AnotherPartitionsFileIsRefused) {
  SegmentIdentity other = kTestIdentity;
  other.partition = PartitionId(5);
  const auto done = recover_partition(*backend_, dir(), other, {}, report_);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Code::corrupt);
}

TEST_F(RecoveryTest, AnotherLayoutVersionIsRefused) {
  overwrite(log_file(last_), offsetof(format::FileHeader, layout_version), "\x09");
  expect_refused(Code::incompatible_layout, log_file(last_));
}

// --- frames of another release ---

// A later release has written there: a frame type that this one does not know, or a version of a marker. Whoever
// cut the log off there would drop what is no damage.
TEST_F(RecoveryTest, AFrameOfAnotherReleaseIsRefusedAndNeverCutOff) {
  const MadeFrame& frame = ring_.frames().back();
  const std::string whole = get_file(log_file(last_));
  std::string bytes = whole.substr(place(last_, frame), frame.extent);
  bytes[offsetof(format::FrameHeader, type)] = 6;
  overwrite(log_file(last_), place(last_, frame), bytes);
  ASSERT_TRUE(recover());
  EXPECT_TRUE(has_finding(RecoveryCase::torn_tail)) << "the checksum is not that of these bytes";
  put_file(log_file(last_), whole);
  const std::uint32_t crc = format::frame_crc(std::as_bytes(std::span(bytes)));
  std::memcpy(bytes.data() + offsetof(format::FrameHeader, crc32c), &crc, sizeof crc);
  overwrite(log_file(last_), place(last_, frame), bytes);
  expect_refused(Code::incompatible_layout, log_file(last_));

  auto reader = SegmentReader::open(dir(), kTestIdentity, {.read_ahead_bytes = 16 * 1024});
  ASSERT_TRUE(reader);
  const auto read = (*reader)->read(frame.position, ring_.end(), frame.offset);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code, Code::incompatible_layout) << read.error().message;
}

// --- sealed ---

TEST_F(RecoveryTest, ACleanLogIsKept) {
  expect_kept_whole();
  EXPECT_TRUE(report_.findings.empty()) << report_.findings.front().message;
  EXPECT_LT(report_.scanned_bytes, 200u << 10) << "only the tail behind the last index entry is read";
  ASSERT_EQ(recovered_.segments.size(), 3u);
  EXPECT_EQ(recovered_.segments[0].max_timestamp_ns, 1000 + static_cast<std::int64_t>(middle_) - 1);
  EXPECT_EQ(recovered_.segments[2].max_timestamp_ns, 1000 + 249);
}

TEST_F(RecoveryTest, ASealedFileThatIsTooLongIsCut) {
  const auto bytes = fs::file_size(log_file(middle_));
  overwrite(log_file(middle_), bytes, std::string(5'000, '\0'));
  expect_kept_whole();
  EXPECT_TRUE(has_finding(RecoveryCase::sealed_too_long));
  EXPECT_EQ(fs::file_size(log_file(middle_)), bytes);
}

TEST_F(RecoveryTest, ASealedFileThatIsTooShortIsRefused) {
  fs::resize_file(log_file(middle_), fs::file_size(log_file(middle_)) - 1);
  expect_refused(Code::corrupt, log_file(middle_));
  fs::resize_file(log_file(middle_), 10);
  expect_refused(Code::corrupt, log_file(middle_));
}

TEST_F(RecoveryTest, AMissingSegmentIsRefused) {
  fs::rename(log_file(middle_), dir() / "elsewhere");
  expect_refused(Code::corrupt, log_file(0));
}

TEST_F(RecoveryTest, AMissingFirstSegmentIsRetention) {
  fs::remove(log_file(0));
  ASSERT_TRUE(recover());
  EXPECT_EQ(recovered_.segments.front().base_offset.value(), middle_);
  EXPECT_EQ(recovered_.next_offset, ring_.next_offset());
}

TEST_F(RecoveryTest, ASealedSegmentsMissingIndexIsRebuilt) {
  const std::string before = get_file(time_index_file(0));
  for (const auto& path : {index_file(0), time_index_file(0)}) {
    fs::remove(path);
    expect_kept_whole();
    EXPECT_TRUE(has_finding(RecoveryCase::index_rebuilt));
    EXPECT_TRUE(fs::exists(path));
    expect_kept_whole();
    EXPECT_TRUE(report_.findings.empty()) << "what was rebuilt holds";
  }
  EXPECT_TRUE(verify_partition(dir())->faults.empty());
}

TEST_F(RecoveryTest, ASealedSegmentsInvalidIndexIsRebuilt) {
  for (const std::uint64_t at :
       {std::uint64_t{0}, format::kBlockBytes + 16, fs::file_size(index_file(0)) - 8}) {
    overwrite(index_file(0), at, "\xff\xff\xff");
    expect_kept_whole();
    EXPECT_TRUE(has_finding(RecoveryCase::index_rebuilt)) << at;
  }
}

TEST_F(RecoveryTest, AFaultWhileASealedIndexIsRebuiltIsRefused) {
  fs::remove(index_file(0));
  overwrite(log_file(0), place(0, frame_in(0, 3)) + 100, "X");
  expect_refused(Code::corrupt, log_file(0));
}

// --- last ---

TEST_F(RecoveryTest, TheLastFileEndsInZeros) {
  EXPECT_GT(fs::file_size(log_file(last_)), format::file_offset(frame_in(last_, 0).position, ring_.end()));
  expect_kept_whole();
  EXPECT_TRUE(report_.findings.empty());
}

TEST_F(RecoveryTest, TheLastFileEndsExactly) {
  fs::resize_file(log_file(last_), format::file_offset(frame_in(last_, 0).position, ring_.end()));
  expect_kept_whole();
  EXPECT_TRUE(report_.findings.empty());
}

TEST_F(RecoveryTest, TheLastSegmentsMissingIndexIsRebuilt) {
  fs::remove(index_file(last_));
  expect_kept_whole();
  EXPECT_TRUE(has_finding(RecoveryCase::index_rebuilt));
  open_writer(ring_);
  writer_.reset();
  expect_kept_whole();
  EXPECT_TRUE(report_.findings.empty());
}

TEST_F(RecoveryTest, AnIndexEntryWithoutAFrameIsNotBelieved) {
  const auto header = get_file(index_file(last_)).substr(0, format::kBlockBytes);
  format::IndexEntry entry{last_ + 3, frame_in(last_, 3).position.value() + 8};
  std::string bytes(reinterpret_cast<const char*>(&entry), sizeof entry);
  put_file(index_file(last_), header + bytes);
  expect_kept_whole();
}

TEST_F(RecoveryTest, ATornTailIsCut) {
  const MadeFrame& torn = ring_.frames().back();
  set_mark(torn.position);
  overwrite(log_file(last_), place(last_, torn) + 5'000, "torn");
  ASSERT_TRUE(recover());
  ASSERT_EQ(report_.findings.size(), 1u);
  const RecoveryFinding& finding = report_.findings.front();
  EXPECT_EQ(finding.what, RecoveryCase::torn_tail);
  EXPECT_EQ(finding.position, torn.position);
  EXPECT_GT(finding.bytes, 10'000u);
  EXPECT_EQ(finding.durable_lost, 0u);
  EXPECT_EQ(recovered_.end_position, torn.position);
  EXPECT_EQ(recovered_.next_offset, torn.offset);
  EXPECT_EQ(fs::file_size(log_file(last_)), place(last_, torn));
  expect_readable(ring_, Position(0), torn.position);
}

TEST_F(RecoveryTest, ATornTailOfSyncedBytesSaysSo) {
  const MadeFrame& torn = ring_.frames().back();
  overwrite(log_file(last_), place(last_, torn) + 5'000, "torn");
  ASSERT_TRUE(recover());
  ASSERT_TRUE(has_finding(RecoveryCase::torn_tail));
  EXPECT_EQ(report_.findings.front().durable_lost, ring_.end() - torn.position);
  EXPECT_NE(report_.findings.front().message.find("check the disk"), std::string::npos);
}

TEST_F(RecoveryTest, WritesThatWereNotSyncedBehindAGapAreCut) {
  // A block of the unsynced tail never reached the disk, the ones behind it did.
  const MadeFrame& lost = frame_in(last_, 20);
  set_mark(lost.position);
  overwrite(log_file(last_), place(last_, lost), std::string(4'096, '\0'));
  ASSERT_TRUE(recover());
  ASSERT_TRUE(has_finding(RecoveryCase::unsynced_gap));
  EXPECT_EQ(recovered_.end_position, lost.position);
  expect_readable(ring_, Position(0), lost.position);
}

TEST_F(RecoveryTest, DamageInTheMiddleOfSyncedRecordsIsRefused) {
  const MadeFrame& damaged = frame_in(last_, 20);
  const std::string good = get_file(log_file(last_)).substr(place(last_, damaged), 64);
  for (const std::uint64_t at :
       {0u, 4u, 8u, 16u, 24u, 28u, 40u}) {  // length, type, offset, time, key, CRC, value
    overwrite(log_file(last_), place(last_, damaged), good);
    const char flipped = static_cast<char>(good[at] ^ 0x40);
    overwrite(log_file(last_), place(last_, damaged) + at, {&flipped, 1});
    fs::remove(index_file(last_));  // or the damage, before the last entry, would not even be looked at
    expect_refused(Code::corrupt, log_file(last_));
    EXPECT_NE(recover().error().message.find(std::to_string(damaged.position.value())), std::string::npos);
  }
}

TEST_F(RecoveryTest, DamageBeforeTheMarkIsRefused) {
  const MadeFrame& damaged = frame_in(last_, 20);
  overwrite(log_file(last_), place(last_, damaged) + 40, "X");
  // The index loses its entries and keeps its mark: the scan begins at the segment's base.
  put_file(index_file(last_), get_file(index_file(last_)).substr(0, format::kBlockBytes));
  expect_refused(Code::corrupt, log_file(last_));
}

TEST_F(RecoveryTest, WhatTheRingKnowsToBeSyncedIsAMarkToo) {
  const MadeFrame& damaged = frame_in(last_, 20);
  set_mark(damaged.position);
  overwrite(log_file(last_), place(last_, damaged) + 40, "X");
  const Status done = recover({.known_durable = damaged.position + 8});
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Code::corrupt);
  EXPECT_TRUE(recover({.known_durable = damaged.position}));
}

TEST_F(RecoveryTest, FramesBehindTheMarkAreSyncedBeforeTheyCount) {
  ASSERT_TRUE(recover());
  EXPECT_EQ(backend_->count(testing::Op::sync_file, ".log"), 0u) << "the mark says that all of it is";
  set_mark(ring_.frames().back().position);
  backend_->clear_events();
  expect_kept_whole();
  EXPECT_EQ(backend_->count(testing::Op::sync_file, log_file(last_).string()), 1u);
  set_mark(ring_.frames().back().position);
  backend_->fail(testing::Op::sync_file, ".log", EIO);
  EXPECT_FALSE(recover());
}

TEST_F(RecoveryTest, AJumpOfOffsetsIsRefused) {
  // A valid frame with a valid CRC, but of another offset: records before it are missing.
  const MadeFrame& frame = frame_in(last_, 20);
  std::string bytes = get_file(log_file(last_)).substr(place(last_, frame), frame.extent);
  const std::uint64_t offset = frame.offset.value() + 1;
  std::memcpy(bytes.data() + offsetof(format::FrameHeader, offset), &offset, sizeof offset);
  const std::uint32_t crc = format::frame_crc(std::as_bytes(std::span(bytes)));
  std::memcpy(bytes.data() + offsetof(format::FrameHeader, crc32c), &crc, sizeof crc);
  overwrite(log_file(last_), place(last_, frame), bytes);
  fs::remove(index_file(last_));
  expect_refused(Code::corrupt, log_file(last_));
}

// --- padding ---

TEST_F(RecoveryTest, PaddingEndsTheLogAtABlock) {
  ASSERT_NE(ring_.end(), format::block_down(ring_.end()));
  ASSERT_TRUE(recover({.pad_to_block = true}));
  EXPECT_TRUE(has_finding(RecoveryCase::padded));
  const Position padded = recovered_.end_position;
  EXPECT_EQ(padded, format::block_down(padded));
  EXPECT_GE(padded - ring_.end(), format::kFrameHeaderBytes);
  EXPECT_EQ(recovered_.next_offset, ring_.next_offset());
  ASSERT_TRUE(recover({.pad_to_block = true}));
  EXPECT_EQ(recovered_.end_position, padded) << "padding once is enough";
  EXPECT_TRUE(report_.findings.empty());
  ring_.lose_from(ring_.end(), padded);
  expect_readable(ring_, Position(0), padded);
}

TEST_F(RecoveryTest, PaddingNeedsRoomForItsHeader) {
  for (int missing = 8; missing <= 40; missing += 8) {
    // Ends `missing` bytes before a block does.
    open_writer(ring_);
    const std::uint64_t free = format::kBlockBytes - ring_.end().value() % format::kBlockBytes;
    const std::uint64_t fill = free + format::kBlockBytes - static_cast<std::uint64_t>(missing);
    ring_.add_record(1, std::string(fill - format::kFrameHeaderBytes, 'f'));
    flush(ring_);
    writer_.reset();
    const Position end = ring_.end();
    ASSERT_TRUE(recover({.pad_to_block = true}));
    EXPECT_EQ(recovered_.end_position - end,
              static_cast<std::uint64_t>(missing) + (missing < 32 ? 4096u : 0u));
    ring_.lose_from(end, recovered_.end_position);
    expect_readable(ring_, Position(0), ring_.end());
  }
}

TEST_F(RecoveryTest, ADiskThatFailsIsAnError) {
  backend_->fail(testing::Op::read, ".log", EIO);
  const Status done = recover();
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Code::storage_failed);
  EXPECT_EQ(done.error().os_errno, EIO);
}

// Without its mark, what is torn and what is damaged would be told apart wrongly.
TEST_F(RecoveryTest, AnIndexThatCannotBeReadIsNotOneThatIsMissing) {
  for (const int error : {EMFILE, EIO}) {
    backend_->fail(error == EIO ? testing::Op::read : testing::Op::open, index_file(last_).filename(), error);
    const std::string before = get_file(index_file(last_));
    const Status done = recover();
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().os_errno, error);
    EXPECT_NE(done.error().message.find(".index"), std::string::npos) << done.error().message;
    EXPECT_EQ(get_file(index_file(last_)), before);
  }
  EXPECT_TRUE(recover());
}

// --- read-only ---

TEST_F(RecoveryTest, ReadOnlyReportsAndChangesNothing) {
  put_file(dir() / ".prepared-17", "zeros");
  put_file(index_file(7), "left over");
  overwrite(log_file(middle_), fs::file_size(log_file(middle_)), std::string(5'000, '\0'));
  fs::remove(index_file(0));
  overwrite(log_file(last_), place(last_, ring_.frames().back()) + 50, "torn");
  const auto before = snapshot();
  ASSERT_TRUE(recover({.writable = false, .pad_to_block = true}));
  EXPECT_TRUE(snapshot() == before);
  for (const RecoveryCase what :
       {RecoveryCase::prepared_file, RecoveryCase::orphan_index, RecoveryCase::sealed_too_long,
        RecoveryCase::index_rebuilt, RecoveryCase::torn_tail, RecoveryCase::padded}) {
    EXPECT_TRUE(has_finding(what)) << to_string(what);
  }
  const Position would_be = recovered_.end_position;
  ASSERT_TRUE(recover({.pad_to_block = true}));
  EXPECT_EQ(recovered_.end_position, would_be);
  ring_.lose_from(ring_.frames().back().position, would_be);
  open_writer(ring_);
  writer_.reset();
  EXPECT_TRUE(verify_partition(dir())->faults.empty());
}

}  // namespace
}  // namespace ringtail::log

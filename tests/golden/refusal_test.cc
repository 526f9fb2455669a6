// What another release wrote is refused by name, with both versions and what to do; it is neither guessed at nor
// called damaged, and nothing of it is changed. What is no file of Ringtail's at all is corrupt.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>

#include "contents.h"
#include "log/catalog.h"
#include "log/epoch_list.h"
#include "log/recovery.h"
#include "log/ring.h"
#include "messages.h"
#include "replication/local_coordinator.h"
#include "shm/process.h"
#include "unit/base/scratch_dir.h"
#include "unit/shm/shm_test_support.h"

namespace ringtail::golden {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

// A binary format: where its magic and its version stand, and how it is read.
struct Binary {
  std::string file;
  std::size_t magic_bytes;
  std::size_t version_at;
  std::size_t version_bytes;
  std::uint64_t version;
  std::function<Error(const fs::path& dir, const std::string& bytes)>
      read;            // the error; `system` without one
  std::string shown;   // how the error names the file
  std::string remedy;  // a part of what it says is to be done
};

template <class T>
Error error_of(const Result<T>& result) {
  return result ? Error{} : result.error();
}

Error read_control(const fs::path& dir, std::string bytes) {
  const auto boot = shm::boot_id().value();
  std::memcpy(bytes.data() + offsetof(shm::ControlHeader, boot_id), boot.data(), sizeof boot);
  testing::put_file(dir / "control", bytes);
  return error_of(shm::Control::open_or_create(dir, kLogId, "/some/log"));
}
Error read_ring(const fs::path& dir, const std::string& bytes) {
  testing::put_file(dir / "ticks-0.ring", bytes);
  return error_of(log::Ring::open(dir / "ticks-0.ring", true));
}
Error read_message(const fs::path&, const std::string& bytes) {
  std::vector<std::byte> unpacked;
  return error_of(replication::parse_message(std::as_bytes(std::span(bytes)), unpacked));
}
auto read_header(format::FileKind kind, const char* name) {
  return [kind, name](const fs::path&, const std::string& bytes) {
    return error_of(format::decode_header(std::as_bytes(std::span(bytes)), kind, name));
  };
}

const std::vector<Binary>& binaries() {
  const std::string segment = "log/topics/orders/0/00000000000000000000";
  static const std::vector<Binary> all{
      {segment + ".log", 8, 8, 4, 1, read_header(format::FileKind::log, "a.log"), "a.log",
       "release that wrote it"},
      {segment + ".index", 8, 8, 4, 1, read_header(format::FileKind::index, "a.index"), "a.index",
       "release that wrote it"},
      {segment + ".timeindex", 8, 8, 4, 1, read_header(format::FileKind::time_index, "a.timeindex"),
       "a.timeindex", "release that wrote it"},
      {"shm/control", 8, 8, 4, 4, read_control, "/control", "with the version that wrote this"},
      {"shm/ticks-0.ring", 8, 8, 4, 3, read_ring, "/ticks-0.ring", "let the version that wrote it flush it"},
      {"wire/hello", 4, 4, 2, 2, read_message, "the peer", "run the same release on all hosts"}};
  return all;
}

class GoldenRefusal : public ::testing::Test {
 protected:
  static std::string with(std::string bytes, std::size_t at, std::uint64_t value, std::size_t width) {
    std::memcpy(bytes.data() + at, &value, width);
    return bytes;
  }
  Error read(const Binary& format, const std::string& bytes) {
    const shm::TempDir dir;
    return format.read(dir.path(), bytes);
  }
};

TEST_F(GoldenRefusal, OfAnotherVersionNamesFileVersionsAndRemedy) {
  for (const Binary& format : binaries()) {
    SCOPED_TRACE(format.file);
    EXPECT_TRUE(read(format, file(format.file)).message.empty()) << "as it was written it is read";
    for (const std::uint64_t version : {format.version + 1, format.version - 1, std::uint64_t{0x7fff}}) {
      const Error error =
          read(format, with(file(format.file), format.version_at, version, format.version_bytes));
      EXPECT_EQ(error.code, Code::incompatible_layout) << error.message;
      EXPECT_THAT(error.message, HasSubstr(format.shown));
      EXPECT_THAT(error.message, HasSubstr(fmt::format("version {}", version)));
      EXPECT_THAT(error.message,
                  ::testing::ContainsRegex(fmt::format("(version|has) {}[^0-9]", format.version)));
      EXPECT_THAT(error.message, HasSubstr(format.remedy));
    }
  }
}

TEST_F(GoldenRefusal, OfAnotherByteOrderSaysSo) {
  for (const Binary& format : binaries()) {
    SCOPED_TRACE(format.file);
    std::string bytes = file(format.file);
    std::reverse(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(format.magic_bytes));
    const Error error = read(format, bytes);
    EXPECT_EQ(error.code, Code::incompatible_layout) << error.message;
    EXPECT_THAT(error.message, HasSubstr(format.shown));
    EXPECT_THAT(error.message, HasSubstr("byte order"));
  }
}

TEST_F(GoldenRefusal, WithAnotherMagicIsNoFileOfOurs) {
  for (const Binary& format : binaries()) {
    SCOPED_TRACE(format.file);
    for (std::size_t at = 0; at < format.magic_bytes; ++at) {
      std::string bytes = file(format.file);
      bytes[at] ^= 0x20;
      EXPECT_EQ(read(format, bytes).code, Code::corrupt);
    }
  }
}

// --- Text ----------------------------------------------------------------------------------------

std::string replaced(std::string text, std::string_view what, std::string_view by) {
  const std::size_t at = text.find(what);
  EXPECT_NE(at, std::string::npos) << what;
  return at == std::string::npos ? text : text.replace(at, what.size(), by);
}

void expect_foreign(const Error& error, std::string_view name, int version) {
  EXPECT_EQ(error.code, Code::incompatible_layout) << error.message;
  EXPECT_THAT(error.message, HasSubstr(std::string(name)));
  EXPECT_THAT(error.message, HasSubstr(fmt::format("version {},", version)));
  EXPECT_THAT(error.message, HasSubstr("reads version 1;"));
  EXPECT_THAT(error.message, ::testing::ContainsRegex("(release|version) that wrote it"));
}

TEST_F(GoldenRefusal, OfTextsOfAnotherVersionNamesFileVersionsAndRemedy) {
  for (const int version : {0, 2}) {
    const testing::ScratchDir scratch;
    lay_out(scratch.path(), committed(), "log/");
    const auto put = [&](const fs::path& path, std::string_view what, const std::string& by) {
      const std::string text = replaced(testing::get_file(path), what, by);
      testing::put_file(path, text);
    };
    const fs::path topic_file = scratch / "topics/orders/topic.toml";
    put(topic_file, "format_version = 1", fmt::format("format_version = {}", version));
    expect_foreign(log::Catalog::open(scratch.path(), false)->load_topic("orders").error(),
                   topic_file.string(), version);
    put(scratch / "ringtail.toml", "format_version = 1", fmt::format("format_version = {}", version));
    expect_foreign(error_of(log::Catalog::open(scratch.path(), false)), (scratch / "ringtail.toml").string(),
                   version);

    lay_out(scratch.path(), committed(), "replica/topics/shipped/0/");
    put(scratch / "leader-epochs", "epochs 1\n", fmt::format("epochs {}\n", version));
    expect_foreign(error_of(log::EpochList::load(scratch.path())), (scratch / "leader-epochs").string(),
                   version);

    const std::string field = fmt::format(R"("version": {})", version);
    std::string text = file("cluster.json");
    const std::size_t last = text.rfind(R"("version": 1)");
    ASSERT_NE(last, std::string::npos);
    testing::put_file(scratch / "cluster.json", text.replace(last, field.size(), field));
    expect_foreign(error_of(replication::LocalCoordinator::open(scratch.path())),
                   (scratch / "cluster.json").string(), version);
  }
}

TEST_F(GoldenRefusal, OfRecordsOfAnotherVersionNamesKeyVersionsAndRemedy) {
  using namespace replication;
  for (const int version : {0, 2}) {
    const auto other = [&](std::string_view name) {
      return replaced(file(name), R"("version":1)", fmt::format(R"("version":{})", version));
    };
    expect_foreign(error_of(decode_node("nodes/7", other("cluster/nodes/7.json"))), "nodes/7", version);
    expect_foreign(error_of(decode_live("live/7", other("cluster/live/7.json"))), "live/7", version);
    expect_foreign(error_of(decode_topic("topics/orders", other("cluster/topics/orders.json"))),
                   "topics/orders", version);
    expect_foreign(
        error_of(decode_partition("partitions/orders/2", other("cluster/partitions/orders/2.json"))),
        "partitions/orders/2", version);
    expect_foreign(error_of(decode_settings("settings", other("cluster/settings.json"))), "settings",
                   version);
    expect_foreign(error_of(decode_identity("identity", other("cluster/identity.json"))), "identity",
                   version);
  }
}

// --- Whole partitions ----------------------------------------------------------------------------

class GoldenPartitionRefusal : public ::testing::Test {
 protected:
  GoldenPartitionRefusal() { lay_out(scratch_.path(), committed(), "log/topics/orders/0/"); }

  Result<log::RecoveredLog> recover() {
    return log::recover_partition(*backend_, scratch_.path(), kOrders.identity(), {}, report_);
  }
  void put(const std::string& name, std::size_t at, std::string_view bytes) {
    std::string content = testing::get_file(scratch_ / name);
    testing::put_file(scratch_ / name, content.replace(at, bytes.size(), bytes));
  }

  testing::ScratchDir scratch_;
  std::unique_ptr<io::Backend> backend_ = io::make_backend(IoBackend::pwrite, 4).value();
  log::RecoveryReport report_;
};

TEST_F(GoldenPartitionRefusal, ASegmentOfAnotherVersionIsRefusedAndLeftAsItIs) {
  put("00000000000000000011.log", 8, "\x02");
  const Tree before = load(scratch_.path());
  const Error error = error_of(recover());
  EXPECT_EQ(error.code, Code::incompatible_layout) << error.message;
  EXPECT_THAT(error.message, HasSubstr("00000000000000000011.log"));
  EXPECT_EQ(load(scratch_.path()), before);
}

// It says nothing that the log does not say, so it is made anew and not guessed at.
TEST_F(GoldenPartitionRefusal, AnIndexOfAnotherVersionIsMadeAnewFromTheRecords) {
  put("00000000000000000000.index", 8, "\x02");
  const auto recovered = recover();
  ASSERT_TRUE(recovered) << to_string(recovered.error());
  EXPECT_EQ(recovered->next_offset, Offset(orders_tape().next_offset()));
  ASSERT_EQ(report_.findings.size(), 1u);
  EXPECT_EQ(report_.findings[0].what, log::RecoveryCase::index_rebuilt);
  EXPECT_THAT(report_.findings[0].message, HasSubstr("version 2"));
}

// The last record, of a type that a later release may bring.
TEST_F(GoldenPartitionRefusal, AFrameOfAnotherReleaseIsRefusedAndNotCutOff) {
  const Tape tape = orders_tape();
  std::size_t at = kSegmentBytes;
  for (std::size_t next = at; next < tape.bytes().size();
       next += format::align_frame(
           static_cast<std::uint32_t>(format::load_header(tape.bytes().data() + next).length)))
    at = next;
  std::vector<std::byte> frame(tape.bytes().begin() + static_cast<std::ptrdiff_t>(at), tape.bytes().end());
  frame[offsetof(format::FrameHeader, type)] = std::byte{6};
  const std::uint32_t crc = format::frame_crc(frame);
  std::memcpy(frame.data() + offsetof(format::FrameHeader, crc32c), &crc, sizeof crc);
  put("00000000000000000011.log", format::kBlockBytes + at - kSegmentBytes,
      {reinterpret_cast<const char*>(frame.data()), frame.size()});
  const Tree kept = load(scratch_.path());
  const Error error = error_of(recover());
  EXPECT_EQ(error.code, Code::incompatible_layout) << error.message;
  EXPECT_THAT(error.message, HasSubstr("00000000000000000011.log"));
  EXPECT_THAT(error.message, HasSubstr("release that wrote it"));
  EXPECT_EQ(load(scratch_.path()), kept);
}

}  // namespace
}  // namespace ringtail::golden

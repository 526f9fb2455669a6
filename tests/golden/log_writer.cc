// The golden log directory, written by what the library writes logs with.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "contents.h"
#include "groups/offsets_topic.h"
#include "log/catalog.h"
#include "log/compaction.h"
#include "log/epoch_list.h"
#include "log/recovery.h"
#include "unit/base/scratch_dir.h"

namespace ringtail::golden {

namespace fs = std::filesystem;

namespace {

// What is random in it becomes what it is to be.
void fix_identity(const fs::path& path) {
  std::string text = testing::get_file(path);
  const auto set = [&](std::string_view name, std::string_view value) {
    const std::size_t at = text.find(fmt::format("\n{} = ", name)) + 1;
    text.replace(at, text.find('\n', at) - at, fmt::format("{} = \"{}\"", name, value));
  };
  set("log_id", kLogIdText);
  set("created", "2023-11-14T22:13:20Z");
  text += "\n[groups]\n\"offsets.retention.ms\" = \"10000w\"\n";
  testing::put_file(path, text);
}

void adopt(const log::Catalog& catalog, const Topic& topic, TopicConfigs configs,
           std::uint32_t replicas = 0) {
  const Status adopted = catalog.adopt_topic({.name = std::string(topic.name),
                                              .topic_id = topic.id,
                                              .partitions = 1,
                                              .replication_factor = replicas,
                                              .overrides = std::move(configs),
                                              .created_ns = kCreated});
  ASSERT_TRUE(adopted) << to_string(adopted.error());
}

void compact_finished(const fs::path& dir) {
  auto backend = io::make_backend(IoBackend::pwrite, 16);
  log::RecoveryReport report;
  auto recovered = log::recover_partition(**backend, dir, kPrices.identity(), {}, report);
  ASSERT_TRUE(recovered) << recovered.error().message;
  recovered->segments.pop_back();
  const auto outcome = log::compact(**backend, {.dir = dir,
                                                .identity = kPrices.identity(),
                                                .segments = recovered->segments,
                                                .now_ns = kCreated + 1'000'000'000,
                                                .delete_retention_ms = 86'400'000,
                                                .merged_bytes = 1 << 20});
  ASSERT_FALSE(outcome.failure) << outcome.failure->message;
  ASSERT_TRUE(log::store_first_dirty(dir, outcome.first_dirty));
}

Tape offsets_tape() {
  groups::StoredOffset stored{.group = "billing",
                              .topic = "orders",
                              .topic_id = kOrders.id,
                              .partition = PartitionId(0),
                              .offset = 5,
                              .metadata = "",
                              .committed_ns = kTime,
                              .revision = 3};
  Tape tape;
  const auto add = [&tape](const groups::StoredOffset& of) {
    const groups::KeyValue record = groups::encode_offset(of);
    tape.record({.key = record.key, .value = record.value});
  };
  add(stored);
  stored.group = "shipping";
  stored.offset = 11;
  stored.metadata = "as of noon";
  stored.revision = 4;
  add(stored);
  stored.group = "\xff";
  stored.offset = 1;
  stored.metadata = "\xfe";
  stored.revision = 5;
  add(stored);
  stored.group = "gone";
  stored.revision = 6;
  add(stored);
  stored.offset.reset();
  add(stored);
  return tape;
}

// As Transactions writes them: that a partition has transactions; a decision that was carried out; one that was
// not.
Tape transactions_tape() {
  const auto key = [](std::uint32_t number) {
    return fmt::format(R"({{"producer_id":"000000000000000b","epoch":1,"transaction":{}}})", number);
  };
  const auto decision = [](std::uint32_t number, std::uint64_t offset, std::uint64_t revision) {
    return fmt::format(
        R"({{"epoch":1,"offsets":[{{"committed_ns":1752739503360842448,"group":"billing","offset":{},"partition":0,)"
        R"("topic":"orders","topic_id":"1122334455667788"}}],"partitions":[{{"partition":0,)"
        R"("topic_id":"1122334455667788"}}],"producer_id":"000000000000000b","revision":{},"transaction":{}}})",
        offset, revision, number);
  };
  Tape tape;
  tape.record({.key = R"({"partition":0,"topic_id":"1122334455667788"})", .value = "{}"});
  tape.record({.key = key(3), .value = decision(3, 6, 7)});
  tape.record({.key = key(3)});
  tape.record({.key = key(4), .value = decision(4, 9, 8)});
  return tape;
}

void take_in(Tree& tree, const fs::path& dir, const std::string& prefix) {
  for (const auto& entry : fs::recursive_directory_iterator(dir)) {
    if (!entry.is_regular_file() || entry.path().filename() == "catalog.lock") continue;
    tree[prefix + fs::relative(entry.path(), dir).string()] = testing::get_file(entry.path());
  }
}

}  // namespace

void write_log(Tree& tree) {
  const testing::ScratchDir scratch;
  const fs::path dir = scratch / "log";
  ASSERT_TRUE(log::Catalog::open(dir, true));
  fix_identity(dir / "ringtail.toml");
  const auto catalog = log::Catalog::open(dir, false);
  ASSERT_TRUE(catalog) << to_string(catalog.error());
  adopt(*catalog, kOrders, {{"retention.ms", "-1"}, {"term.bytes", "65536"}});
  adopt(*catalog, kPrices,
        {{"cleanup.policy", "compact"}, {"min.cleanable.dirty.ratio", "1"}, {"term.bytes", "65536"}});
  adopt(*catalog, kTicks, {{"term.bytes", "65536"}});
  for (const Topic& internal : {kOffsets, kTransactions})
    adopt(*catalog, internal,
          {{"cleanup.policy", "compact"}, {"segment.bytes", "16777216"}, {"term.bytes", "1048576"}});
  const auto place = [&](const Topic& topic) { return catalog->partition_dir(topic.name, PartitionId(0)); };
  orders_tape().write(place(kOrders), kOrders);
  prices_tape().write(place(kPrices), kPrices);
  compact_finished(place(kPrices));
  offsets_tape().write(place(kOffsets), kOffsets);
  transactions_tape().write(place(kTransactions), kTransactions);
  take_in(tree, dir, "log/");

  const testing::ScratchDir other;
  fs::copy(dir / "ringtail.toml", other / "ringtail.toml");
  fs::create_directory(other / "topics");
  const auto replica = log::Catalog::open(other.path(), false);
  ASSERT_TRUE(replica) << to_string(replica.error());
  adopt(*replica, kShipped, {{"min.insync.replicas", "2"}}, 3);
  log::EpochList epochs;
  epochs.begin(LeaderEpoch(1), {});
  epochs.begin(LeaderEpoch(4), {Position(640), Offset(10)});
  epochs.begin(LeaderEpoch(5), {Position(1'000'000'000'064), Offset(1'000'000'000)});
  ASSERT_TRUE(epochs.store(replica->partition_dir(kShipped.name, PartitionId(0))));
  take_in(tree, other / "topics", "replica/topics/");
}

}  // namespace ringtail::golden

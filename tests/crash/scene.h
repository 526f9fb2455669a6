// A log of its own for a test, and the processes that produce to it, consume from it and keep it.
//
// The functions that open a log are for child processes; the test itself opens it before the first
// child is born and after the last has ended.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/logger.h"
#include "client/log_core.h"
#include "crash/ledger.h"
#include "log/ring.h"
#include "log/verify.h"
#include "ringtail/ringtail.h"
#include "support/crash_process.h"

namespace ringtail::crash {

inline constexpr const char* kTopic = "crash";
inline const TopicPartition kPartition{kTopic, PartitionId(0)};

inline std::filesystem::path make_directory(std::string pattern) {
  if (::mkdtemp(pattern.data()) == nullptr) std::abort();
  return pattern;
}

// The directories of one log.
class Scene {
 public:
  explicit Scene(const std::filesystem::path& disk = std::filesystem::temp_directory_path(),
                 IoBackend io = IoBackend::automatic)
      : dir_(make_directory((disk / "ringtail-crash-XXXXXX").string())),
        shm_(make_directory("/dev/shm/ringtail-crash-XXXXXX")),
        io_(io) {
    logger().set_level(spdlog::level::err);
  }
  Scene(const Scene&) = delete;
  Scene& operator=(const Scene&) = delete;
  // RINGTAIL_CRASH_KEEP leaves the files of a failed test where they are.
  ~Scene() {
    std::error_code ignored;
    const bool has_failed = ::testing::Test::HasFailure() && std::getenv("RINGTAIL_CRASH_KEEP") != nullptr;
    if (is_kept_ || has_failed) {
      std::cout << "kept: " << dir_ << " and " << shm_ << '\n';
      return;
    }
    std::filesystem::remove_all(dir_, ignored);
    std::filesystem::remove_all(shm_, ignored);
  }

  // Leaves the files where they are, in any case.
  void keep_files() { is_kept_ = true; }

  const std::filesystem::path& dir() const { return dir_; }
  const std::filesystem::path& shm() const { return shm_; }

  LogOptions options(KeeperMode mode) const {
    LogOptions options;
    options.dir = dir_;
    options.keeper = mode;
    options.io = io_;
    options.shared_memory_dir = shm_;
    return options;
  }
  // Opens the log; while the role passes on, nobody keeps it for a moment.
  Result<Log> open(KeeperMode mode) const {
    for (;;) {
      auto log = Log::open(options(mode));
      if (log || log.error().code != Code::no_keeper) return log;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  void create_topic(const TopicConfigs& configs) const {
    auto log = open(KeeperMode::embedded);
    ASSERT_TRUE(log) << to_string(log.error());
    const Status created = Admin(*log).create_topic({.name = kTopic, .partitions = 1, .configs = configs});
    ASSERT_TRUE(created) << to_string(created.error());
  }
  // The folder of the log in shared memory, once there is one.
  std::filesystem::path shm_folder() const {
    for (const auto& entry : std::filesystem::directory_iterator(shm_)) return entry.path();
    return {};
  }
  std::filesystem::path partition_dir() const { return dir_ / "topics" / kTopic / "0"; }

 private:
  std::filesystem::path dir_;
  std::filesystem::path shm_;
  IoBackend io_;
  bool is_kept_ = false;
};

// Looks into the control segment without being attached to the log.
class Peek {
 public:
  explicit Peek(const Scene& scene) {
    auto mapping = shm::open_shared_file(scene.shm_folder() / "control", true, sizeof(shm::ControlLayout));
    if (!mapping) std::abort();
    mapping_ = std::move(*mapping);
  }
  const shm::ControlLayout& layout() const {
    return *reinterpret_cast<const shm::ControlLayout*>(mapping_.data());
  }
  pid_t keeper_pid() const { return static_cast<pid_t>(layout().header.keeper_pid.load()); }
  std::uint32_t keeper_term() const { return layout().header.keeper_term.load(); }
  const shm::Partition& partition() const { return layout().partitions[0]; }

  // Who is attached and doing what, and how far the partition is.
  std::string describe() const {
    std::string text;
    for (std::uint32_t i = 0; i < shm::kMaxSlots; ++i) {
      const shm::Slot& slot = layout().slots[i];
      const std::uint64_t op = slot.op.load();
      if (shm::slot_state(slot.word.load()) != shm::SlotState::free)
        text += fmt::format("slot {}: pid {}, state {}, phase {}, sequence {}, given up {}\n", i,
                            slot.pid.load(), int(shm::slot_state(slot.word.load())), int(shm::op_phase(op)),
                            op >> 24, slot.given_up.load() == op);
    }
    for (std::uint32_t i = 0; i < shm::kMaxReaders; ++i) {
      const shm::Reader& reader = layout().readers[i];
      if (reader.owner.load() != 0)
        text += fmt::format("reader of slot {}: ring {}, pin {:#x}, position {:#x}, offset {}\n",
                            reader.owner.load() - 1, reader.ring_generation.load(), reader.pin.load(),
                            reader.position.load(), reader.offset.load());
    }
    const shm::Partition& p = partition();
    return text + fmt::format(
                      "keeper {}, partition state {}, ring {}, durable {:#x} = offset {}, repaired {}, "
                      "retired {}, failure '{}'\n",
                      keeper_pid(), p.state.load(), p.ring_generation.load(), p.durable_position.load(),
                      p.durable_offset.load(), p.repaired_records.load(), p.retired_rings.load(),
                      reinterpret_cast<const char*>(p.failure_text.data()));
  }

 private:
  shm::Mapping mapping_;
};

// --- What children do ----------------------------------------------------------------------------

// How a producer sends.
struct Load {
  enum class By : std::uint8_t { send, batch, claim, all } by = By::send;
  std::uint64_t records = 0;        // numbers below are sent
  std::uint64_t durable_every = 0;  // numbers between two waits for durability; 0: none
  std::uint64_t abort_every = 0;    // claims between two that are preceded by an aborted one; 0: none
  std::uint32_t rest_us = 0;        // within each claim
  std::uint64_t exclusive = 0;  // so many numbers it has the topic for itself, then not, and so on; 0: never

  bool is_exclusive(std::uint32_t id, std::uint64_t number) const {
    return exclusive != 0 && (number / exclusive + id) % 2 == 0;
  }
};

// Sends one stretch of numbers, from `number` on; returns its length.
inline SendResult<std::uint64_t> send_some(Producer& producer, const Load& load, std::uint32_t id,
                                           std::uint64_t number, ProducerPage& page) {
  const std::uint64_t random = mix(number ^ 0x5eed);
  const Load::By by = load.by == Load::By::all ? static_cast<Load::By>(random % 3) : load.by;
  RecordMetadata last;
  std::uint64_t count = 1;
  if (by == Load::By::batch) {
    count = std::min<std::uint64_t>(1 + random / 3 % 7, load.records - number);
    std::vector<Value> values;
    std::vector<ProducerRecord> records;
    for (std::uint64_t i = 0; i < count; ++i) values.emplace_back(id, number + i);
    for (const Value& value : values) records.push_back({.value = value});
    page.attempted.store(number + count);
    auto sent = producer.send_batch(PartitionId(0), records);
    if (!sent) return std::unexpected(sent.error());
    last = *sent;
  } else if (by == Load::By::claim) {
    const Value value(id, number);
    page.attempted.store(number + 1);
    if (load.abort_every != 0 && random % load.abort_every == 0) {
      auto aborted = producer.try_claim(value.size());
      if (!aborted) return std::unexpected(aborted.error());
      aborted->abort();
    }
    auto claim = producer.try_claim(value.size());
    if (!claim) return std::unexpected(claim.error());
    value.write(claim->value().data(), id, number);
    if (load.rest_us != 0) ::usleep(load.rest_us);
    auto sent = claim->commit();
    if (!sent) return std::unexpected(sent.error());
    last = *sent;
  } else {
    const Value value(id, number);
    page.attempted.store(number + 1);
    auto sent = producer.send(value);
    if (!sent) return std::unexpected(sent.error());
    last = *sent;
  }
  page.returned.store(number + count);
  if (load.durable_every != 0 && number % load.durable_every < count) {
    if (auto durable = producer.wait_durable(last); !durable) return std::unexpected(durable.error());
    page.durable.store(number + count);
  }
  return count;
}

inline int give_up(char (&error)[512], const std::string& what) {
  std::memcpy(error, what.data(), std::min(what.size(), sizeof error - 1));
  return 2;
}

// Sends all records from where the last producer of this number was killed.
inline int produce(const Scene& scene, KeeperMode mode, const Load& load, std::uint32_t id,
                   ProducerPage& page) {
  page.starts.fetch_add(1);
  auto log = scene.open(mode);
  if (!log) return give_up(page.error, to_string(log.error()));
  std::optional<Producer> producer;
  bool is_exclusive = false;
  for (std::uint64_t number = page.attempted.load(); number < load.records;) {
    if (!producer || is_exclusive != load.is_exclusive(id, number)) {
      is_exclusive = load.is_exclusive(id, number);
      producer.reset();
      auto opened = Producer::open(*log, {.topic = kTopic, .exclusive = is_exclusive});
      if (!opened && opened.error().code != Code::held_exclusively)
        return give_up(page.error, to_string(opened.error()));
      if (!opened) {
        std::this_thread::sleep_for(std::chrono::microseconds(50));
        continue;
      }
      producer.emplace(std::move(*opened));
    }
    auto sent = send_some(*producer, load, id, number, page);
    if (sent) {
      number += *sent;
    } else if (sent.error() == SendError::would_block || sent.error() == SendError::claim_expired ||
               sent.error() == SendError::held_exclusively) {
      // Nothing was appended; the number is still to be sent. Not by yielding: a few processes that only
      // yield keep the kernel's own workers, which complete direct writes, from the CPUs for seconds.
      page.attempted.store(number);
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    } else {
      return give_up(page.error, to_string(producer->error()));
    }
  }
  page.done.store(true);
  return 0;
}

// How a consumer reads.
struct Reading {
  WaitStrategy wait = WaitStrategy::futex;
  std::uint64_t slow_records = 0;  // of the first so many it takes a few at a time, with rests between
};

// Reads on from the ledger's offset until the log's end, which is set when all has been sent.
inline int consume(const Scene& scene, KeeperMode mode, const Reading& reading, Ledger& ledger,
                   const std::atomic<std::uint64_t>& end) {
  auto log = scene.open(mode);
  if (!log) return give_up(ledger.error, to_string(log.error()));
  auto consumer = Consumer::open(*log, {.wait = reading.wait});
  if (!consumer) return give_up(ledger.error, to_string(consumer.error()));
  if (auto assigned = consumer->assign(kTopic); !assigned)
    return give_up(ledger.error, to_string(assigned.error()));
  if (const Offset from(ledger.next_offset.load()); from.value() != 0)
    if (auto sought = consumer->seek(kPartition, from); !sought)
      return give_up(ledger.error, to_string(sought.error()));
  ledger.ready.store(true);
  for (;;) {
    auto records = consumer->poll(std::chrono::milliseconds(10));
    if (!records) return give_up(ledger.error, to_string(records.error()));
    for (const Record& record : *records)
      if (!ledger.take(record)) return 2;
    if (ledger.records.load() < reading.slow_records)
      std::this_thread::sleep_for(std::chrono::milliseconds(3));
    if (records->empty() && end.load() != 0 && consumer->position(kPartition)->value() >= end.load()) break;
  }
  ledger.missed = consumer->missed();
  ledger.done.store(true);
  return 0;
}

// Holds the keeper's role, or stands by for it, until killed.
inline int keep(const Scene& scene) {
  auto log = Log::open(scene.options(KeeperMode::embedded));
  if (!log) return 2;
  for (;;) ::pause();
}

// --- What is true in the end ---------------------------------------------------------------------

// The log end offset now. Opens the log.
inline std::uint64_t log_end(const Scene& scene) {
  auto log = scene.open(KeeperMode::embedded);
  if (!log) return 0;
  auto topic = Admin(*log).describe_topic(kTopic);
  return topic ? topic->partitions[0].log_end_offset.value() : 0;
}

// Reads the whole log into a ledger. Opens the log.
inline void read_all(const Scene& scene, Ledger& ledger) {
  auto log = scene.open(KeeperMode::embedded);
  ASSERT_TRUE(log) << to_string(log.error());
  auto consumer = Consumer::open(*log);
  ASSERT_TRUE(consumer) << to_string(consumer.error());
  ASSERT_TRUE(consumer->assign(kTopic));
  auto end = consumer->end_offset(kPartition);
  ASSERT_TRUE(end) << to_string(end.error());
  while (consumer->position(kPartition)->value() < end->value()) {
    auto records = consumer->poll(std::chrono::seconds(100));
    ASSERT_TRUE(records) << to_string(records.error());
    ASSERT_TRUE(!records->empty() || consumer->position(kPartition)->value() >= end->value())
        << "the log stands still";
    for (const Record& record : *records) ASSERT_TRUE(ledger.take(record)) << ledger.error;
  }
  ledger.skipped_offsets += end->value() - ledger.next_offset.load();
  ledger.next_offset.store(end->value());
}

// Every byte of the segment files is well-formed, and holds what was read, neither more nor less.
inline void verify_files(const Scene& scene, const Ledger& ledger) {
  auto verified = log::verify_partition(scene.partition_dir());
  ASSERT_TRUE(verified) << to_string(verified.error());
  for (const auto& fault : verified->faults)
    ADD_FAILURE() << fault.path << " at " << fault.position.value() << ": " << fault.message;
  const auto total = verified->total();
  EXPECT_EQ(total.next_offset.value(), ledger.next_offset.load());
  EXPECT_EQ(total.records, ledger.records.load());
  EXPECT_EQ(total.aborted_records, ledger.skipped_offsets);
}

}  // namespace ringtail::crash

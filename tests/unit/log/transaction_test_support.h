// Producers whose records carry an extension, and what became of their transactions.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "unit/log/partition_test_support.h"

namespace ringtail::log {

class TransactionScene : public PartitionScene {
 protected:
  // One with an id; transactions are ended by the plain producer beside it, as a coordinator does.
  struct Transactor {
    std::unique_ptr<Producer> producer;
    Stamp stamp;
    bool open = false;

    Appender* operator->() { return &*producer->appender; }
    format::Extension end() const { return {stamp.producer_id, stamp.producer_epoch, stamp.transaction, 0}; }
  };

  std::unique_ptr<Transactor> new_transactor(std::uint64_t producer_id) {
    auto transactor = std::make_unique<Transactor>();
    transactor->producer = new_producer();
    transactor->stamp = {.producer_id = producer_id, .producer_epoch = 1};
    (*transactor)->set_stamp(&transactor->stamp);
    return transactor;
  }
  static void begin(Transactor& transactor) {
    ++transactor.stamp.transaction;
    transactor.open = true;
  }
  void end(Transactor& transactor, format::MarkerKind kind) {
    if (!marker_producer_) marker_producer_ = new_producer();
    ASSERT_TRUE((*marker_producer_)->append_marker(kind, transactor.end()));
    transactor.open = false;
  }
  void abort_all() {
    if (!marker_producer_) marker_producer_ = new_producer();
    ASSERT_TRUE(
        (*marker_producer_)->append_marker(format::MarkerKind::abort_all, {format::kEveryProducer, 0, 0, 0}));
  }

  std::unique_ptr<PartitionReader> new_committed_reader() {
    auto reader = PartitionReader::open(ref_, 400, 256 << 10, IsolationLevel::read_committed);
    EXPECT_TRUE(reader) << reader.error().message;
    return std::move(*reader);
  }
  // The values of everything that a reader gives now.
  static std::vector<std::string> values_of(PartitionReader& reader) {
    std::vector<std::string> values;
    std::vector<Record> records(16);
    for (;;) {
      auto polled = reader.poll(records);
      EXPECT_TRUE(polled) << polled.error().message;
      if (!polled || *polled == 0) return values;
      for (const Record& record : std::span(records).first(*polled)) values.emplace_back(record.value);
    }
  }

  std::unique_ptr<Producer> marker_producer_;
};

}  // namespace ringtail::log

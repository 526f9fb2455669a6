// A producer with the records it sends, in the way the options ask for: one by one, in batches, or
// written in place. Thread safety: none.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "ringtail/ringtail.h"
#include "tools/perf_options.h"

namespace ringtail::tools::perf {

class Sender {
 public:
  static Result<Sender> open(const Log& log, const std::string& topic, const PerfOptions& options);

  // Sets the first bytes of the record `index` of the batch.
  void stamp(std::uint32_t index, std::uint64_t value) {
    std::memcpy(bytes_.data() + std::size_t{index} * size_, &value, sizeof value);
  }

  // Sends the batch. False: `failure` has the cause.
  [[nodiscard]] bool send() { return claim_ ? send_in_place() : batch_ == 1 ? send_one() : send_records(); }

  // Waits until everything sent is synced. False: `failure` has the cause.
  [[nodiscard]] bool flush() { return producer_.flush().has_value(); }

  std::unexpected<Error> failure() const { return std::unexpected(producer_.error()); }

  std::uint32_t batch() const { return batch_; }

 private:
  Sender(Producer producer, const PerfOptions& options);

  bool send_one() { return producer_.send(std::string_view(bytes_.data(), size_)).has_value(); }
  bool send_records() { return producer_.send_batch(PartitionId(0), records_).has_value(); }
  bool send_in_place() {
    auto claim = producer_.try_claim(size_);
    if (!claim) return false;
    std::memcpy(claim->value().data(), bytes_.data(), size_);
    return claim->commit().has_value();
  }

  Producer producer_;
  std::uint32_t size_;
  std::uint32_t batch_;
  bool claim_;
  std::vector<char> bytes_;  // of all records of a batch, one behind the other
  std::vector<ProducerRecord> records_;
};

}  // namespace ringtail::tools::perf

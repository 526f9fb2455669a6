#include "tools/perf_sender.h"

#include <utility>

namespace ringtail::tools::perf {

Result<Sender> Sender::open(const Log& log, const std::string& topic, const PerfOptions& options) {
  ProducerOptions producer_options;
  producer_options.topic = topic;
  producer_options.exclusive = options.exclusive;
  auto producer = Producer::open(log, std::move(producer_options));
  if (!producer) return std::unexpected(producer.error());
  return Sender(std::move(*producer), options);
}

Sender::Sender(Producer producer, const PerfOptions& options)
    : producer_(std::move(producer)),
      size_(options.size),
      batch_(options.batch),
      claim_(options.claim),
      bytes_(std::size_t{options.size} * options.batch, 'x') {
  records_.reserve(batch_);
  for (std::size_t i = 0; i < batch_; ++i) {
    records_.push_back({.value = std::string_view(bytes_.data() + i * size_, size_)});
  }
}

}  // namespace ringtail::tools::perf

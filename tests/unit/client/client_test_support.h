// A log of its own for each test, on disk and in shared memory, gone with the test.
#pragma once

#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/logger.h"
#include "ringtail/ringtail.h"
#include "unit/base/scratch_dir.h"
#include "unit/shm/shm_test_support.h"

namespace ringtail {

using std::chrono::milliseconds;
using std::chrono::seconds;

class ClientTest : public ::testing::Test {
 protected:
  ClientTest() {
    logger().set_level(spdlog::level::off);  // tests look at what happens, not at what is said
    log_.emplace(open_log().value());
  }

  LogOptions options() { return {.dir = dir_ / "log", .shared_memory_dir = shm_.path()}; }
  Result<Log> open_log() { return Log::open(options()); }
  Admin admin() { return Admin(*log_); }

  // Small terms: 64 KiB, 4 of them.
  static TopicConfigs small(TopicConfigs more = {}) {
    more.emplace("term.bytes", "64KiB");
    return more;
  }
  void create(const std::string& name, TopicConfigs configs = {}, std::uint32_t partitions = 1) {
    auto created =
        admin().create_topic({.name = name, .partitions = partitions, .configs = std::move(configs)});
    ASSERT_TRUE(created) << to_string(created.error());
  }
  Producer producer(const std::string& topic, ProducerOptions producer_options = {}) {
    producer_options.topic = topic;
    auto opened = Producer::open(*log_, std::move(producer_options));
    EXPECT_TRUE(opened) << to_string(opened.error());
    return std::move(*opened);
  }
  Consumer consumer(const std::string& topic, ConsumerOptions consumer_options = {}) {
    auto opened = Consumer::open(*log_, consumer_options);
    EXPECT_TRUE(opened) << to_string(opened.error());
    auto assigned = opened->assign(topic);
    EXPECT_TRUE(assigned) << to_string(assigned.error());
    return std::move(*opened);
  }
  // The values of the next `count` records, waiting for them.
  static std::vector<std::string> take(Consumer& consumer, std::size_t count) {
    std::vector<std::string> values;
    while (values.size() < count) {
      auto polled = consumer.poll(seconds(60));
      EXPECT_TRUE(polled) << to_string(polled.error());
      if (!polled || polled->empty()) break;
      for (const Record& record : *polled) values.emplace_back(record.value);
    }
    return values;
  }

  testing::ScratchDir dir_;
  shm::TempDir shm_;
  std::optional<Log> log_;
};

}  // namespace ringtail

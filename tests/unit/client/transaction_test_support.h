// Producers with a transactional id, readers of what was committed, and a crash of the host.
#pragma once

#include <string>
#include <vector>

#include "unit/client/group_test_support.h"

namespace ringtail {

class TransactionTest : public GroupTest {
 protected:
  Producer transactional(const std::string& id, const std::string& topic, ProducerOptions options = {}) {
    options.transactional_id = id;
    return producer(topic, std::move(options));
  }
  Consumer committed_reader(const std::string& topic) {
    return consumer(topic, {.isolation_level = IsolationLevel::read_committed});
  }
  // What there is to be read now.
  static std::vector<std::string> drain(Consumer& reader) {
    std::vector<std::string> values;
    for (;;) {
      auto polled = reader.poll(milliseconds(0));
      EXPECT_TRUE(polled) << to_string(polled.error());
      if (!polled || polled->empty()) return values;
      for (const Record& record : *polled) values.emplace_back(record.value);
    }
  }
  static void expect(const Status& status) { EXPECT_TRUE(status) << to_string(status.error()); }
  // The first transaction in a partition is noted on disk, which takes its time.
  void warm_up(const std::string& topic) {
    Producer writer = transactional("first", topic);
    expect(writer.begin());
    ASSERT_TRUE(writer.send("first"));
    expect(writer.abort());
  }
  // What is on disk at this moment, for crash_host to come back to. The copy takes a while, during which the log
  // goes on: what must not be newer than the rest is copied first. Anew, where the keeper renamed a file meanwhile.
  void take_image() {
    namespace fs = std::filesystem;
    const fs::path state = fs::path("topics") / "__transaction_state";
    std::error_code error;
    do {
      fs::remove_all(dir_ / "image");
      fs::create_directories(dir_ / "image" / "topics");
      fs::copy(dir_ / "log" / state, dir_ / "image" / state, fs::copy_options::recursive, error);
      if (!error)
        fs::copy(dir_ / "log", dir_ / "image", fs::copy_options::recursive | fs::copy_options::skip_existing,
                 error);
    } while (error == std::errc::no_such_file_or_directory);
    ASSERT_FALSE(error) << error.message();
  }
  void crash_host() {
    const std::string id = log_->id();
    log_.reset();
    std::filesystem::remove_all(shm_.path() / ("ringtail-" + id));
    std::filesystem::remove_all(dir_ / "log");
    std::filesystem::rename(dir_ / "image", dir_ / "log");
    log_.emplace(open_log().value());
  }
};

}  // namespace ringtail

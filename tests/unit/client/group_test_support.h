// Members of consumer groups within one process.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "unit/client/client_test_support.h"

namespace ringtail {

class GroupTest : public ClientTest {
 protected:
  using Options = ConsumerOptions;

  static Options in_group(const std::string& group, Options options = {}) {
    options.group_id = group;
    return options;
  }
  Consumer member(const std::string& group, const std::string& topic, Options options = {},
                  RebalanceListener listener = {}) {
    auto opened = Consumer::open(*log_, in_group(group, std::move(options)));
    EXPECT_TRUE(opened) << to_string(opened.error());
    auto joined = opened->subscribe(topic, std::move(listener));
    EXPECT_TRUE(joined) << to_string(joined.error());
    return std::move(*opened);
  }
  void send(const std::string& topic, const std::string& value, std::uint32_t partition = 0) {
    auto opened = producer(topic);
    auto sent = opened.send({.value = value, .partition = PartitionId(partition)});
    ASSERT_TRUE(sent) << to_string(opened.error());
  }
  // Polls all members in turn, keeping what they get, until `done`.
  using Got = std::vector<std::vector<std::string>>;
  static Got poll_until(std::vector<Consumer*> members, const std::function<bool(const Got&)>& done) {
    Got got(members.size());
    const auto give_up = std::chrono::steady_clock::now() + seconds(60);
    while (!done(got)) {
      if (std::chrono::steady_clock::now() > give_up) {
        ADD_FAILURE() << "it did not come to pass";
        break;
      }
      for (std::size_t i = 0; i < members.size(); ++i) {
        auto polled = members[i]->poll(milliseconds(1));
        if (!polled) {
          ADD_FAILURE() << to_string(polled.error());
          return got;
        }
        for (const Record& record : *polled) got[i].emplace_back(record.value);
      }
    }
    return got;
  }
  static bool are_assigned(const std::vector<Consumer*>& members, const std::vector<std::size_t>& counts) {
    for (std::size_t i = 0; i < members.size(); ++i)
      if (members[i]->assignment().size() != counts[i]) return false;
    return true;
  }
  static void wait_assigned(const std::vector<Consumer*>& members, const std::vector<std::size_t>& counts) {
    poll_until(members, [&](const Got&) { return are_assigned(members, counts); });
  }
  static std::size_t count(const Got& got) {
    std::size_t sum = 0;
    for (const auto& one : got) sum += one.size();
    return sum;
  }
};

}  // namespace ringtail

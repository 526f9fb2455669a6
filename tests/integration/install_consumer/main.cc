// Appends a record and reads it back; argv[1] is the log directory.
#include <ringtail/ringtail.h>

#include <chrono>
#include <iostream>

int main(int, char** argv) {
  const auto failed = [](const ringtail::Error& error) {
    std::cerr << to_string(error) << '\n';
    return 1;
  };
  auto log = ringtail::Log::open({.dir = argv[1]});
  if (!log) return failed(log.error());
  ringtail::Admin admin(*log);
  if (auto made = admin.create_topic({.name = "greetings", .partitions = 1, .configs = {}}); !made)
    return failed(made.error());

  auto producer = ringtail::Producer::open(*log, {.topic = "greetings"});
  if (!producer) return failed(producer.error());
  if (!producer->send({.key = "en", .value = "hello"})) return failed(producer->error());

  auto consumer = ringtail::Consumer::open(*log);
  if (!consumer) return failed(consumer.error());
  if (auto assigned = consumer->assign("greetings"); !assigned) return failed(assigned.error());
  auto records = consumer->poll(std::chrono::seconds(10));
  if (!records) return failed(records.error());
  for (const auto& record : *records) std::cout << record.key << ": " << record.value << '\n';
  return records->size() == 1 ? 0 : 1;
}

#include "cluster/thread_times.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <ranges>

namespace ringtail::bench {

ThreadTimes::ThreadTimes(std::string_view processes) {
  processes_.emplace_back("self", ::getpid());
  for (const auto part : std::views::split(processes, ',')) {
    const std::string_view process(part);
    const std::size_t equals = process.find('=');
    if (equals == process.npos)
      die(Error{Code::invalid_argument, 0, fmt::format("'{}' is not NAME=PID", process)});
    processes_.emplace_back(process.substr(0, equals), number<int>(process.substr(equals + 1)));
  }
}

ThreadTimes::Threads ThreadTimes::look() const {
  Threads threads;
  for (const auto& [process, pid] : processes_) {
    for (const auto& task : std::filesystem::directory_iterator(fmt::format("/proc/{}/task", pid))) {
      Thread thread;
      thread.process = process;
      std::getline(std::ifstream(task.path() / "comm"), thread.name);
      // Nothing to read: it has ended in this moment.
      if (std::ifstream(task.path() / "schedstat") >> thread.cpu_ns)
        threads.emplace(number<int>(task.path().filename().native()), std::move(thread));
    }
  }
  return threads;
}

Json ThreadTimes::since_begin() const {
  std::vector<std::pair<int, Thread>> ran;
  for (auto& [tid, thread] : look()) {
    if (const auto before = begin_.find(tid); before != begin_.end()) thread.cpu_ns -= before->second.cpu_ns;
    if (thread.cpu_ns > 0) ran.emplace_back(tid, thread);
  }
  std::ranges::sort(ran, std::ranges::greater(), [](const auto& one) { return one.second.cpu_ns; });
  Json result = Json::array();
  for (const auto& [tid, thread] : ran)
    result.push_back(
        {{"process", thread.process}, {"thread", thread.name}, {"tid", tid}, {"cpu_ns", thread.cpu_ns}});
  return result;
}

}  // namespace ringtail::bench

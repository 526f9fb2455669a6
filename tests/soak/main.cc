// ringtail_soak: see soak.h. Exit code 0: no defect; 1: a defect, told on standard error, and the files are kept.
#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>

#include "soak/soak.h"

namespace {

using ringtail::soak::Soak;

nlohmann::json summary(const Soak& soak, std::uint64_t seed, double seconds, const std::string& defect) {
  const auto& counts = soak.counts();
  nlohmann::json all{{"seed", seed},
                     {"seconds", seconds},
                     {"records", soak.records()},
                     {"lone_records", soak.lone_records()},
                     {"killed", counts.killed},
                     {"stopped", counts.stopped},
                     {"all_killed", counts.all_killed},
                     {"memory_lost", counts.memory_lost},
                     {"audits", counts.audits},
                     {"doubts", counts.doubts},
                     {"defect", nullptr}};
  if (!defect.empty()) {
    all["defect"] = defect;
    all["kept"] = {soak.scene().dir(), soak.scene().shm()};
  }
  return all;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Uses a log in every way, kills and stops its processes at random, and checks every record");
  double seconds = 60;
  std::uint64_t seed = std::random_device{}();
  bool as_json = false;
  ringtail::soak::SoakOptions options;
  app.add_option("--seconds", seconds, "How long")->capture_default_str();
  app.add_option("--seed", seed, "Repeats the choices of an earlier run");
  app.add_option("--dir", options.disk, "Where the log's directory is made")->capture_default_str();
  app.add_option("--burst", options.pace.burst, "Records a producer sends at a time")->capture_default_str();
  app.add_option("--rest-us", options.pace.rest_us, "How long it rests between")->capture_default_str();
  app.add_option("--daemon", options.daemon, "A ringtaild to be one of the keepers");
  app.add_flag("--json", as_json, "Print a summary as JSON to standard output");
  CLI11_PARSE(app, argc, argv);

  options.time = std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000));
  options.seed = seed;
  std::cerr << "seed " << seed << " (repeat with --seed " << seed << ")\n";
  const auto begin = std::chrono::steady_clock::now();
  Soak soak(options);
  const std::string defect = soak.run();
  const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const nlohmann::json all = summary(soak, seed, took, defect);
  if (as_json) std::cout << all.dump(2) << '\n';
  if (defect.empty()) {
    std::cerr << "no defect: " << all.dump() << '\n';
    return 0;
  }
  std::cerr << "DEFECT: " << defect << "\nkept: " << soak.scene().dir() << " and " << soak.scene().shm()
            << '\n';
  return 1;
}

// ringtail doctor: what this machine offers Ringtail, and what to change.
#include "tools/doctor.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tools/commands.h"
#include "tools/output.h"
#include "tools/session.h"

namespace ringtail::tools {
namespace {

std::vector<Finding> examine(const std::filesystem::path& dir) {
  const std::filesystem::path shared_memory_dir = LogOptions().shared_memory_dir;
  return {check_kernel(),         check_cpus(),         check_isolation(),
          check_governor(),       check_smt(),          check_clock(),
          check_futex_waitv(),    check_io_uring(),     check_memlock(),
          check_nofile(),         check_huge_pages(),   check_shared_memory(shared_memory_dir),
          check_file_system(dir), check_direct_io(dir), check_locks(dir),
          note_segments(dir)};
}

std::string to_text(const std::vector<Finding>& findings) {
  Table table({"", "check", "found"});
  for (const Finding& finding : findings) {
    table.add({std::string(to_string(finding.health)), finding.name, finding.found});
    if (!finding.remedy.empty()) table.add({"", "", "-> " + finding.remedy});
  }
  return table.text();
}

std::string to_json(const std::vector<Finding>& findings) {
  nlohmann::json array = nlohmann::json::array();
  for (const Finding& finding : findings) {
    array.push_back({{"check", finding.name},
                     {"health", to_string(finding.health)},
                     {"found", finding.found},
                     {"remedy", finding.remedy}});
  }
  return array.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

int doctor(const GlobalOptions& options) {
  const std::vector<Finding> findings = examine(options.dir.empty() ? "." : options.dir);
  const Status printed = print(options.json ? to_json(findings) : to_text(findings));
  if (!printed && printed.error().code != Code::closed) return report(options, printed.error());
  const bool works = std::none_of(findings.begin(), findings.end(),
                                  [](const Finding& finding) { return finding.health == Health::bad; });
  return works ? kDone : kFailed;
}

}  // namespace

void add_doctor(CLI::App& root, GlobalOptions& options, int& exit_code) {
  CLI::App* command = root.add_subcommand("doctor", "Examine this machine: what was found, what to change");
  command->footer(
      "ok: as it should be; warn: works, but slower or with less room; bad: Ringtail does not work (exit "
      "1).\n"
      "The file system examined is that of --dir, or of the current directory.\n\n"
      "Example:\n  ringtail doctor --dir /var/lib/ringtail");
  command->callback([&options, &exit_code] { exit_code = doctor(options); });
}

}  // namespace ringtail::tools

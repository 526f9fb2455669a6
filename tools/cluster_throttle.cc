// ringtail cluster throttle
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/parse.h"
#include "tools/cluster_session.h"
#include "tools/commands.h"
#include "tools/output.h"
#include "tools/session.h"

namespace ringtail::tools {
namespace {

using nlohmann::json;
using namespace replication;

// Errors: invalid_argument.
Result<std::int64_t> parse_throttle(const std::string& text) {
  if (text == "none") return 0;
  const auto bytes = parse_bytes(text);
  if (!bytes) return bytes;
  if (*bytes > 0) return bytes;
  return fail(Code::invalid_argument,
              fmt::format("'{}' is no throttle; give bytes a second, such as 50MiB, or none", text));
}

int throttle(const GlobalOptions& options, const ClusterOptions& cluster, const std::string& text) {
  std::optional<std::int64_t> wanted;
  if (!text.empty()) {
    const auto parsed = parse_throttle(text);
    if (!parsed) return report(options, parsed.error());
    wanted = *parsed;
  }
  const auto session = ClusterSession::open(cluster);
  if (!session) return report_cluster(options, session.error());
  const auto made = (*session)->make([&](const ClusterState& state) -> Result<std::vector<Change>> {
    auto [settings, revision] = state.settings;
    if (!wanted || settings.replication_throttle_bytes_per_s == *wanted) return std::vector<Change>{};
    settings.replication_throttle_bytes_per_s = *wanted;
    return std::vector<Change>{{settings, revision}};
  });
  if (!made) return report_cluster(options, made.error());
  const std::int64_t now = (*session)->state()->settings.record.replication_throttle_bytes_per_s;
  return finish(options, {{"replication_throttle_bytes_per_s", now}, {"changed", *made != 0}},
                now == 0 ? "no throttle\n"
                         : fmt::format("{}/s for each node\n", human_bytes(static_cast<std::uint64_t>(now))));
}

}  // namespace

void add_cluster_throttle(CLI::App& cluster, GlobalOptions& options, int& exit_code) {
  auto which = std::make_shared<ClusterOptions>();
  auto text = std::make_shared<std::string>();
  CLI::App* command =
      cluster.add_subcommand("throttle", "Show or set how fast replicas may catch up, cluster-wide");
  command->add_option("BYTES", *text, "A second, for each node: 50MiB, or none; not given: show")
      ->type_name("");
  add_cluster_options(*command, *which);
  command->footer(
      "Replicas that are in sync are never held back. A throttle in a node's configuration holds where the\n"
      "cluster has none.\n\n"
      "Example:\n  ringtail cluster throttle 50MiB");
  command->callback([&options, &exit_code, which, text] { exit_code = throttle(options, *which, *text); });
}

}  // namespace ringtail::tools

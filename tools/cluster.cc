// ringtail cluster status | nodes | describe | elect | drain | reassign | throttle
#include "tools/commands.h"

namespace ringtail::tools {

void add_cluster(CLI::App& root, GlobalOptions& options, int& exit_code) {
  CLI::App* cluster =
      root.add_subcommand("cluster", "Several hosts: their health, leaders and replicas; moving them");
  cluster->require_subcommand(1);
  cluster->footer(
      "The records of a cluster are in etcd, and these commands read and change them there; what is asked "
      "for\n"
      "is carried out by the daemons. Which cluster: that of ringtaild's configuration file.\n\n"
      "Example:\n  ringtail cluster status\n  ringtail cluster drain 2 --wait");
  add_cluster_show(*cluster, options, exit_code);
  add_cluster_elect(*cluster, options, exit_code);
  add_cluster_drain(*cluster, options, exit_code);
  add_cluster_reassign(*cluster, options, exit_code);
  add_cluster_throttle(*cluster, options, exit_code);
}

}  // namespace ringtail::tools

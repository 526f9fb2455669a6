// The sub-commands. Each function adds one to the parser, with its options and an example in its help;
// when it is chosen, it runs while the command line is parsed and sets `exit_code` (see session.h).
// `options` and `exit_code` must outlive the parser.
#pragma once

#include <CLI/CLI.hpp>

#include "tools/options.h"

namespace ringtail::tools {

// Global options and all of the sub-commands.
void add_everything(CLI::App& root, GlobalOptions& options, int& exit_code);

void add_topic(CLI::App& root, GlobalOptions& options, int& exit_code);
void add_produce(CLI::App& root, GlobalOptions& options, int& exit_code);
void add_consume(CLI::App& root, GlobalOptions& options, int& exit_code);
void add_group(CLI::App& root, GlobalOptions& options, int& exit_code);
void add_import(CLI::App& root, GlobalOptions& options, int& exit_code);
void add_replay(CLI::App& root, GlobalOptions& options, int& exit_code);
void add_log(CLI::App& root, GlobalOptions& options, int& exit_code);
void add_log_verify(CLI::App& log, GlobalOptions& options, int& exit_code);
void add_log_dump(CLI::App& log, GlobalOptions& options, int& exit_code);
void add_doctor(CLI::App& root, GlobalOptions& options, int& exit_code);
void add_top(CLI::App& root, GlobalOptions& options, int& exit_code);
void add_perf(CLI::App& root, GlobalOptions& options, int& exit_code);
#ifdef RINGTAIL_WITH_CLUSTER
void add_cluster(CLI::App& root, GlobalOptions& options, int& exit_code);
void add_cluster_show(CLI::App& cluster, GlobalOptions& options, int& exit_code);
void add_cluster_elect(CLI::App& cluster, GlobalOptions& options, int& exit_code);
void add_cluster_drain(CLI::App& cluster, GlobalOptions& options, int& exit_code);
void add_cluster_reassign(CLI::App& cluster, GlobalOptions& options, int& exit_code);
void add_cluster_throttle(CLI::App& cluster, GlobalOptions& options, int& exit_code);
#endif
void add_completion(CLI::App& root, GlobalOptions& options, int& exit_code);

// The bash completion script for everything below `root`.
std::string bash_completion(const CLI::App& root);

}  // namespace ringtail::tools

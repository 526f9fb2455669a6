"""The runner of the performance lab: systems, runs, workloads, report."""

"""The machine that is measured: its CPUs, the probe, the gaps, its name."""
import json
import os
import pathlib
import re
import subprocess
import time


def said(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def pick_cpus(asked):
    """(cpus, problems): two CPUs for sender and receiver; fewer where there are no two, or none may be had."""
    allowed = sorted(os.sched_getaffinity(0))
    if asked:
        wanted = [int(word) for word in asked.split(",")]
        missing = [cpu for cpu in wanted if cpu not in allowed]
        if missing:
            return allowed[:2], [f"CPU {missing[0]} of --cpus is not among those this process may use ({allowed}); "
                                 f"taking {allowed[:2]} instead"]
        allowed = wanted
    if len(allowed) < 2:
        return allowed, ["one CPU only: sender and receiver share it, so they wait by sleeping instead of spinning "
                         "where they can, the probe is left out, and nothing here says what two CPUs would do"]
    return allowed[:2], []


class Probe:
    """R, the cache-line round trip between the two CPUs, and how much of the time they are away."""

    def __init__(self, program, cpus):
        self.program, self.cpus = program, cpus
        self.able = len(cpus) == 2 and pathlib.Path(program).is_file()
        self.last = None  # (time, result)

    def _ask(self, *words):
        done = subprocess.run([str(self.program), *words, "--cpus", ",".join(map(str, self.cpus))],
                              capture_output=True, text=True, check=False, timeout=120)
        if done.returncode != 0:
            self.able = False
            return None
        return json.loads(done.stdout)

    def before(self):
        """The probe before a run: the one after the run before, where that is not older than half a second."""
        if self.last and time.monotonic() - self.last[0] < 0.5:
            return self.last[1]
        return self.after()

    def after(self):
        if not self.able:
            return None
        found = self._ask("probe")
        self.last = (time.monotonic(), found)
        return found

    def gaps(self, seconds):
        return self._ask("gaps", "--seconds", str(seconds)) if self.able else None


def surroundings(root, cpus, folder):
    cpu = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text())
    virtual = "hypervisor" in pathlib.Path("/proc/cpuinfo").read_text()
    huge = pathlib.Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
    return {
        "machine": cpu.group(1) if cpu else "unknown",
        "virtual": virtual,
        "cpu_count": os.cpu_count(),
        "cpus": cpus,
        "memory_gib": round(int(memory.group(1)) / 1048576, 1) if memory else None,
        "kernel": said("uname", "-sr"),
        "clocksource": said("cat", "/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "huge_pages_shmem": huge.read_text().strip() if huge.is_file() else "unknown",
        "commit": said("git", "-C", root, "rev-parse", "HEAD"),
        "changed": said("git", "-C", root, "status", "--porcelain", "--untracked-files=no") != "",
        "file_system": said("stat", "-f", "-c", "%T", folder),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }

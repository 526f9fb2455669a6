"""The processes of a run. Each is a session of its own, dies with the runner, and is ended on every way out."""
import ctypes
import os
import pathlib
import signal
import subprocess
import time

_LIBC = ctypes.CDLL(None, use_errno=True)
_TICK = os.sysconf("SC_CLK_TCK")


def _die_with_parent():
    _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Process:
    def __init__(self, name, command, folder):
        self.name, self.command = name, [str(word) for word in command]
        self.out = pathlib.Path(folder) / f"{name}.out"
        self.err = pathlib.Path(folder) / f"{name}.err"
        self.started = time.monotonic()
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.popen = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                          start_new_session=True, preexec_fn=_die_with_parent)
        self.pid = self.popen.pid
        self.code = None
        self.cpu_at_start = 0.0
        self.cpu_at_end = None

    def poll(self):
        """The exit code, or None while it runs. Notes the CPU time of what has ended."""
        if self.code is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.code = self.popen.returncode = os.waitstatus_to_exitcode(status)
                self.cpu_at_end = usage.ru_utime + usage.ru_stime
        return self.code

    def mark_start(self):
        self.cpu_at_start = session_cpu(self.pid)

    def cpu_seconds(self):
        end = self.cpu_at_end if self.cpu_at_end is not None else session_cpu(self.pid)
        return max(0.0, end - self.cpu_at_start)

    def says_ready(self):
        return any(line.strip() == b"ready" for line in self.out.read_bytes().splitlines())

    def complaint(self):
        """The last lines of its standard error."""
        lines = self.err.read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:])[:600] or "it said nothing"

    def end(self, patience=5.0):
        """SIGTERM, then SIGKILL, to all of the session."""
        for number, wait in ((signal.SIGTERM, patience), (signal.SIGKILL, 2.0)):
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:
                pass
            until = time.monotonic() + wait
            while self.poll() is None and time.monotonic() < until:
                time.sleep(0.01)
            if self.code is not None and not session_members(self.pid):
                return


def _stat(pid):
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (OSError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2:].split()


def session_members(session):
    members = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = _stat(entry)
            if fields and int(fields[3]) == session and fields[0] != "Z":
                members.append(int(entry))
    return members


def session_cpu(session):
    """User and system time in seconds of the processes of a session, and of the children they waited for."""
    total = 0
    for pid in session_members(session):
        fields = _stat(pid)
        if fields:
            total += sum(int(ticks) for ticks in fields[11:15])
    return total / _TICK


def session_memory_kib(session):
    """Proportional share of the memory of a session's processes, where the kernel tells it."""
    total = 0
    for pid in session_members(session):
        try:
            for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        except OSError:
            continue
    return total

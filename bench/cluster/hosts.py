"""Hosts on this machine: a network namespace each, joined by a bridge, with a ringtaild; and an etcd beside them."""
import base64
import contextlib
import ctypes
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.request

import measure

ETCD = "http://10.77.0.254:2379"
CLUSTER = "bench"
LEASE_TTL_S = 2
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def enter_network():
    """Begins anew in a network, a /run/netns and a /dev/shm of our own: they go with the last process in them."""
    if os.environ.get("RINGTAIL_BENCH_NETWORK"):
        for directory in ("/dev/shm", "/run/netns"):
            pathlib.Path(directory).mkdir(parents=True, exist_ok=True)
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", directory], check=True)
        return
    os.environ["RINGTAIL_BENCH_NETWORK"] = "1"
    os.execvp("unshare", ["unshare", "--net", "--mount", sys.executable, *sys.argv])


def said(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise measure.Failed(f"`{' '.join(map(str, command))}` failed: {done.stderr.strip()}")
    return done.stdout


def wait_for(what, done, patience_s=60):
    deadline = time.monotonic() + patience_s
    while not (result := done()):
        if time.monotonic() > deadline:
            raise measure.Failed(f"waited in vain for {what}")
        time.sleep(0.005)
    return result


def softirq_threads():
    """The kernel's threads that do for sockets what no call was there to do."""
    found = []
    for comm in pathlib.Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if comm.read_text().startswith("ksoftirqd/"):
                found.append(int(comm.parent.name))
    return found


def available_memory():
    words = next(line for line in pathlib.Path("/proc/meminfo").read_text().splitlines()
                 if line.startswith("MemAvailable:")).split()
    return int(words[1]) << 10


def die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Hosts:
    """Numbered from 1 on. close() ends all processes."""

    def __init__(self, work, build, cpus, settings, log_bytes=None):
        """`cpus`: that of each host's daemon; None: any. `log_bytes`: each host's log lies in memory, so large at
        most; None: below `work`."""
        self.work, self.build, self.cpus, self.settings, self.log_bytes = work, build, cpus, settings, log_bytes
        self.processes = []
        self.daemons = {}
        self.etcd = None

    def begin(self):
        self.make_network()
        self.etcd = self.start(None, "etcd", "--data-dir", self.work / "etcd", "--name", "bench",
                               "--listen-client-urls", ETCD, "--advertise-client-urls", ETCD,
                               "--listen-peer-urls", "http://127.0.0.1:2380",
                               "--initial-advertise-peer-urls", "http://127.0.0.1:2380",
                               "--initial-cluster", "bench=http://127.0.0.1:2380",
                               "--heartbeat-interval", 50, "--election-timeout", 500,
                               stderr=open(self.work / "etcd.log", "w"))
        for host in self.hosts():
            self.make_host(host)
            self.start_daemon(host)

    def hosts(self):
        return range(1, len(self.cpus) + 1)

    def make_network(self):
        for command in ("link set lo up", "link add bridge type bridge", "address add 10.77.0.254/24 dev bridge",
                        "link set bridge up"):
            said("ip", *command.split())
        for host in self.hosts():
            for command in (f"netns add host{host}",
                            f"link add port{host} type veth peer name eth0 netns host{host}",
                            f"link set port{host} master bridge up",
                            f"-n host{host} address add {self.address(host)}/24 dev eth0",
                            f"-n host{host} link set eth0 up", f"-n host{host} link set lo up"):
                said("ip", *command.split())

    def make_host(self, host):
        (self.work / f"host{host}").mkdir()
        if self.log_bytes:
            self.log_dir(host).mkdir()
            said("mount", "-t", "tmpfs", "-o", f"size={self.log_bytes},mode=0700", "tmpfs", self.log_dir(host))
        tables = {
            "log": {"dir": str(self.log_dir(host))},
            "http": {"listen": "127.0.0.1:0"},
            "logging": {"file": str(self.work / f"host{host}" / "daemon.log")},
            "node": {"id": host, "replication_listen": f"{self.address(host)}:9465"},
            "cluster": {"name": CLUSTER, "etcd": [ETCD], "lease_ttl": f"{LEASE_TTL_S}s",
                        "lease_margin": "500ms"},
            "replication": {"plain": True},
        }
        for setting in self.settings:
            name, value = setting.split("=", 1)
            table, key = name.split(".", 1)
            tables[table][key] = value
        text = "".join(f"[{table}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
                       for table, keys in tables.items())
        self.config(host).write_text(text)

    @staticmethod
    def address(host):
        return f"10.77.0.{host}"

    def log_dir(self, host):
        return self.work / f"host{host}" / "log"

    def config(self, host):
        return self.work / f"host{host}" / "ringtaild.toml"

    # --- Processes ---

    def line(self, host, *command, cpu=None):
        line = [] if host is None else ["ip", "netns", "exec", f"host{host}"]
        if cpu is not None:
            line += ["taskset", "-c", cpu]
        return [str(word) for word in [*line, *command]]

    def start(self, host, *command, cpu=None, **options):
        """A program on a host (None: beside them), which ends with this one in whatever way."""
        process = subprocess.Popen(self.line(host, *command, cpu=cpu), stdin=subprocess.DEVNULL,
                                   preexec_fn=die_with_parent, **{"stdout": subprocess.DEVNULL, **options})
        self.processes.append(process)
        return process

    def start_daemon(self, host):
        self.daemons[host] = self.start(host, self.build / "bin" / "ringtaild", "--config", self.config(host),
                                        cpu=self.cpus[host - 1], stderr=open(self.work / f"host{host}" / "errors", "a"))

    def pin(self, host, cpu):
        """All threads of the host's daemon."""
        for thread in pathlib.Path(f"/proc/{self.daemons[host].pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), {int(cpu)})

    def stop_daemon(self, host, how=signal.SIGTERM):
        self.daemons[host].send_signal(how)
        self.daemons[host].wait(60)

    def close(self):
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        for process in self.processes:
            process.wait()
        if self.log_bytes:
            for host in self.hosts():
                subprocess.run(["umount", self.log_dir(host)], capture_output=True, check=False)

    # --- The cluster ---

    def ringtail(self, *command):
        return said(self.build / "bin" / "ringtail", *command)

    def create_topic(self, topic, replicas, **configs):
        """One partition, led by the first of `replicas`; waits until all of them have it, in sync."""
        said(self.build / "tests" / "cluster_topic", ETCD, CLUSTER, topic, ",".join(map(str, replicas)),
             *(f"{name.replace('_', '.')}={value}" for name, value in configs.items()))
        wait_for(f"the roles of {topic}", lambda: self.is_whole(topic, replicas))

    def create_partitions(self, topic, count, replicas, **configs):
        words = [word for name, value in configs.items() for word in ("--config", f"{name.replace('_', '.')}={value}")]
        self.ringtail("topic", "create", topic, "--partitions", count, "--replication-factor", replicas,
                      "--etcd", ETCD, "--cluster", CLUSTER, *words)

    def delete_topic(self, topic):
        """Waits until all hosts have given back its space, and are done with that."""
        self.ringtail("topic", "delete", topic, "--etcd", ETCD, "--cluster", CLUSTER)
        wait_for(f"{topic} to be gone",
                 lambda: not any((self.log_dir(host) / "topics" / topic).exists() for host in self.hosts()))

    def records(self, prefix):
        """What etcd has below the prefix, by the rest of the key."""
        def encoded(text):
            return base64.b64encode(text.encode()).decode()
        prefix = f"/ringtail/{CLUSTER}/{prefix}"
        question = {"key": encoded(prefix), "range_end": encoded(prefix[:-1] + chr(ord(prefix[-1]) + 1))}
        request = urllib.request.Request(ETCD + "/v3/kv/range", json.dumps(question).encode())
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                found = json.load(answer).get("kvs", [])
        except OSError:
            return {}
        return {base64.b64decode(one["key"]).decode().removeprefix(prefix): json.loads(base64.b64decode(one["value"]))
                for one in found}

    def nodes_live(self):
        return {int(node) for node in self.records("live/")}

    def is_whole(self, topic, replicas):
        record = self.records(f"partitions/{topic}/").get("0")
        return (record is not None and {member["node"] for member in record["isr"]} == set(replicas)
                and all((self.log_dir(host) / "topics" / topic / "0").is_dir() for host in replicas))

    def troubles(self):
        """The end of each daemon's log, for the message of a run that failed."""
        return "\n".join(f"--- {path}\n" + "\n".join(path.read_text().splitlines()[-5:])
                         for path in sorted(self.work.glob("host*/daemon.log")))

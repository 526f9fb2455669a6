"""What is measured on the hosts, and how."""
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import hosts
import measure
from measure import Figure

MIB = 1 << 20
GIB = 1 << 30
PORT = 9500
VALUE_BYTES = 1024
SMALL_BYTES = 256
IN_MEMORY = {"replica_ack": "memory"}
FAILOVER = "failover"
IDLE_PARTITIONS = 1000
NAMES = ["throughput", "acks_all", "beside", "sigterm", "sigkill", "catch_up", "idle"]
OPEN_RATES = (10_000, 100_000)
CATCH_UP_RATE = 1_000


def programs(build):
    return [build / "bin" / "ringtaild", build / "bin" / "ringtail", build / "bin" / "hot_standby",
            build / "bench" / "ringtail_cluster_path", build / "bench" / "ringtail_cluster_load",
            build / "tests" / "cluster_topic"]


def log_bytes(args):
    """What a host's log may take where it lies in memory: what fits the largest topic, and segments made ahead."""
    return int(1.1 * max(args.catch_up_bytes, 1.5 * GIB * args.seconds)) + GIB


def beside_figures(rate):
    of = f"acks=1 at {rate:,}/s"
    return {
        f"alone_all_{rate}": Figure(f"{of}, unreplicated, p99 of all", "ns"),
        f"replicated_all_{rate}": Figure(f"{of}, replicated, p99 of all", "ns"),
        f"alone_left_out_{rate}": Figure(f"{of}, unreplicated, late by a gap", "%"),
        f"replicated_left_out_{rate}": Figure(f"{of}, replicated, late by a gap", "%"),
        f"alone_{rate}": Figure(f"{of}, unreplicated, p99 without gaps", "ns"),
        f"replicated_{rate}": Figure(f"{of}, replicated, p99 without gaps", "ns"),
        f"beside_late_{rate}": Figure(f"{of}, replicated over unreplicated, p99 without gaps", "x"),
        f"alone_send_{rate}": Figure(f"{of}, unreplicated, p99 of send alone", "ns"),
        f"replicated_send_{rate}": Figure(f"{of}, replicated, p99 of send alone", "ns"),
        f"beside_{rate}": Figure(f"{of}, replicated over unreplicated, p99 of send alone", "x", 1.2, True),
    }


def cpu_figures(kind, of, target):
    """What does not depend on how the machine's CPUs are divided: CPU time for what was carried."""
    return {
        f"{kind}_cpu_sender": Figure(f"CPU time of the TCP stream's sender, {of}", "ms/GiB"),
        f"{kind}_cpu_receiver": Figure(f"CPU time of the TCP stream's receiver, {of}", "ms/GiB"),
        f"{kind}_cpu_leader": Figure(f"CPU time of the leader's ringtaild, {of}", "ms/GiB"),
        f"{kind}_cpu_follower": Figure(f"CPU time of the follower's ringtaild, {of}", "ms/GiB"),
        f"{kind}_cpu_busiest": Figure(f"CPU time of the busiest thread of both, {of}", "ms/GiB"),
        f"{kind}_cpu": Figure(f"{of} over TCP, by the CPU time of the busiest thread", "%", target),
    }


def catch_up_figures():
    of = f"acks=1 at {CATCH_UP_RATE:,}/s"
    return {
        "catch_up_tcp": Figure("plain TCP stream before catch-up", "MiB/s"),
        "catch_up_rate": Figure("catch-up from files", "MiB/s"),
        "catch_up": Figure("catch-up over TCP", "%", 50),
        "catch_up_disk": Figure("the hosts' disk, read and written at once", "MiB/s"),
        "catch_up_of_disk": Figure("catch-up over the disk, read and written at once", "%"),
        **cpu_figures("catch_up", "catch-up", 50),
        **{f"catch_up_{when}_{name}": Figure(f"{of} {words} catch-up, {what}", unit)
           for name, what, unit in (("p50", "p50", "ns"), ("all", "p99 of all", "ns"),
                                    ("left_out", "late by a gap", "%"), ("p99", "p99 without gaps", "ns"),
                                    ("send", "p99 of send alone", "ns"))
           for when, words in (("before", "without"), ("during", "during"))},
        "catch_up_beside_p50": Figure("acks=1 during catch-up over without, p50", "x"),
        "catch_up_beside_p99": Figure("acks=1 during catch-up over without, p99", "x"),
        "catch_up_beside": Figure("acks=1 during catch-up over without, p99 of send alone", "x", 1.5, True),
    }


def figures(log_dirs):
    """All figures by name, in the order of the table."""
    ttl = 1000 * hosts.LEASE_TTL_S
    return {
        "tcp": Figure("plain TCP stream, send and recv of 256 KiB", "MiB/s"),
        "relay": Figure("1 KiB copied into a ring in shared memory, sent from there, received into another", "MiB/s"),
        "relay_of_tcp": Figure("that over TCP", "%"),
        "throughput_memory": Figure("replicated, 1 KiB records, storage=memory", "MiB/s"),
        "throughput": Figure("replicated over TCP, storage=memory", "%", 70),
        "throughput_of_relay": Figure("replicated over the relay, storage=memory", "%"),
        "throughput_disk": Figure("replicated, 1 KiB records, storage=disk, both copies on this disk"
                                  if log_dirs == "disk" else
                                  "replicated, 1 KiB records, storage=disk, both copies in a tmpfs", "MiB/s"),
        "throughput_cpu_producer": Figure("CPU time of the producer, replicated", "ms/GiB"),
        **cpu_figures("throughput", "replicated", 70),
        "ping": Figure("TCP ping-pong 256 B, blocking, p50", "ns"),
        "ping_spin": Figure("TCP ping-pong 256 B, both spin, p50", "ns"),
        "acks_all_ns": Figure("acks=all 256 B, 2 replicas, p50", "ns"),
        "acks_all_p99": Figure("acks=all 256 B, 2 replicas, p99", "ns"),
        "acks_all": Figure("acks=all over the blocking ping-pong", "x", 3, True),
        **{name: figure for rate in OPEN_RATES for name, figure in beside_figures(rate).items()},
        **catch_up_figures(),
        "sigterm": Figure("no acknowledgement after SIGTERM of the leader", "ms", 100, True),
        "sigkill": Figure("no acknowledgement after SIGKILL of the leader", "ms", ttl + 300, True),
        "idle": Figure(f"idle ringtaild, {IDLE_PARTITIONS:,} partitions, of a CPU", "%", 2, True),
    }


def cpu_of(run, process):
    """ms on a CPU for each GiB carried, over all threads of the process."""
    return sum(one["cpu_ns"] for one in run["threads"] if one["process"] == process) / 1e6 * GIB / run["bytes"]


def busiest(run, *processes):
    """Of one thread of the processes: ms on a CPU for each GiB carried, and which it is.

    The kernel's workers for io_uring, of which it makes as many as it wants, are none of them.
    """
    thread = next(one for one in run["threads"]  # from the busiest on
                  if one["process"] in processes and not one["thread"].startswith("iou-wrk"))
    return thread["cpu_ns"] / 1e6 * GIB / run["bytes"], f"{thread['process']} {thread['thread']}"


class Bench(measure.Bench):
    def __init__(self, args, work):
        self.args, self.work = args, work
        self.figures = figures(args.log_dirs)
        self.number = 0
        self.path = args.build / "bench" / "ringtail_cluster_path"
        self.load = args.build / "bench" / "ringtail_cluster_load"
        self.leader_cpu, self.follower_cpu = args.cpus.split(",")
        self.hosts = None
        self.server = None
        self.softirq = [f"softirq={pid}" for pid in hosts.softirq_threads()]
        self.standbys = []
        self.failed = None  # why the run has ended early

    def run(self):
        self.begin()
        wanted = [name for name in NAMES if name in (self.args.only or NAMES)]
        # The idle cluster's partitions would be there for all that comes after.
        for names in ([name for name in wanted if name != "idle"], [name for name in wanted if name == "idle"]):
            for number in range(self.args.repeat):
                for name in names:
                    print(f"[{number + 1}/{self.args.repeat}] {name}", file=sys.stderr, flush=True)
                    self.measure(name, number)

    def begin(self):
        self.hosts = hosts.Hosts(self.work, self.args.build,
                                 [self.leader_cpu, self.follower_cpu, self.follower_cpu], self.args.set,
                                 log_bytes(self.args) if self.args.log_dirs == "memory" else None)
        self.hosts.begin()
        hosts.wait_for("the nodes to join", lambda: len(self.hosts.nodes_live()) == 3)
        self.server = self.hosts.start(2, self.path, "serve", self.hosts.address(2), PORT, cpu=self.follower_cpu)

    def close(self):
        if self.hosts:
            self.hosts.close()

    def surroundings(self):
        known = super().surroundings()
        if self.args.log_dirs == "memory":
            known["file_system"] = "the hosts' logs in memory (tmpfs)"
        return {**known, "log_dirs": self.args.log_dirs, "failed": self.failed}

    # --- Programs ---

    def on_host(self, host, raw_name, *command, cpu=None):
        return json.loads(self.output(self.hosts.line(host, *command, cpu=cpu), raw_name))

    def probe(self):
        return self.on_host(None, "probe", self.path, "probe", *self.args.cpus.split(","))["two_lines_ns"]

    def probed(self, *measurements):
        """Runs them, every other time in reverse order; their results in order, and the probes around them."""
        before = self.probe()
        turns = list(enumerate(measurements))
        results = dict((place, run()) for place, run in (turns if self.number % 2 == 0 else reversed(turns)))
        return [results[place] for place in range(len(turns))], {"before": before, "after": self.probe()}

    def stream(self, raw_name="stream"):
        return self.on_host(1, raw_name, self.path, "stream", self.hosts.address(2), PORT, self.args.seconds,
                            ",".join([f"receiver={self.server.pid}", *self.softirq]), cpu=self.leader_cpu)

    def relay(self):
        # Its processes have the CPUs that the producer and the daemons have in throughput().
        return self.on_host(1, "relay", self.path, "relay", self.hosts.address(2), PORT, self.args.seconds, VALUE_BYTES,
                            self.follower_cpu, ",".join([f"receiver={self.server.pid}", *self.softirq]),
                            cpu=self.leader_cpu)

    def daemons(self):
        """The processes whose CPU time replication takes, as a program's last word."""
        return ",".join([f"leader={self.hosts.daemons[1].pid}", f"follower={self.hosts.daemons[2].pid}",
                         *self.softirq])

    def ping(self, *how):
        return self.on_host(1, "-".join(["ping", *how]), self.path, "ping", self.hosts.address(2), PORT,
                            self.args.seconds, SMALL_BYTES, *how, cpu=self.leader_cpu)

    def run_load(self, mode, topic, *words, raw_name=None, cpu=None):
        return self.on_host(1, raw_name or f"{mode}-{topic}", self.load, mode, self.hosts.log_dir(1), topic, *words,
                            cpu=cpu)

    @contextlib.contextmanager
    def topic(self, name, replicas=(1, 2), **configs):
        """A topic of one partition that goes with the measurement."""
        name = f"{name}-{self.number}"
        self.hosts.create_topic(name, replicas, **configs)
        yield name
        self.hosts.delete_topic(name)

    # --- Measurements ---

    def throughput(self):
        # Beside the follower's daemon, so that the leader's has the CPU that the TCP stream's sender has.
        def replicated(storage):
            with self.topic(f"through-{storage}", storage=storage, **IN_MEMORY) as topic:
                return self.run_load("saturate", topic, self.args.seconds, VALUE_BYTES, self.hosts.log_dir(2),
                                     self.daemons(), raw_name=f"saturate-{storage}", cpu=self.follower_cpu)
        (tcp, relay, memory), probe = self.probed(self.stream, self.relay, lambda: replicated("memory"))
        self.figures["throughput_disk"].add(replicated("disk")["bytes_per_second"] / MIB)
        self.add_rates(tcp, memory, probe, ("tcp", "throughput_memory", "throughput"))
        self.figures["relay"].add(relay["bytes_per_second"] / MIB, probe)
        self.figures["relay_of_tcp"].add(100 * relay["bytes_per_second"] / tcp["bytes_per_second"], probe)
        self.figures["throughput_of_relay"].add(100 * memory["bytes_per_second"] / relay["bytes_per_second"], probe)
        self.figures["throughput_cpu_producer"].add(cpu_of(memory, "self"), probe)
        self.add_cpu("throughput", tcp, memory, probe)

    def add_rates(self, stream, run, probe, names):
        rates = [one["bytes_per_second"] / MIB for one in (stream, run)]
        for name, value in zip(names, (*rates, 100 * rates[1] / rates[0])):
            self.figures[name].add(value, probe)

    def add_cpu(self, kind, stream, run, probe):
        for name, one, process in (("sender", stream, "self"), ("receiver", stream, "receiver"),
                                   ("leader", run, "leader"), ("follower", run, "follower")):
            self.figures[f"{kind}_cpu_{name}"].add(cpu_of(one, process), probe)
        side, _ = busiest(stream, "self", "receiver")
        thread, which = busiest(run, "leader", "follower")
        self.figures[f"{kind}_cpu_busiest"].add(thread, probe, thread=which)
        self.figures[f"{kind}_cpu"].add(100 * side / thread, probe, thread=which)

    def acks_all(self):
        def replicated():
            with self.topic("acks", min_insync_replicas=2, **IN_MEMORY) as topic:
                return self.run_load("closed", topic, self.args.seconds, SMALL_BYTES, raw_name="acks_all",
                                     cpu=self.leader_cpu)
        (ping, spinning, acks), probe = self.probed(self.ping, lambda: self.ping("spin"), replicated)
        self.figures["ping"].add(ping["p50_ns"], probe)
        self.figures["ping_spin"].add(spinning["p50_ns"], probe)
        self.figures["acks_all_ns"].add(acks["p50_ns"], probe)
        self.figures["acks_all_p99"].add(acks["p99_ns"], probe)
        self.figures["acks_all"].add(acks["p50_ns"] / ping["p50_ns"], probe)

    # The producer spins, so it has a CPU, and all daemons the other.
    @contextlib.contextmanager
    def producer_apart(self):
        for host in self.hosts.hosts():
            self.hosts.pin(host, self.follower_cpu)
        yield
        for host in self.hosts.hosts():
            self.hosts.pin(host, self.hosts.cpus[host - 1])

    def open_loop(self, topics, rate, raw_name, *how):
        """Delays by topic."""
        run = self.run_load("open", ",".join(topics), self.args.seconds, SMALL_BYTES, rate, *how, raw_name=raw_name,
                            cpu=self.leader_cpu)
        return run["topics"]

    def beside(self):
        with (self.topic("alone", (1,)) as alone, self.topic("replicated", **IN_MEMORY) as replicated,
              self.producer_apart()):
            for rate in OPEN_RATES:
                (sides,), probe = self.probed(lambda: self.open_loop([alone, replicated], rate, f"beside-{rate}"))
                for name, side in zip(("alone", "replicated"), sides):
                    self.figures[f"{name}_all_{rate}"].add(side["all"]["p99_ns"], probe)
                    self.figures[f"{name}_left_out_{rate}"].add(100 * side["left_out_share"], probe, gaps=side["gaps"])
                    self.figures[f"{name}_{rate}"].add(side["without_gaps"]["p99_ns"], probe)
                    self.figures[f"{name}_send_{rate}"].add(side["sends"]["p99_ns"], probe)
                for name, of in (("beside_late", "without_gaps"), ("beside", "sends")):
                    one, two = (side[of]["p99_ns"] for side in sides)
                    self.figures[f"{name}_{rate}"].add(two / one, probe)

    def catch_up(self):
        with self.topic("away", **IN_MEMORY) as topic:
            self.hosts.stop_daemon(2)
            self.run_load("fill", topic, self.args.catch_up_bytes, VALUE_BYTES, raw_name="fill")
            before = self.probe()
            disk = self.disk_both_ways(topic)
            tcp = self.stream("stream-catch_up")
            quiet, = self.open_loop([topic], CATCH_UP_RATE, "catch_up-before", "shared")
            self.hosts.start_daemon(2)
            run = self.run_load("catch_up", topic, self.hosts.log_dir(2), SMALL_BYTES, CATCH_UP_RATE, self.leader_cpu,
                                self.daemons(), raw_name="catch_up")
        probe = {"before": before, "after": self.probe()}
        self.add_rates(tcp, run, probe, ("catch_up_tcp", "catch_up_rate", "catch_up"))
        self.add_cpu("catch_up", tcp, run, probe)
        busy = run["producer"]
        for when, side in (("before", quiet), ("during", busy)):
            self.figures[f"catch_up_{when}_all"].add(side["all"]["p99_ns"], probe)
            self.figures[f"catch_up_{when}_left_out"].add(100 * side["left_out_share"], probe, gaps=side["gaps"])
            self.figures[f"catch_up_{when}_send"].add(side["sends"]["p99_ns"], probe)
            for percentile in ("p50", "p99"):
                self.figures[f"catch_up_{when}_{percentile}"].add(side["without_gaps"][f"{percentile}_ns"], probe)
        for name, of, percentile in (("catch_up_beside_p50", "without_gaps", "p50_ns"),
                                     ("catch_up_beside_p99", "without_gaps", "p99_ns"),
                                     ("catch_up_beside", "sends", "p99_ns")):
            self.figures[name].add(busy[of][percentile] / quiet[of][percentile], probe)
        if disk is not None:
            self.figures["catch_up_disk"].add(disk, probe)
            self.figures["catch_up_of_disk"].add(100 * run["bytes_per_second"] / MIB / disk, probe)

    def disk_both_ways(self, topic):
        """MiB/s that are read from the leader's files while as much is written to another, both past the page cache;
        None where the logs lie on no disk."""
        if self.args.log_dirs != "disk":
            return None
        # A finished segment: the last one is reserved ahead of what is written, and what is not is read without a disk.
        source = min((self.hosts.log_dir(1) / "topics" / topic).rglob("*.log"), key=lambda path: path.name)
        written = self.work / "disk-probe"
        blocks = min(source.stat().st_blocks * 512, GIB) // MIB
        begin = time.monotonic()
        both = [self.hosts.start(None, "dd", "bs=1M", f"count={blocks}", *words, stderr=subprocess.DEVNULL)
                for words in ((f"if={source}", "of=/dev/null", "iflag=direct"),
                              ("if=/dev/zero", f"of={written}", "oflag=direct"))]
        failed = [process.args for process in both if process.wait() != 0]
        took = time.monotonic() - begin
        if failed:
            raise measure.Failed(f"dd failed: {failed}")
        written.unlink()
        return blocks / took

    def sigterm(self):
        self.failover("sigterm", signal.SIGTERM)

    def sigkill(self):
        self.failover("sigkill", signal.SIGKILL)

    # --- Failover ---

    def begin_standbys(self):
        self.hosts.create_topic(FAILOVER, (1, 2, 3), min_insync_replicas=2, term_bytes="1MiB",
                                segment_bytes="16MiB", **IN_MEMORY)
        for host in self.hosts.hosts():
            said = self.args.out / "raw" / f"standby-{host}.txt"
            self.standbys.append(said)
            self.hosts.start(host, self.args.build / "bin" / "hot_standby", self.hosts.log_dir(host), FAILOVER,
                             "order", 1000, stdout=open(said, "w"))

    def is_whole(self):
        record = self.hosts.records(f"partitions/{FAILOVER}/").get("0")
        whole = record and len(record["isr"]) == 3 and len(self.hosts.nodes_live()) == 3
        return record["leader"] if whole and "leader" in record else None

    def first_acknowledged(self, leader, since_ns):
        """When a producer on another host than `leader` had its first record acknowledged; None: not yet."""
        times = [int(words[3]) for host, said in enumerate(self.standbys, 1) if host != leader
                 for words in (line.split() for line in said.read_text().splitlines()[:-1])
                 if words[0] == "acked" and int(words[3]) > since_ns]
        return min(times, default=None)

    def failover(self, name, how):
        if not self.standbys:
            self.begin_standbys()
        leader = hosts.wait_for("three replicas in sync", self.is_whole)
        os.sync()  # what others have left to write would hold up etcd, which has the same disk
        time.sleep(1)
        since_ns = time.monotonic_ns()
        self.hosts.daemons[leader].send_signal(how)
        then_ns = hosts.wait_for("an acknowledgement by another host",
                                 lambda: self.first_acknowledged(leader, since_ns))
        self.figures[name].add((then_ns - since_ns) / 1e6)
        self.hosts.daemons[leader].wait(60)
        self.hosts.start_daemon(leader)

    # --- Idle ---

    def idle(self):
        if self.number == 0:
            for process in self.hosts.processes:
                if FAILOVER in process.args:
                    process.kill()
            self.hosts.create_partitions("idle", IDLE_PARTITIONS, 2, term_bytes="64KiB", **IN_MEMORY)
            hosts.wait_for("the partitions to be led", lambda: self.led("idle") == IDLE_PARTITIONS, 120)
            time.sleep(20)  # keepers prepare segments for so many, and look around for some seconds
        before = self.cpu_seconds()
        begin = time.monotonic()
        time.sleep(self.args.idle_seconds)
        took = time.monotonic() - begin
        for host, spent in self.cpu_seconds().items():
            self.figures["idle"].add(100 * (spent - before[host]) / took)

    def led(self, topic):
        return sum(len(record["isr"]) == 2 and "leader" in record
                   for record in self.hosts.records(f"partitions/{topic}/").values())

    def cpu_seconds(self):
        """Of each daemon, over its threads, as the scheduler has counted it: the times in `stat` are told by ticks."""
        return {host: sum(int((task / "schedstat").read_text().split()[0])
                          for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir()) / 1e9
                for host, process in self.hosts.daemons.items()}

"""The systems of the lab: what each is, how it is started, what it can do, and how it may be had."""
import dataclasses
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[3]

MEMORY = "memory"
PAGE_CACHE = "page cache"
SYNCED_LATER = "synced ≤ 5 ms later"
SYNCED = "synced before acknowledged"
RECORDED = "memory; page cache later"
JVM_WARM = 2.0
IN_BATCH = 2048  # bytes of a record of which 64 make a batch, also where a term is of 2 MiB: an eighth of that at most


@dataclasses.dataclass(frozen=True)
class System:
    key: str
    label: str
    family: str            # program that it is run by
    mode: str = ""
    batch: int = 1
    durability: str = MEMORY
    disk: bool = False     # its folder lies on the disk
    serve: bool = False    # needs a process of its own
    waits: tuple = ("spin", "block")
    fan_in: bool = True    # several producers
    fan_out: bool = True   # several consumers, each of which gets everything
    only: tuple = ()       # workloads; empty: all that fit
    never: tuple = ()
    slow: bool = False     # knows --slow-ns
    start_seconds: float = 0.3  # until it is ready, about: for the forecast
    max_size: int = 1 << 20  # of a record
    late: bool = False     # a consumer that comes later gets everything from the beginning: replay
    idle: bool = False     # serve knows --topics
    note: str = ""
    warm: float = 0        # seconds of warm-up it wants at least: a virtual machine compiles meanwhile
    server: bool = False   # threads of its own stand between the two ends


def _ringtail(key, label, mode, **more):
    return System(key, label, "ringtail", mode, serve=True, slow=True, start_seconds=0.6, idle=True, **more)


SATURATION = ("sat-64", "sat-256", "sat-1k", "sat-16k", "fan-4-1", "fan-1-4", "fan-4-4")
PING = ("ping-spin", "ping-block")

SYSTEMS = [
    System("line", "raw cache line", "line", waits=("spin",), only=("ping-spin",), fan_in=False, fan_out=False),
    System("ring", "minimal ring", "ring", waits=("spin",), slow=True),
    System("memcpy", "memcpy through a ring of 32 MiB", "ring", "memcpy", waits=("spin",),
           only=("sat-1k", "sat-16k")),
    System("memcpy-small", "memcpy through a ring of 1 MiB", "ring", "memcpy-small", waits=("spin",),
           only=("sat-1k", "sat-16k")),
    _ringtail("ringtail-memory", "Ringtail, memory", "memory"),
    _ringtail("ringtail-batch", "Ringtail, memory, batches of 64", "memory", batch=64, max_size=IN_BATCH,
              only=SATURATION),
    _ringtail("ringtail-exclusive", "Ringtail, exclusive", "exclusive", fan_in=False),
    _ringtail("ringtail-exclusive-batch", "Ringtail, exclusive, batches of 64", "exclusive", batch=64,
              max_size=IN_BATCH, only=SATURATION, fan_in=False),
    _ringtail("ringtail-exclusive-disk", "Ringtail, exclusive, disk", "exclusive-disk", durability=SYNCED_LATER,
              disk=True, only=("open-1m", "sat-64", "sat-1k"), fan_in=False),
    _ringtail("ringtail-small", "Ringtail, ring of 8 MiB", "small", only=SATURATION),
    _ringtail("ringtail-small-batch", "Ringtail, ring of 8 MiB, batches of 64", "small", batch=64,
              max_size=IN_BATCH, only=SATURATION),
    _ringtail("ringtail-disk", "Ringtail, disk", "disk", durability=SYNCED_LATER, disk=True, late=True),
    _ringtail("ringtail-disk-batch", "Ringtail, disk, batches of 64", "disk", batch=64, durability=SYNCED_LATER,
              disk=True, max_size=IN_BATCH, only=SATURATION),
    _ringtail("ringtail-durable", "Ringtail, durable", "durable", durability=SYNCED, disk=True,
              only=("ping-spin", "ping-block", "sat-64", "fan-4-1")),
    _ringtail("ringtail-durable-batch", "Ringtail, durable, batches of 64", "durable", batch=64, durability=SYNCED,
              disk=True, max_size=IN_BATCH, only=SATURATION),
    _ringtail("ringtail-group", "Ringtail, group member, memory", "group", fan_out=False),
    System("pipe", "pipe", "pipe", slow=True),
    System("socket", "Unix socket", "socket", slow=True),
    System("boost", "Boost message_queue", "boost", slow=True),
    System("zeromq", "ZeroMQ ipc://", "zeromq", slow=True, server=True),
    System("iceoryx", "iceoryx", "iceoryx", serve=True, slow=True, start_seconds=1.5),
    System("redis", "Redis Streams, memory", "redis", "memory", serve=True, server=True, slow=True, start_seconds=0.6),
    System("redis-aof", "Redis Streams, AOF always", "redis", "always", serve=True, server=True, durability=SYNCED, disk=True,
           slow=True, start_seconds=0.6, only=("ping-spin", "open-10k", "sat-64")),
    System("nats", "NATS JetStream, memory", "nats", "memory", serve=True, server=True, slow=True, start_seconds=1.0),
    System("nats-file", "NATS JetStream, file", "nats", "file", serve=True, server=True, durability=PAGE_CACHE, disk=True, late=True,
           slow=True, start_seconds=1.0),
    System("aeron-ipc", "Aeron IPC", "aeron-ipc", serve=True, start_seconds=2, warm=JVM_WARM),
    System("aeron-shared", "Aeron IPC, concurrent publication", "aeron-ipc", "concurrent", serve=True, start_seconds=2,
           warm=JVM_WARM, only=("sat-64",)),
    System("aeron-archive", "Aeron Archive, live stream", "aeron-archive", "live", serve=True, durability=RECORDED,
           disk=True, start_seconds=3, warm=JVM_WARM),
    System("aeron-recorded", "Aeron Archive, recording", "aeron-archive", "recorded", serve=True, warm=JVM_WARM,
           durability=PAGE_CACHE, disk=True, start_seconds=3, only=("ping-spin", "open-10k", "open-100k", "open-1m",
                                                                   "sat-64", "sat-1k")),
    System("aeron-replay", "Aeron Archive", "aeron-archive", "replay", serve=True, durability=PAGE_CACHE, disk=True,
           start_seconds=3, late=True, only=("replay",)),
    System("chronicle", "Chronicle Queue", "chronicle", durability=PAGE_CACHE, disk=True, start_seconds=2,
           warm=JVM_WARM),
    System("chronicle-replay", "Chronicle Queue", "chronicle", "replay", durability=PAGE_CACHE, disk=True,
           start_seconds=2, late=True, only=("replay",)),
    System("kafka", "Kafka, acks=1", "kafka", "acks1", serve=True, server=True, durability=PAGE_CACHE, disk=True,
           start_seconds=6, warm=JVM_WARM),
    System("kafka-all", "Kafka, acks=all", "kafka", "acksall", serve=True, server=True, durability=PAGE_CACHE,
           disk=True, start_seconds=6, warm=JVM_WARM, only=("open-10k", "sat-64")),
    System("kafka-durable", "Kafka, acks=all, flushed", "kafka", "durable", serve=True, server=True, durability=SYNCED,
           disk=True, start_seconds=6, warm=JVM_WARM, only=("ping-spin", "open-10k", "sat-64")),
    System("kafka-replay", "Kafka", "kafka", "replay", serve=True, server=True, durability=PAGE_CACHE, disk=True,
           start_seconds=6, late=True, only=("replay",)),
    System("iceoryx2", "iceoryx2", "iceoryx2", serve=True, start_seconds=0.5),
]

# Programs from elsewhere than this build: launcher, and how it comes to be.
LAUNCHERS = {
    "aeron-ipc": ("jvm", "aeron-ipc"), "aeron-archive": ("jvm", "aeron-archive"), "chronicle": ("jvm", "chronicle"),
    "kafka": ("jvm", "kafka"), "iceoryx2": ("rust", "iceoryx2"),
}
PACKAGES = {
    "boost": "libboost-dev", "zeromq": "libzmq3-dev", "iceoryx": "libiceoryx-posh-dev libiceoryx-hoofs-dev iceoryx",
    "redis": "redis-server libhiredis-dev", "nats": "nats-server libnats-dev",
}


def command_of(family, build):
    """The words that start a role of the family's program."""
    if family in LAUNCHERS:
        folder, word = LAUNCHERS[family]
        return [ROOT / "bench" / "peers" / folder / "peer", word]
    return [build / "bench" / "peers" / f"peer_{family}"]


def remedy(family):
    if family in LAUNCHERS:
        return f"run bench/peers/{LAUNCHERS[family][0]}/build, and read what it says"
    packages = PACKAGES.get(family)
    build = "build the target `peers` once more"
    return f"apt-get install {packages}, then {build}" if packages else build


def find(build):
    """({family: version}, {family: why it is missing})."""
    versions, missing = {}, {}
    for family in dict.fromkeys(system.family for system in SYSTEMS):
        command = command_of(family, build)
        if not command[0].is_file():
            missing[family] = f"not built; {remedy(family)}"
            continue
        try:
            done = subprocess.run([*map(str, command), "version"], capture_output=True, text=True, check=False,
                                  timeout=60, stdin=subprocess.DEVNULL)
        except (OSError, subprocess.TimeoutExpired) as error:
            missing[family] = f"{error}; {remedy(family)}"
            continue
        if done.returncode == 0:
            versions[family] = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "unknown"
        else:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            missing[family] = f"{last}; {remedy(family)}"
    return versions, missing

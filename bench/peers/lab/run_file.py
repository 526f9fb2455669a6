"""The run file: the page through which runner and peers agree. bench/peers/README.md has the layout."""
import mmap
import os
import struct

BYTES = 4096
MAGIC = 0x3153524545504752
VERSION = 1
READY, START, MEASURE, END, STOP, PRODUCERS, CONSUMERS, SENT = 64, 128, 192, 256, 320, 384, 448, 512
DONE = 1 << 63


class RunFile:
    def __init__(self, path, producers, consumers):
        self.path, self.producers = path, producers
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.ftruncate(descriptor, BYTES)
            self.memory = mmap.mmap(descriptor, BYTES)
        finally:
            os.close(descriptor)
        self.set(PRODUCERS, producers)
        self.set(CONSUMERS, consumers)
        self.set(8, VERSION)
        self.set(0, MAGIC)

    # An aligned word of a mapping is copied as one; there is nothing else to tear.
    def set(self, offset, value):
        struct.pack_into("<Q", self.memory, offset, value)

    def get(self, offset):
        return struct.unpack_from("<Q", self.memory, offset)[0]

    def sent(self):
        """Records sent by the producers that are done."""
        words = [self.get(SENT + 64 * k) for k in range(self.producers)]
        return sum(word & ~DONE for word in words if word & DONE)

    def all_done(self):
        return all(self.get(SENT + 64 * k) & DONE for k in range(self.producers))

    def close(self):
        self.memory.close()
        os.unlink(self.path)

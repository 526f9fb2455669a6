package ringtail.peers;

import java.io.IOException;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.concurrent.locks.LockSupport;

/** The mapped file that all processes of a run share; one word on each 64-byte line. */
final class RunFile {
    static final int MAX_PRODUCERS = 16;

    private static final long MAGIC = 0x3153524545504752L;
    private static final int BYTES = 4096;
    private static final int VERSION = 8;
    private static final int READY = 64;
    private static final int START = 128;
    private static final int MEASURE = 192;
    private static final int END = 256;
    private static final int STOP = 320;
    private static final int PRODUCERS = 384;
    private static final int SENT = 512;
    private static final long DONE = 1L << 63;
    private static final long POLL_NS = 200_000;
    private static final long SPIN_BEFORE_START_NS = 2_000_000;
    private static final VarHandle WORD =
        MethodHandles.byteBufferViewVarHandle(long[].class, ByteOrder.LITTLE_ENDIAN);

    private final ByteBuffer map;

    RunFile(Path file) throws IOException {
        try (FileChannel channel =
                 FileChannel.open(file, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            map = channel.map(FileChannel.MapMode.READ_WRITE, 0, BYTES);
        }
        if (get(0) != MAGIC || get(VERSION) != 1) {
            throw new IOException(file + " is not a run file of version 1");
        }
    }

    private long get(int offset) {
        return (long) WORD.getAcquire(map, offset);
    }

    void ready() {
        long before = (long) WORD.getAndAdd(map, READY, 1L);
        if (before < 0) {
            throw new IllegalStateException("the run file's count of ready processes is negative");
        }
    }

    boolean stopped() {
        return get(STOP) != 0;
    }

    long measureNs() {
        return get(MEASURE);
    }

    long endNs() {
        return get(END);
    }

    int producers() {
        return (int) get(PRODUCERS);
    }

    /** Sleeps until the runner has said when sending begins; false: the run was stopped first. */
    boolean awaitSchedule() {
        while (get(START) == 0) {
            if (stopped()) {
                return false;
            }
            LockSupport.parkNanos(POLL_NS);
        }
        return true;
    }

    /** Waits for the time at which sending begins and returns it; -1: the run was stopped first. */
    long awaitStart() {
        if (!awaitSchedule()) {
            return -1;
        }
        long start = get(START);
        for (long left = start - System.nanoTime(); left > 0; left = start - System.nanoTime()) {
            if (stopped()) {
                return -1;
            }
            if (left > SPIN_BEFORE_START_NS) {
                LockSupport.parkNanos(left - SPIN_BEFORE_START_NS);
            } else {
                Thread.onSpinWait();
            }
        }
        return start;
    }

    void done(int producer, long sent) {
        WORD.setRelease(map, SENT + 64 * producer, sent | DONE);
    }

    boolean isDone(int producer) {
        return (get(SENT + 64 * producer) & DONE) != 0;
    }

    long sent(int producer) {
        return get(SENT + 64 * producer) & ~DONE;
    }

    /** The sum of what the producers have sent, or -1 while one of them is not done. */
    long sentByAll() {
        long sum = 0;
        for (int k = 0, n = producers(); k < n; k++) {
            if (!isDone(k)) {
                return -1;
            }
            sum += sent(k);
        }
        return sum;
    }
}

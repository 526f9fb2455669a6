package ringtail.peers;

import java.util.HashSet;
import java.util.Set;
import org.HdrHistogram.Histogram;
import org.agrona.DirectBuffer;

/** Takes each record's latency and checks that it is whole, in order, and there once. */
final class Checker implements Peer.Handler {
    private static final long HIGHEST_NS = 3_600_000_000_000L;
    private static final int MAX_MISSING = 1 << 20;

    final Histogram histogram = newHistogram();
    private final long[] expected = new long[RunFile.MAX_PRODUCERS];
    private final Set<Long> missing = new HashSet<>();
    private final int size;
    private final boolean everything;
    private final boolean saturated;
    private final long measureNs;
    long received;
    long warmup;
    long measured;
    long skipped;
    long duplicated;
    long reordered;
    long corrupt;
    long firstNs;
    long lastNs;

    /**
     * saturated: a stream at rate 0, where only sampled records carry a fresh time and have a latency.
     * everything: a replay, where records older than the measuring count like all others.
     */
    Checker(int size, long measureNs, boolean saturated, boolean everything) {
        this.size = size;
        this.measureNs = measureNs;
        this.saturated = saturated;
        this.everything = everything;
    }

    static Histogram newHistogram() {
        return new Histogram(1, HIGHEST_NS, 3);
    }

    static void record(Histogram histogram, long ns) {
        histogram.recordValue(Math.min(Math.max(ns, 0), HIGHEST_NS));
    }

    @Override
    public void onRecord(DirectBuffer buffer, int offset, int length) {
        received++;
        if (length != size) {
            corrupt++;
            return;
        }
        final long time = buffer.getLong(offset);
        final long word1 = buffer.getLong(offset + 8);
        final int producer = Payload.producer(word1);
        if (producer >= RunFile.MAX_PRODUCERS || !Payload.intact(buffer, offset, length, word1)) {
            corrupt++;
            return;
        }
        final long sequence = Payload.sequence(word1);
        if (sequence == expected[producer]) {
            expected[producer] = sequence + 1;
        } else {
            outOfOrder(producer, sequence, word1);
        }
        if (time < measureNs && !everything) {
            warmup++;
            return;
        }
        if (saturated && measured != 0 && !Payload.sampled(sequence)) {
            measured++;
            return;
        }
        final long now = System.nanoTime();
        if (measured++ == 0) {
            firstNs = now;
        }
        lastNs = now;
        record(histogram, now - time);
    }

    private void outOfOrder(int producer, long sequence, long word1) {
        if (sequence > expected[producer]) {
            skipped += sequence - expected[producer];
            for (long s = expected[producer]; s < sequence && missing.size() < MAX_MISSING; s++) {
                missing.add(Payload.word1(producer, s));
            }
            expected[producer] = sequence + 1;
        } else if (missing.remove(word1)) {
            skipped--;
            reordered++;
        } else {
            duplicated++;
        }
    }

    /** Records that came whole, each counted once. */
    long distinct() {
        return received - duplicated - corrupt;
    }

    /** Records that a later one overtook and that never came, and those missing at the end. */
    long lost(RunFile run) {
        long lost = skipped;
        for (int k = 0, n = run.producers(); k < n; k++) {
            if (run.isDone(k)) {
                lost += Math.max(run.sent(k) - expected[k], 0);
            }
        }
        return lost;
    }
}

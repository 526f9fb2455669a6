package ringtail.peers;

import org.agrona.DirectBuffer;
import org.agrona.MutableDirectBuffer;

/** The bytes of a record: intended time, producer and sequence, then words that follow from them. */
final class Payload {
    private static final long MULTIPLIER = 0x9E3779B97F4A7C15L;
    private static final int SEQUENCE_BITS = 56;
    private static final int WORDS_OF_A_LINE = 8;
    private static final long SAMPLE_MASK = 63;

    private Payload() {
    }

    static long word1(int producer, long sequence) {
        return ((long) producer << SEQUENCE_BITS) | sequence;
    }

    static int producer(long word1) {
        return (int) (word1 >>> SEQUENCE_BITS);
    }

    static long sequence(long word1) {
        return word1 & ((1L << SEQUENCE_BITS) - 1);
    }

    /** At rate 0, whether the record carries a fresh time: one in 64 does, for a reading costs 20 ns. */
    static boolean sampled(long sequence) {
        return (sequence & SAMPLE_MASK) == 0;
    }

    static void fill(MutableDirectBuffer buffer, int offset, int size, long time, long word1) {
        buffer.putLong(offset, time);
        buffer.putLong(offset + 8, word1);
        final long base = word1 * MULTIPLIER;
        for (int i = 2, words = size >> 3; i < words; i++) {
            buffer.putLong(offset + (i << 3), base + i);
        }
    }

    /** Looks at one word of every line (of the first, at the first that follows from word 1) and at the last. */
    static boolean intact(DirectBuffer buffer, int offset, int size, long word1) {
        final long base = word1 * MULTIPLIER;
        final int last = (size >> 3) - 1;
        long wrong = (buffer.getLong(offset + 16) ^ (base + 2))
            | (buffer.getLong(offset + (last << 3)) ^ (base + last));
        for (int i = WORDS_OF_A_LINE; i < last; i += WORDS_OF_A_LINE) {
            wrong |= buffer.getLong(offset + (i << 3)) ^ (base + i);
        }
        return wrong == 0;
    }
}

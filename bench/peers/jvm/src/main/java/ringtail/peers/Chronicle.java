package ringtail.peers;

import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import net.openhft.chronicle.bytes.Bytes;
import net.openhft.chronicle.bytes.SyncMode;
import net.openhft.chronicle.queue.ChronicleQueue;
import net.openhft.chronicle.queue.ExcerptAppender;
import net.openhft.chronicle.queue.ExcerptTailer;
import net.openhft.chronicle.queue.impl.single.SingleChronicleQueueBuilder;
import net.openhft.chronicle.queue.rollcycles.LargeRollCycles;
import net.openhft.chronicle.wire.DocumentContext;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;

/** Chronicle Queue: a mapped file that all processes append to and read from. */
final class Chronicle implements Peer {
    private static final List<String> MODES = List.of("", "pagecache", "durable", "replay");

    private final Options options;
    private final boolean durable;

    Chronicle(Options options) {
        this.options = options;
        this.durable = options.mode.equals("durable");
        if (!MODES.contains(options.mode)) {
            throw new Options.UsageException(
                "chronicle's --mode is pagecache, durable or replay, not " + options.mode);
        }
    }

    private ChronicleQueue open(Stream stream) {
        Path path = options.dir.resolve("queue-" + stream.name().toLowerCase(Locale.ROOT));
        return SingleChronicleQueueBuilder.binary(path.toFile())
            .rollCycle(LargeRollCycles.LARGE_DAILY)
            .syncMode(durable ? SyncMode.SYNC : SyncMode.NONE)
            .build();
    }

    @Override
    public Sender sender(Stream stream) {
        return new AppenderSender(open(stream), options.size, durable);
    }

    @Override
    public Receiver receiver(Stream stream) {
        return new TailerReceiver(open(stream));
    }

    @Override
    public String note() {
        if (durable) {
            return "appender.sync() after each record; readers see a record before it is synced";
        }
        return "page cache, written back by the kernel"
            + (options.block ? "; there is no blocking wait: readers back off to sleeps" : "");
    }

    private static final class AppenderSender implements Sender {
        private final ChronicleQueue queue;
        private final ExcerptAppender appender;
        private final UnsafeBuffer buffer = new UnsafeBuffer(0, 0);
        private final int size;
        private final boolean durable;

        AppenderSender(ChronicleQueue queue, int size, boolean durable) {
            this.queue = queue;
            this.appender = queue.createAppender();
            this.size = size;
            this.durable = durable;
        }

        @Override
        public boolean trySend(long time, long word1) {
            try (DocumentContext document = appender.writingDocument()) {
                Bytes<?> bytes = lend(document, size);
                Payload.fill(buffer, 0, size, time, word1);
                bytes.writeSkip(size);
            }
            if (durable) {
                appender.sync();
            }
            return true;
        }

        @Override
        public boolean trySend(DirectBuffer from, int offset, int length) {
            try (DocumentContext document = appender.writingDocument()) {
                Bytes<?> bytes = lend(document, length);
                buffer.putBytes(0, from, offset, length);
                bytes.writeSkip(length);
            }
            if (durable) {
                appender.sync();
            }
            return true;
        }

        /** Lets the buffer point at the place in the mapped file where the record belongs. */
        private Bytes<?> lend(DocumentContext document, int length) {
            Bytes<?> bytes = document.wire().bytes();
            bytes.ensureCapacity(bytes.writePosition() + length);
            buffer.wrap(bytes.addressForWrite(bytes.writePosition()), length);
            return bytes;
        }

        @Override
        public void close() {
            appender.close();
            queue.close();
        }
    }

    private static final class TailerReceiver implements Receiver {
        private static final int RECORDS_OF_A_POLL = 64;

        private final ChronicleQueue queue;
        private final ExcerptTailer tailer;
        private final UnsafeBuffer buffer = new UnsafeBuffer(0, 0);

        TailerReceiver(ChronicleQueue queue) {
            this.queue = queue;
            this.tailer = queue.createTailer();
        }

        @Override
        public int poll(Handler handler) {
            for (int n = 0; n < RECORDS_OF_A_POLL; n++) {
                try (DocumentContext document = tailer.readingDocument()) {
                    if (!document.isPresent()) {
                        return n;
                    }
                    Bytes<?> bytes = document.wire().bytes();
                    int length = (int) bytes.readRemaining();
                    buffer.wrap(bytes.addressForRead(bytes.readPosition()), length);
                    handler.onRecord(buffer, 0, length);
                }
            }
            return RECORDS_OF_A_POLL;
        }

        @Override
        public void close() {
            tailer.close();
            queue.close();
        }
    }
}

package ringtail.peers;

import io.aeron.Aeron;
import io.aeron.ExclusivePublication;
import io.aeron.Publication;
import io.aeron.Subscription;
import io.aeron.driver.MediaDriver;
import io.aeron.driver.ThreadingMode;
import io.aeron.exceptions.DriverTimeoutException;
import io.aeron.logbuffer.BufferClaim;
import io.aeron.logbuffer.FragmentHandler;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.function.BooleanSupplier;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.BackoffIdleStrategy;
import org.agrona.concurrent.BusySpinIdleStrategy;
import org.agrona.concurrent.IdleStrategy;

/** Aeron between processes on one host, with a media driver in a process of its own. */
class AeronIpc implements Peer {
    static final String CHANNEL = "aeron:ipc";
    private static final int FIRST_STREAM = 1001;
    private static final int FRAGMENTS_OF_A_POLL = 64;
    // The largest that Aeron allows: a claim is one fragment, and 16 KiB must fit.
    private static final int MTU = 65504;
    // The driver's three busy threads, both ends of a run, and one processor for all else.
    private static final int PROCESSORS_FOR_DEDICATED = 6;
    private static final long CONNECT_NS = 60_000_000_000L;

    final Options options;
    private final List<BooleanSupplier> connected = new ArrayList<>();
    private MediaDriver driver;
    private Aeron aeron;

    AeronIpc(Options options) {
        this.options = options;
    }

    /** The driver's directory belongs in shared memory wherever the run's own directory is. */
    String aeronDirectory() {
        Path dir = options.dir.toAbsolutePath().normalize();
        if (dir.startsWith("/dev/shm")) {
            return dir.resolve("aeron").toString();
        }
        return "/dev/shm/ringtail-peer-aeron-" + Integer.toHexString(dir.toString().hashCode());
    }

    boolean dedicated() {
        List<String> words = modeWords();
        if (words.contains("dedicated") || words.contains("shared")) {
            return words.contains("dedicated");
        }
        return Runtime.getRuntime().availableProcessors() >= PROCESSORS_FOR_DEDICATED;
    }

    List<String> modeWords() {
        return List.of(options.mode.split("[-,+]"));
    }

    private int termLength() {
        for (String word : modeWords()) {
            if (word.matches("term[0-9]+[km]")) {
                int number = Integer.parseInt(word.substring(4, word.length() - 1));
                return number << (word.endsWith("k") ? 10 : 20);
            }
        }
        return 64 << 20;
    }

    static IdleStrategy driverIdle(boolean dedicated) {
        return dedicated ? new BusySpinIdleStrategy()
            : new BackoffIdleStrategy(10, 20, 1_000, 100_000);
    }

    MediaDriver.Context driverContext() {
        boolean dedicated = dedicated();
        return new MediaDriver.Context()
            .aeronDirectoryName(aeronDirectory())
            .dirDeleteOnStart(true)
            .dirDeleteOnShutdown(true)
            .warnIfDirectoryExists(false)
            .errorHandler(e -> System.err.println("peer: media driver: " + e.getMessage()))
            .threadingMode(dedicated ? ThreadingMode.DEDICATED : ThreadingMode.SHARED)
            .conductorIdleStrategy(driverIdle(dedicated))
            .senderIdleStrategy(driverIdle(dedicated))
            .receiverIdleStrategy(driverIdle(dedicated))
            .sharedIdleStrategy(driverIdle(dedicated))
            .ipcTermBufferLength(termLength())
            .ipcMtuLength(MTU)
            .termBufferSparseFile(false)
            .performStorageChecks(false);
    }

    @Override
    public void serve() throws Exception {
        driver = MediaDriver.launch(driverContext());
    }

    Aeron aeron() throws Main.UnavailableException {
        if (aeron == null) {
            try {
                aeron = Aeron.connect(new Aeron.Context()
                    .aeronDirectoryName(aeronDirectory())
                    .preTouchMappedMemory(true)
                    .errorHandler(e -> System.err.println("peer: aeron: " + e.getMessage())));
            } catch (DriverTimeoutException e) {
                throw new Main.UnavailableException(
                    "no media driver in " + aeronDirectory() + ": start `peer " + options.system
                        + " serve --dir " + options.dir + "` first");
            }
        }
        return aeron;
    }

    static int streamId(Stream stream) {
        return FIRST_STREAM + stream.ordinal();
    }

    void connectedWhen(BooleanSupplier condition) {
        connected.add(condition);
    }

    @Override
    public void awaitConnected() throws Exception {
        RunFile run = new RunFile(options.run);
        long since = System.nanoTime();
        while (!connected.stream().allMatch(BooleanSupplier::getAsBoolean)) {
            if (run.stopped()) {
                return;
            }
            if (System.nanoTime() - since > CONNECT_NS) {
                throw new IllegalStateException("the other end did not connect in 60 s");
            }
            Thread.sleep(1);
        }
    }

    @Override
    public Sender sender(Stream stream) throws Exception {
        boolean alone = !modeWords().contains("concurrent")
            && (stream != Stream.DATA || new RunFile(options.run).producers() == 1);
        if (alone) {
            ExclusivePublication p = aeron().addExclusivePublication(CHANNEL, streamId(stream));
            sessionAdded(p.sessionId());
            connectedWhen(p::isConnected);
            return new ExclusiveSender(p, options.size);
        }
        Publication p = aeron().addPublication(CHANNEL, streamId(stream));
        sessionAdded(p.sessionId());
        connectedWhen(p::isConnected);
        return new ConcurrentSender(p, options.size);
    }

    /** For a system on top of this one that has more to wait for. */
    void sessionAdded(int session) throws Exception {
    }

    @Override
    public Receiver receiver(Stream stream) throws Exception {
        return receiver(aeron().addSubscription(CHANNEL, streamId(stream)));
    }

    /** One image: all producers of a concurrent publication write the same log buffer. */
    Receiver receiver(Subscription subscription) {
        connectedWhen(subscription::isConnected);
        return new SubscriptionReceiver(subscription);
    }

    @Override
    public String note() {
        return "media driver in its own process; tryClaim, no batches; memory only";
    }

    @Override
    public void close() {
        if (aeron != null) {
            aeron.close();
        }
        if (driver != null) {
            driver.close();
        }
    }

    /** True: claimed; false: no room or a term is being rotated, try again. */
    private static boolean claimed(long position) {
        if (position > 0) {
            return true;
        }
        if (position == Publication.BACK_PRESSURED || position == Publication.ADMIN_ACTION) {
            return false;
        }
        throw new IllegalStateException("Aeron refused a record: " + Publication.errorString(position));
    }

    private static final class ExclusiveSender implements Sender {
        private final ExclusivePublication publication;
        private final BufferClaim claim = new BufferClaim();
        private final int size;

        ExclusiveSender(ExclusivePublication publication, int size) {
            this.publication = publication;
            this.size = size;
        }

        @Override
        public boolean trySend(long time, long word1) {
            if (!claimed(publication.tryClaim(size, claim))) {
                return false;
            }
            Payload.fill(claim.buffer(), claim.offset(), size, time, word1);
            claim.commit();
            return true;
        }

        @Override
        public boolean trySend(DirectBuffer from, int offset, int length) {
            if (!claimed(publication.tryClaim(length, claim))) {
                return false;
            }
            claim.putBytes(from, offset, length);
            claim.commit();
            return true;
        }

        @Override
        public void close() {
            publication.close();
        }
    }

    private static final class ConcurrentSender implements Sender {
        private final Publication publication;
        private final BufferClaim claim = new BufferClaim();
        private final int size;

        ConcurrentSender(Publication publication, int size) {
            this.publication = publication;
            this.size = size;
        }

        @Override
        public boolean trySend(long time, long word1) {
            if (!claimed(publication.tryClaim(size, claim))) {
                return false;
            }
            Payload.fill(claim.buffer(), claim.offset(), size, time, word1);
            claim.commit();
            return true;
        }

        @Override
        public boolean trySend(DirectBuffer from, int offset, int length) {
            if (!claimed(publication.tryClaim(length, claim))) {
                return false;
            }
            claim.putBytes(from, offset, length);
            claim.commit();
            return true;
        }

        @Override
        public void close() {
            publication.close();
        }
    }

    private static final class SubscriptionReceiver implements Receiver {
        private final Subscription subscription;
        private Handler handler;
        private final FragmentHandler fragments =
            (buffer, offset, length, header) -> handler.onRecord(buffer, offset, length);

        SubscriptionReceiver(Subscription subscription) {
            this.subscription = subscription;
        }

        @Override
        public int poll(Handler to) {
            handler = to;
            return subscription.poll(fragments, FRAGMENTS_OF_A_POLL);
        }

        @Override
        public void close() {
            subscription.close();
        }
    }
}

package ringtail.peers;

import io.aeron.Aeron;
import io.aeron.Subscription;
import io.aeron.archive.Archive;
import io.aeron.archive.ArchiveThreadingMode;
import io.aeron.archive.ArchivingMediaDriver;
import io.aeron.archive.client.AeronArchive;
import io.aeron.archive.codecs.SourceLocation;
import io.aeron.archive.status.RecordingPos;
import java.util.concurrent.atomic.AtomicLong;
import org.agrona.concurrent.status.CountersReader;

/** Aeron Archive: the streams of Aeron IPC, each recorded to disk by an archive beside the driver. */
final class AeronArchivePeer extends AeronIpc {
    private static final int REPLAY_STREAM = 2001;
    private static final long WAIT_NS = 60_000_000_000L;

    private ArchivingMediaDriver server;
    private AeronArchive archive;

    AeronArchivePeer(Options options) {
        super(options);
        for (String word : modeWords()) {
            if (!word.matches("|live|recorded|replay|sync[012]|shared|dedicated|term[0-9]+[km]")) {
                throw new Options.UsageException("aeron-archive's --mode is live, recorded or replay, then"
                    + " -sync0, -sync1 or -sync2, -shared or -dedicated, -term16m; not " + options.mode);
            }
        }
    }

    /** Readers take what the archive has written instead of what the producer has sent. */
    private boolean readsRecording() {
        return modeWords().contains("recorded") || modeWords().contains("replay");
    }

    private int syncLevel() {
        return modeWords().contains("sync2") ? 2 : modeWords().contains("sync1") ? 1 : 0;
    }

    @Override
    public void serve() throws Exception {
        boolean dedicated = dedicated();
        server = ArchivingMediaDriver.launch(
            driverContext().spiesSimulateConnection(false),
            new Archive.Context()
                .aeronDirectoryName(aeronDirectory())
                .archiveDirectoryName(options.dir.resolve("archive").toString())
                .errorHandler(e -> System.err.println("peer: archive: " + e.getMessage()))
                .controlChannelEnabled(false)
                .localControlChannel(CHANNEL)
                .archiveClientContext(new AeronArchive.Context()
                    .controlRequestChannel(CHANNEL)
                    .controlResponseChannel(CHANNEL))
                .replicationChannel("aeron:udp?endpoint=localhost:0")
                .recordingEventsEnabled(false)
                .fileSyncLevel(syncLevel())
                .catalogFileSyncLevel(syncLevel())
                .threadingMode(dedicated ? ArchiveThreadingMode.DEDICATED : ArchiveThreadingMode.SHARED)
                .idleStrategySupplier(() -> driverIdle(dedicated)));
        for (Stream stream : Stream.values()) {
            archive().startRecording(CHANNEL, streamId(stream), SourceLocation.LOCAL);
        }
    }

    private AeronArchive archive() throws Main.UnavailableException {
        if (archive == null) {
            archive = AeronArchive.connect(new AeronArchive.Context()
                .aeron(aeron())
                .controlRequestChannel(CHANNEL)
                .controlResponseChannel(CHANNEL));
        }
        return archive;
    }

    /** A producer is connected once the archive records it. */
    @Override
    void sessionAdded(int session) throws Exception {
        CountersReader counters = aeron().countersReader();
        connectedWhen(() ->
            RecordingPos.findCounterIdBySession(counters, session) != CountersReader.NULL_COUNTER_ID);
    }

    @Override
    public Receiver receiver(Stream stream) throws Exception {
        if (!readsRecording()) {
            return super.receiver(stream);
        }
        int replayStream = REPLAY_STREAM + stream.ordinal() * RunFile.MAX_PRODUCERS + options.index;
        Subscription replay = archive().replay(
            awaitRecording(stream), 0, AeronArchive.REPLAY_ALL_AND_FOLLOW, CHANNEL, replayStream);
        return receiver(replay);
    }

    /** The recording begins when the first producer comes, so this may have to wait for it. */
    private long awaitRecording(Stream stream) throws Exception {
        RunFile run = new RunFile(options.run);
        AtomicLong found = new AtomicLong(Aeron.NULL_VALUE);
        for (long since = System.nanoTime(); System.nanoTime() - since < WAIT_NS; Thread.sleep(2)) {
            archive().listRecordingsForUri(0, Integer.MAX_VALUE, CHANNEL, streamId(stream),
                (session, correlation, recordingId, startTime, stopTime, start, stop, term, segment,
                    termLength, mtu, sessionId, streamId, stripped, original, source) ->
                    found.set(recordingId));
            if (found.get() != Aeron.NULL_VALUE) {
                return found.get();
            }
            if (run.stopped()) {
                break;
            }
        }
        throw new IllegalStateException("nothing was recorded in 60 s");
    }

    @Override
    public String note() {
        String written = switch (syncLevel()) {
            case 0 -> "file.sync.level 0: written to the page cache, not synced";
            case 1 -> "file.sync.level 1: data synced after each write";
            default -> "file.sync.level 2: data and metadata synced after each write";
        };
        String reads = readsRecording() ? "readers follow the recording, so they see what was written"
            : "readers take the live stream and do not wait for the recording";
        return written + "; " + reads;
    }

    @Override
    public void close() {
        if (archive != null) {
            archive.close();
        }
        super.close();
        if (server != null) {
            server.close();
        }
    }
}

package ringtail.peers;

import java.io.IOException;
import java.io.InputStream;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import net.openhft.affinity.Affinity;
import sun.misc.Signal;

/** Runs one role of one system: SYSTEM ROLE --options. */
public final class Main {
    private static final int CANNOT_RUN = 3;

    private Main() {
    }

    /** Exit codes: 0 good, 3 the system cannot run here, 1 anything else. */
    public static void main(String[] args) {
        int code;
        try {
            Options o = Options.parse(args);
            quietLogging(o);
            code = run(o);
        } catch (Options.UsageException e) {
            code = complain(e.getMessage(), 1);
        } catch (UnavailableException e) {
            code = complain(e.getMessage(), CANNOT_RUN);
        } catch (Throwable e) {
            if (System.getenv("PEER_TRACE") != null) {
                e.printStackTrace();
            }
            code = complain(String.valueOf(e), 1);
        }
        System.exit(code);
    }

    private static int complain(String what, int code) {
        System.err.println("peer: " + what.lines().findFirst().orElse("failed"));
        return code;
    }

    /** The libraries' own words go to a file in the run's directory, never to the screen. */
    private static void quietLogging(Options o) {
        System.setProperty("org.slf4j.simpleLogger.defaultLogLevel", "warn");
        if (o.dir != null) {
            System.setProperty("org.slf4j.simpleLogger.logFile",
                o.dir.resolve(o.role + "-" + o.index + ".log").toString());
        }
    }

    private static int run(Options o) throws Exception {
        String version = versionOf(o.system);
        if (o.role.equals("version")) {
            System.out.println(o.system + " " + version);
            return 0;
        }
        // Without this the virtual machine answers SIGTERM with exit code 143.
        Signal.handle(new Signal("TERM"), s -> new Thread(() -> System.exit(0)).start());
        try (Peer peer = make(o)) {
            return o.role.equals("serve") ? serve(peer) : play(o, version, peer);
        }
    }

    private static Peer make(Options o) throws Exception {
        return switch (o.system) {
            case "aeron-ipc" -> new AeronIpc(o);
            case "aeron-archive" -> new AeronArchivePeer(o);
            case "chronicle" -> new Chronicle(o);
            case "kafka" -> new Kafka(o);
            default -> throw new Options.UsageException("no such system: " + o.system);
        };
    }

    private static int serve(Peer peer) throws Exception {
        // The hook closes the peer, for the thread that waits below never gets to it.
        Runtime.getRuntime().addShutdownHook(new Thread(() -> closeQuietly(peer)));
        peer.serve();
        System.out.println("ready");
        System.out.flush();
        new CountDownLatch(1).await();
        return 0;
    }

    private static void closeQuietly(Peer peer) {
        try {
            peer.close();
        } catch (Exception e) {
            complain(String.valueOf(e), 1);
        }
    }

    private static int play(Options o, String version, Peer peer) throws Exception {
        RunFile run = new RunFile(o.run);
        if (o.cpu >= 0) {
            Affinity.setAffinity(o.cpu);
        }
        Roles roles = new Roles(o, run, peer);
        Checker checker = null;
        switch (o.role) {
            case "produce" -> Result.write(o, version, peer.note(), roles.produce());
            case "consume" -> checker = roles.consume();
            case "ping" -> checker = roles.ping();
            case "pong" -> roles.pong();
            default -> throw new Options.UsageException("no such role: " + o.role);
        }
        return checker == null ? 0 : report(o, version, peer, run, checker);
    }

    private static int report(Options o, String version, Peer peer, RunFile run, Checker c)
        throws IOException {
        boolean ended = !run.stopped();
        Result.write(o, version, peer.note(), run, c, ended);
        long lost = ended ? c.lost(run) : c.skipped;
        if (lost + c.duplicated + c.reordered + c.corrupt == 0) {
            return 0;
        }
        return complain(String.format("%s: %d lost, %d duplicated, %d reordered, %d corrupt of %d",
            o.system, lost, c.duplicated, c.reordered, c.corrupt, c.received), 1);
    }

    private static String versionOf(String system) throws IOException {
        Properties versions = new Properties();
        try (InputStream in = Main.class.getResourceAsStream("/versions.properties")) {
            versions.load(in);
        }
        String version = versions.getProperty(system);
        if (version == null) {
            throw new Options.UsageException("no such system: " + system + "; there are "
                + String.join(", ", new java.util.TreeSet<>(versions.stringPropertyNames())));
        }
        return version;
    }

    /** The system is not here or cannot run here. */
    static final class UnavailableException extends Exception {
        private static final long serialVersionUID = 1L;

        UnavailableException(String what) {
            super(what);
        }
    }
}

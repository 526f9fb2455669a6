package ringtail.peers;

import java.util.concurrent.locks.LockSupport;
import org.HdrHistogram.Histogram;
import org.agrona.concurrent.BackoffIdleStrategy;
import org.agrona.concurrent.BusySpinIdleStrategy;
import org.agrona.concurrent.IdleStrategy;

/** The loops of the protocol's roles, the same for every system. */
final class Roles {
    private static final long LOST_AFTER_NS = 10_000_000_000L;
    private static final long SECOND_NS = 1_000_000_000L;
    private static final long SLEEP_SLACK_NS = 80_000;
    private static final int SPINS_BETWEEN_LOOKS = 63;

    private final Options o;
    private final RunFile run;
    private final Peer peer;
    private final IdleStrategy idle;

    Roles(Options o, RunFile run, Peer peer) {
        this.o = o;
        this.run = run;
        this.peer = peer;
        this.idle = idleStrategy(o);
    }

    /** Blocking readers back off to sleeps of at most 1 ms, as Aeron's own default does. */
    static IdleStrategy idleStrategy(Options o) {
        return o.block ? new BackoffIdleStrategy(10, 20, 1_000, 1_000_000)
            : new BusySpinIdleStrategy();
    }

    /** What a producer has to report; `lateness`: return of a send less its intended time, open loop only. */
    record Production(long sent, Histogram lateness) {
    }

    Production produce() throws Exception {
        final Histogram lateness = Checker.newHistogram();
        long sent = 0;
        try (Peer.Sender sender = peer.sender(Peer.Stream.DATA)) {
            peer.awaitConnected();
            run.ready();
            long start = run.awaitStart();
            if (start >= 0) {
                sent = o.rate == 0 ? saturate(sender)
                    : openLoop(sender, start, o.hist == null ? null : lateness);
                sender.flush();
            }
            run.done(o.index, sent);
        }
        return new Production(sent, lateness);
    }

    private long saturate(Peer.Sender sender) throws Exception {
        long time = 0;
        long sequence = 0;
        while (!run.stopped()) {
            if (Payload.sampled(sequence)) {
                time = System.nanoTime();
                if (time > run.endNs()) {
                    break;
                }
            }
            if (!sendUntilEnd(sender, time, Payload.word1(o.index, sequence))) {
                break;
            }
            sequence++;
        }
        return sequence;
    }

    /** Tries until there is room; false: stopped, or the end came first. */
    private boolean sendUntilEnd(Peer.Sender sender, long time, long word1) throws Exception {
        idle.reset();
        for (int tries = 1; !sender.trySend(time, word1); tries++) {
            if (run.stopped()
                || (tries & SPINS_BETWEEN_LOOKS) == 0 && System.nanoTime() > run.endNs()) {
                return false;
            }
            idle.idle();
        }
        return true;
    }

    /** lateness: null where nobody asked for it, which spares a reading of the clock. */
    private long openLoop(Peer.Sender sender, long start, Histogram lateness) throws Exception {
        final long measure = run.measureNs();
        final long step = SECOND_NS / o.rate;
        final long stepRest = SECOND_NS % o.rate;
        long rest = 0;
        long sequence = 0;
        for (long intended = start; intended <= run.endNs(); intended += step) {
            if (!awaitIntended(intended)) {
                return sequence;
            }
            final long word1 = Payload.word1(o.index, sequence);
            while (!sender.trySend(intended, word1)) {
                if (run.stopped()) {
                    return sequence;
                }
                Thread.onSpinWait();
            }
            if (lateness != null && intended >= measure) {
                Checker.record(lateness, System.nanoTime() - intended);
            }
            sequence++;
            rest += stepRest;
            if (rest >= o.rate) {
                rest -= o.rate;
                intended++;
            }
        }
        return sequence;
    }

    /** Spins, or with blocking waits sleeps while the time is far; false: stopped. */
    private boolean awaitIntended(long intended) {
        long left;
        while ((left = intended - System.nanoTime()) > 0) {
            if (run.stopped()) {
                return false;
            }
            if (o.block && left > SLEEP_SLACK_NS) {
                LockSupport.parkNanos(left - SLEEP_SLACK_NS);
            } else {
                Thread.onSpinWait();
            }
        }
        return !run.stopped();
    }

    Checker consume() throws Exception {
        try (Peer.Receiver receiver = peer.receiver(Peer.Stream.DATA)) {
            peer.awaitConnected();
            run.ready();
            boolean started = run.awaitSchedule();
            Checker checker = new Checker(o.size, run.measureNs(), o.rate == 0,
                o.mode.startsWith("replay"));
            if (started) {
                receiveAll(receiver, checker);
            }
            return checker;
        }
    }

    private void receiveAll(Peer.Receiver receiver, Checker checker) throws Exception {
        final int look = o.block || receiver.waits() ? 0 : SPINS_BETWEEN_LOOKS;
        int spins = 0;
        long quietSince = 0;
        while (!run.stopped()) {
            if (receiver.poll(checker) > 0) {
                idle.reset();
                quietSince = 0;
                continue;
            }
            if (!receiver.waits()) {
                idle.idle();
            }
            if ((++spins & look) != 0) {
                continue;
            }
            final long sent = run.sentByAll();
            if (sent < 0) {
                continue;
            }
            final long now = System.nanoTime();
            if (quietSince == 0) {
                quietSince = now;
            }
            if (checker.distinct() >= sent || now - quietSince > LOST_AFTER_NS) {
                return;
            }
        }
    }

    Checker ping() throws Exception {
        try (Peer.Sender sender = peer.sender(Peer.Stream.PING);
             Peer.Receiver receiver = peer.receiver(Peer.Stream.PONG)) {
            peer.awaitConnected();
            run.ready();
            long start = run.awaitStart();
            Checker checker = new Checker(o.size, run.measureNs(), false, false);
            long sent = 0;
            while (start >= 0 && System.nanoTime() <= run.endNs() && !run.stopped()) {
                final long word1 = Payload.word1(o.index, sent);
                while (!sender.trySend(System.nanoTime(), word1)) {
                    Thread.onSpinWait();
                }
                sent++;
                if (!awaitAnswer(receiver, checker)) {
                    break;
                }
            }
            run.done(o.index, sent);
            return checker;
        }
    }

    private boolean awaitAnswer(Peer.Receiver receiver, Checker checker) throws Exception {
        final long before = checker.received;
        final long since = System.nanoTime();
        idle.reset();
        while (true) {
            receiver.poll(checker);
            if (checker.received != before) {
                return true;
            }
            if (run.stopped() || System.nanoTime() - since > LOST_AFTER_NS) {
                return false;
            }
            if (!receiver.waits()) {
                idle.idle();
            }
        }
    }

    void pong() throws Exception {
        try (Peer.Receiver receiver = peer.receiver(Peer.Stream.PING);
             Peer.Sender sender = peer.sender(Peer.Stream.PONG)) {
            peer.awaitConnected();
            Peer.Handler back = (buffer, offset, length) -> sendBack(sender, buffer, offset, length);
            run.ready();
            if (!run.awaitSchedule()) {
                return;
            }
            final long give = run.endNs() + LOST_AFTER_NS;
            while (!run.stopped() && !run.isDone(o.index) && System.nanoTime() < give) {
                if (receiver.poll(back) > 0) {
                    idle.reset();
                } else if (!receiver.waits()) {
                    idle.idle();
                }
            }
        }
    }

    private void sendBack(Peer.Sender sender, org.agrona.DirectBuffer buffer, int offset, int length) {
        try {
            while (!sender.trySend(buffer, offset, length)) {
                if (run.stopped()) {
                    return;
                }
                Thread.onSpinWait();
            }
        } catch (Exception e) {
            throw new IllegalStateException(e.getMessage(), e);
        }
    }
}

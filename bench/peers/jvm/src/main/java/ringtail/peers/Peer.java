package ringtail.peers;

import org.agrona.DirectBuffer;

/** One system under test. A process makes one peer and uses it in one role. */
interface Peer extends AutoCloseable {
    /** The streams of a run. */
    enum Stream { DATA, PING, PONG }

    /** What is sent to a stream. */
    interface Sender extends AutoCloseable {
        /** Sends one record built from its first two words; false: no room now, try again. */
        boolean trySend(long time, long word1) throws Exception;

        /** Sends the bytes of another record; false: no room now, try again. */
        boolean trySend(DirectBuffer from, int offset, int length) throws Exception;

        /** Returns when all that was sent is where the system promises to have it. */
        default void flush() throws Exception {
        }

        @Override
        default void close() throws Exception {
        }
    }

    /** What a receiver hands each record to; the memory is the system's and lent for the call. */
    interface Handler {
        void onRecord(DirectBuffer buffer, int offset, int length);
    }

    /** What is received from a stream. */
    interface Receiver extends AutoCloseable {
        /** Hands over what is there, returns how many records; may wait a little when asked to block. */
        int poll(Handler handler) throws Exception;

        /** True where poll itself waits, so that nobody needs to idle between two of them. */
        default boolean waits() {
            return false;
        }

        @Override
        default void close() throws Exception {
        }
    }

    Sender sender(Stream stream) throws Exception;

    Receiver receiver(Stream stream) throws Exception;

    /** Returns when both ends of what was opened above can carry records at once. */
    default void awaitConnected() throws Exception {
    }

    /** Starts what the system needs beside it; returns when it is usable. */
    default void serve() throws Exception {
    }

    /** What a reader of the results has to know about this row. */
    String note();

    @Override
    default void close() throws Exception {
    }
}

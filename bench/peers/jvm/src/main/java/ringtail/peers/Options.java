package ringtail.peers;

import java.nio.file.Path;

/** The command line of a peer: SYSTEM ROLE and the options of the peers' protocol. */
final class Options {
    String system;
    String role;
    Path run;
    Path dir;
    Path hist;
    int index;
    int size = 64;
    long rate;
    boolean block;
    int batch = 1;
    String mode = "";
    int cpu = -1;

    static Options parse(String[] args) {
        if (args.length < 2) {
            throw new UsageException("wanted: SYSTEM ROLE [--run FILE --dir DIR ...]");
        }
        Options o = new Options();
        o.system = args[0];
        o.role = args[1];
        for (int i = 2; i < args.length; i += 2) {
            if (i + 1 == args.length) {
                throw new UsageException(args[i] + " wants a value");
            }
            o.set(args[i], args[i + 1]);
        }
        o.check();
        return o;
    }

    private void set(String name, String value) {
        try {
            switch (name) {
                case "--run" -> run = Path.of(value);
                case "--dir" -> dir = Path.of(value);
                case "--hist" -> hist = Path.of(value);
                case "--index" -> index = Integer.parseInt(value);
                case "--size" -> size = Integer.parseInt(value);
                case "--rate" -> rate = Long.parseLong(value);
                case "--wait" -> block = waits(value);
                case "--batch" -> batch = Integer.parseInt(value);
                case "--mode" -> mode = value;
                case "--cpu" -> cpu = Integer.parseInt(value);
                default -> throw new UsageException("no such option: " + name);
            }
        } catch (NumberFormatException e) {
            throw new UsageException(name + " wants a number, not " + value);
        }
    }

    private static boolean waits(String value) {
        if (!value.equals("spin") && !value.equals("block")) {
            throw new UsageException("--wait is spin or block, not " + value);
        }
        return value.equals("block");
    }

    private void check() {
        if (role.equals("version")) {
            return;
        }
        if (dir == null) {
            throw new UsageException("--dir DIR is wanted");
        }
        if (run == null && !role.equals("serve")) {
            throw new UsageException("--run FILE is wanted");
        }
        if (size < 32 || size % 8 != 0) {
            throw new UsageException("--size is 32 or more and a multiple of 8, not " + size);
        }
        if (index < 0 || index >= RunFile.MAX_PRODUCERS) {
            throw new UsageException("--index is 0 to " + (RunFile.MAX_PRODUCERS - 1) + ", not " + index);
        }
        if (rate < 0 || rate > 1_000_000_000L) {
            throw new UsageException("--rate is 0 to 1000000000 records/s, not " + rate);
        }
    }

    /** What is wrong with the command line. */
    static final class UsageException extends RuntimeException {
        private static final long serialVersionUID = 1L;

        UsageException(String what) {
            super(what);
        }
    }
}

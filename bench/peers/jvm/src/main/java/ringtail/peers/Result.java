package ringtail.peers;

import com.sun.management.OperatingSystemMXBean;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import org.HdrHistogram.Histogram;
import org.HdrHistogram.HistogramIterationValue;

/** Writes the result of a role as one JSON object. */
final class Result {
    private Result() {
    }

    /** What a reader has received; `ended`: it was not stopped before all had come. */
    static void write(Options o, String version, String note, RunFile run, Checker c, boolean ended)
        throws IOException {
        if (o.hist == null) {
            return;
        }
        StringBuilder json = begin(o, version);
        number(json, "received", c.received);
        number(json, "warmup", c.warmup);
        number(json, "lost", ended ? c.lost(run) : c.skipped);
        number(json, "duplicated", c.duplicated);
        number(json, "reordered", c.reordered);
        number(json, "corrupt", c.corrupt);
        number(json, "first_ns", c.firstNs);
        number(json, "last_ns", c.lastNs);
        number(json, "measured", c.measured);
        histogram(json, c.histogram);
        end(o, json, note);
    }

    /** What a producer has sent, and how long after its intended time each send returned. */
    static void write(Options o, String version, String note, Roles.Production p) throws IOException {
        if (o.hist == null) {
            return;
        }
        StringBuilder json = begin(o, version);
        number(json, "sent", p.sent());
        histogram(json, p.lateness());
        end(o, json, note);
    }

    private static StringBuilder begin(Options o, String version) {
        StringBuilder json = new StringBuilder(1 << 16);
        json.append('{');
        text(json, "peer", o.system);
        text(json, "version", version);
        text(json, "role", o.role);
        number(json, "index", o.index);
        number(json, "size", o.size);
        number(json, "rate", o.rate);
        text(json, "mode", o.mode);
        text(json, "wait", o.block ? "block" : "spin");
        return json;
    }

    private static void end(Options o, StringBuilder json, String note) throws IOException {
        number(json, "cpu_ns", cpuNs());
        number(json, "max_rss_kib", maxRssKib());
        text(json, "note", note);
        json.setCharAt(json.length() - 1, '}');
        json.append('\n');
        writeWhole(o.hist, json.toString());
    }

    /** Writes beside the name and renames, so that a reader never sees half a file. */
    static void writeWhole(Path file, String text) throws IOException {
        Path part = file.resolveSibling(file.getFileName() + ".part");
        Files.writeString(part, text);
        Files.move(part, file, java.nio.file.StandardCopyOption.REPLACE_EXISTING);
    }

    private static void histogram(StringBuilder json, Histogram histogram) {
        json.append("\"histogram\":[");
        String comma = "";
        for (HistogramIterationValue v : histogram.recordedValues()) {
            json.append(comma).append('[')
                .append(histogram.highestEquivalentValue(v.getValueIteratedTo())).append(',')
                .append(v.getCountAtValueIteratedTo()).append(']');
            comma = ",";
        }
        json.append("],");
    }

    private static void text(StringBuilder json, String name, String value) {
        json.append('"').append(name).append("\":\"")
            .append(value.replace("\\", "\\\\").replace("\"", "\\\"")).append("\",");
    }

    private static void number(StringBuilder json, String name, long value) {
        json.append('"').append(name).append("\":").append(value).append(',');
    }

    private static long cpuNs() {
        return ((OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean())
            .getProcessCpuTime();
    }

    private static long maxRssKib() throws IOException {
        for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
            if (line.startsWith("VmHWM:")) {
                return Long.parseLong(line.replaceAll("[^0-9]", ""));
            }
        }
        return 0;
    }
}

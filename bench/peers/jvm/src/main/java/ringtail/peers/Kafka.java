package ringtail.peers;

import java.io.IOException;
import java.io.PrintStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Properties;
import kafka.tools.StorageTool;
import org.agrona.DirectBuffer;
import org.agrona.concurrent.UnsafeBuffer;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.Callback;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Apache Kafka: one real broker that is its own controller (KRaft), over loopback. */
final class Kafka implements Peer {
    private static final List<String> MODES = List.of("", "acks1", "acksall", "durable", "replay");
    private static final long START_NS = 60_000_000_000L;
    private static final Duration BLOCKING_POLL = Duration.ofMillis(100);

    private final Options options;
    private final Path bootstrapFile;
    private volatile boolean ready;
    private boolean serving;

    Kafka(Options options) {
        this.options = options;
        this.bootstrapFile = options.dir.resolve("kafka.bootstrap");
        if (!MODES.contains(options.mode)) {
            throw new Options.UsageException(
                "kafka's --mode is acks1, acksall, durable or replay, not " + options.mode);
        }
    }

    private boolean durable() {
        return options.mode.equals("durable");
    }

    private boolean acksAll() {
        return durable() || options.mode.equals("acksall");
    }

    private static String topic(Stream stream) {
        return "bench-" + stream.name().toLowerCase(Locale.ROOT);
    }

    @Override
    public void serve() throws Exception {
        serving = true;
        List<Integer> ports = freePorts();
        Path config = writeConfig(ports.get(0), ports.get(1));
        try (PrintStream to = new PrintStream(options.dir.resolve("format.log").toFile(), "UTF-8")) {
            String[] format = {"format", "--cluster-id", Uuid.randomUuid().toString(),
                "--config", config.toString()};
            if (StorageTool.execute(format, to) != 0) {
                throw new IOException("kafka.tools.StorageTool failed: see " + options.dir + "/format.log");
            }
        }
        Thread broker = new Thread(() -> kafka.Kafka.main(new String[] {config.toString()}), "broker");
        broker.setDaemon(true);
        broker.start();
        String bootstrap = "127.0.0.1:" + ports.get(0);
        createTopics(bootstrap);
        ready = true;
        Result.writeWhole(bootstrapFile, bootstrap);
    }

    private static List<Integer> freePorts() throws IOException {
        List<Integer> ports = new ArrayList<>();
        InetAddress loopback = InetAddress.getLoopbackAddress();
        try (ServerSocket a = new ServerSocket(0, 1, loopback);
             ServerSocket b = new ServerSocket(0, 1, loopback)) {
            ports.add(a.getLocalPort());
            ports.add(b.getLocalPort());
        }
        return ports;
    }

    private Path writeConfig(int port, int controllerPort) throws IOException {
        Properties p = new Properties();
        p.setProperty("process.roles", "broker,controller");
        p.setProperty("node.id", "1");
        p.setProperty("controller.quorum.voters", "1@127.0.0.1:" + controllerPort);
        p.setProperty("listeners", "PLAINTEXT://127.0.0.1:" + port
            + ",CONTROLLER://127.0.0.1:" + controllerPort);
        p.setProperty("advertised.listeners", "PLAINTEXT://127.0.0.1:" + port);
        p.setProperty("controller.listener.names", "CONTROLLER");
        p.setProperty("inter.broker.listener.name", "PLAINTEXT");
        p.setProperty("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT");
        p.setProperty("log.dirs", options.dir.toAbsolutePath().resolve("kafka").toString());
        p.setProperty("auto.create.topics.enable", "false");
        p.setProperty("offsets.topic.replication.factor", "1");
        p.setProperty("transaction.state.log.replication.factor", "1");
        p.setProperty("transaction.state.log.min.isr", "1");
        Path file = options.dir.toAbsolutePath().resolve("server.properties");
        try (java.io.Writer to = Files.newBufferedWriter(file)) {
            p.store(to, null);
        }
        return file;
    }

    private void createTopics(String bootstrap) throws Exception {
        Map<String, String> config = durable() ? Map.of("flush.messages", "1") : Map.of();
        List<NewTopic> topics = new ArrayList<>();
        for (Stream stream : Stream.values()) {
            topics.add(new NewTopic(topic(stream), 1, (short) 1).configs(config));
        }
        Properties p = client(bootstrap);
        p.put("default.api.timeout.ms", (int) (START_NS / 1_000_000));
        try (Admin admin = Admin.create(p)) {
            admin.createTopics(topics).all().get();
        }
    }

    private static Properties client(String bootstrap) {
        Properties p = new Properties();
        p.put("bootstrap.servers", bootstrap);
        p.put("enable.metrics.push", "false");
        return p;
    }

    private String bootstrap() throws Exception {
        try {
            return Files.readString(bootstrapFile);
        } catch (NoSuchFileException e) {
            throw new Main.UnavailableException(
                "no broker in " + options.dir + ": start `peer kafka serve --dir " + options.dir + "` first");
        }
    }

    @Override
    public Sender sender(Stream stream) throws Exception {
        boolean saturate = stream == Stream.DATA && options.rate == 0;
        Properties p = client(bootstrap());
        p.put("key.serializer", ByteArraySerializer.class.getName());
        p.put("value.serializer", ByteArraySerializer.class.getName());
        p.put("acks", acksAll() ? "all" : "1");
        p.put("enable.idempotence", String.valueOf(acksAll()));
        p.put("linger.ms", saturate ? "5" : "0");
        p.put("batch.size", saturate ? "262144" : "16384");
        p.put("buffer.memory", String.valueOf(64 << 20));
        if (!acksAll()) {
            // A repeated batch could be overtaken by a later one; here a failure is reported instead.
            p.put("retries", "0");
        }
        return new ProducerSender(new KafkaProducer<>(p), topic(stream), options.size);
    }

    @Override
    public Receiver receiver(Stream stream) throws Exception {
        Properties p = client(bootstrap());
        p.put("key.deserializer", ByteArrayDeserializer.class.getName());
        p.put("value.deserializer", ByteArrayDeserializer.class.getName());
        p.put("enable.auto.commit", "false");
        p.put("auto.offset.reset", "earliest");
        p.put("fetch.min.bytes", "1");
        KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(p);
        TopicPartition partition = new TopicPartition(topic(stream), 0);
        consumer.assign(List.of(partition));
        consumer.seekToBeginning(List.of(partition));
        consumer.position(partition);
        return new ConsumerReceiver(consumer, options.block);
    }

    @Override
    public String note() {
        String synced = durable() ? "flush.messages=1: synced before the acknowledgement and before readers see it"
            : "page cache, synced by the kernel";
        return "1 broker, 1 partition, acks=" + (acksAll() ? "all (of one replica)" : "1") + "; " + synced
            + "; the client batches by itself";
    }

    @Override
    public void close() throws Exception {
        if (serving) {
            Files.deleteIfExists(bootstrapFile);
            if (!ready) {
                System.err.println("peer: the broker did not start: see " + options.dir + "/serve-0.log");
            }
        }
    }

    private static final class ProducerSender implements Sender {
        private final KafkaProducer<byte[], byte[]> producer;
        private final String topic;
        private final byte[] bytes;
        private final UnsafeBuffer buffer;
        private volatile Exception failure;
        private final Callback onDone = (metadata, e) -> {
            if (e != null) {
                failure = e;
            }
        };

        ProducerSender(KafkaProducer<byte[], byte[]> producer, String topic, int size) {
            this.producer = producer;
            this.topic = topic;
            this.bytes = new byte[size];
            this.buffer = new UnsafeBuffer(bytes);
            producer.partitionsFor(topic);
        }

        /** send() copies the bytes into its batch before it returns, and waits where that is full. */
        private boolean send() throws Exception {
            producer.send(new ProducerRecord<>(topic, 0, null, bytes), onDone);
            if (failure != null) {
                throw failure;
            }
            return true;
        }

        @Override
        public boolean trySend(long time, long word1) throws Exception {
            Payload.fill(buffer, 0, bytes.length, time, word1);
            return send();
        }

        @Override
        public boolean trySend(DirectBuffer from, int offset, int length) throws Exception {
            from.getBytes(offset, bytes, 0, length);
            return send();
        }

        @Override
        public void flush() throws Exception {
            producer.flush();
            if (failure != null) {
                throw failure;
            }
        }

        @Override
        public void close() {
            producer.close(Duration.ofSeconds(5));
        }
    }

    private static final class ConsumerReceiver implements Receiver {
        private final KafkaConsumer<byte[], byte[]> consumer;
        private final UnsafeBuffer buffer = new UnsafeBuffer(0, 0);
        private final Duration timeout;

        ConsumerReceiver(KafkaConsumer<byte[], byte[]> consumer, boolean block) {
            this.consumer = consumer;
            this.timeout = block ? BLOCKING_POLL : Duration.ZERO;
        }

        @Override
        public int poll(Handler handler) {
            ConsumerRecords<byte[], byte[]> records = consumer.poll(timeout);
            for (ConsumerRecord<byte[], byte[]> record : records) {
                buffer.wrap(record.value());
                handler.onRecord(buffer, 0, record.value().length);
            }
            return records.count();
        }

        @Override
        public boolean waits() {
            return !timeout.isZero();
        }

        @Override
        public void close() {
            consumer.close();
        }
    }
}

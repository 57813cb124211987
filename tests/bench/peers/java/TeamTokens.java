import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Locale;
import java.util.Properties;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.state.WindowStore;

/**
 * A peer of the pipeline: Kafka Streams, one thread, at least once, a tumbling window of tokens by team, one threshold.
 *
 * <p>Its window store is in memory, with the record cache and the changelog that Kafka Streams has by default. Arguments:
 * bootstrap, topic, Avro schema file, folder, events of the warm-up, events in all.
 */
public final class TeamTokens {
  private static final int FRAME = 5;
  private static final Duration WINDOW = Duration.ofSeconds(60);
  private static final long THRESHOLD = 100_000_000L;

  private static final Serializer<GenericRecord> NONE_WRITTEN =
      (topic, event) -> {
        throw new UnsupportedOperationException("no event is written");
      };

  private final long warm;
  private final long events;
  private long seen;
  private long beganCpu;
  private long beganWall;

  private TeamTokens(long warm, long events) {
    this.warm = warm;
    this.events = events;
  }

  public static void main(String[] arguments) throws Exception {
    Schema schema = new Schema.Parser().parse(Files.readString(Path.of(arguments[2])));
    TeamTokens meter = new TeamTokens(Long.parseLong(arguments[4]), Long.parseLong(arguments[5]));
    Properties settings = new Properties();
    settings.put(StreamsConfig.APPLICATION_ID_CONFIG, "peer-streams");
    settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
    settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[3]);
    settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
    settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
    settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
    StreamsBuilder builder = new StreamsBuilder();
    builder
        .stream(
            arguments[1],
            Consumed.with(Serdes.String(), Serdes.serdeFrom(NONE_WRITTEN, events(schema)))
                .withTimestampExtractor((record, before) -> timeOf((GenericRecord) record.value(), before)))
        .filter((team, event) -> event != null) // a tick
        .peek((team, event) -> meter.count())
        .mapValues(event -> (Long) event.get("input_tokens") + (Long) event.get("output_tokens"))
        .groupByKey(Grouped.with(Serdes.String(), Serdes.Long()))
        .windowedBy(TimeWindows.ofSizeWithNoGrace(WINDOW))
        .reduce(Long::sum, Materialized.<String, Long, WindowStore<Bytes, byte[]>>with(Serdes.String(), Serdes.Long())
            .withStoreType(Materialized.StoreType.IN_MEMORY))
        .toStream()
        .filter((window, tokens) -> tokens > THRESHOLD)
        .foreach((window, tokens) -> System.err.println(window + " " + tokens));
    KafkaStreams streams = new KafkaStreams(builder.build(), settings);
    streams.setUncaughtExceptionHandler(TeamTokens::fail);
    streams.start();
  }

  private static StreamThreadExceptionResponse fail(Throwable error) {
    error.printStackTrace();
    Runtime.getRuntime().halt(1);
    return StreamThreadExceptionResponse.SHUTDOWN_APPLICATION;
  }

  private static long timeOf(GenericRecord event, long before) {
    return event == null ? Math.max(before, 0) : (Long) event.get("time") / 1_000; // microseconds
  }

  private static Deserializer<GenericRecord> events(Schema schema) {
    GenericDatumReader<GenericRecord> reader = new GenericDatumReader<>(schema);
    BinaryDecoder[] decoder = new BinaryDecoder[1];
    return (topic, value) -> {
      if (value == null || value.length <= FRAME) {
        return null; // a tick
      }
      decoder[0] = DecoderFactory.get().binaryDecoder(value, FRAME, value.length - FRAME, decoder[0]);
      try {
        return reader.read(null, decoder[0]);
      } catch (java.io.IOException error) {
        throw new java.io.UncheckedIOException(error);
      }
    };
  }

  private void count() {
    seen++;
    if (seen == warm) {
      beganCpu = cpuNanos();
      beganWall = System.nanoTime();
    } else if (seen == events) {
      tell((cpuNanos() - beganCpu) / 1e3, (System.nanoTime() - beganWall) / 1e9);
    }
  }

  private void tell(double cpuMicros, double wall) {
    long n = events - warm;
    System.out.printf(
        Locale.ROOT,
        "{\"cpu_us_per_event\": %f, \"events_per_s\": %f, \"peak_rss_mb\": %f, \"events\": %d}%n",
        cpuMicros / n, n / wall, peakMegabytes(), n);
    System.out.flush();
    Runtime.getRuntime().halt(0);
  }

  private static long cpuNanos() {
    return ((com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime();
  }

  private static double peakMegabytes() {
    try {
      for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
        if (line.startsWith("VmHWM")) {
          return Long.parseLong(line.replaceAll("\\D+", "")) / 1024.0;
        }
      }
    } catch (java.io.IOException error) {
      throw new java.io.UncheckedIOException(error);
    }
    return Double.NaN;
  }
}

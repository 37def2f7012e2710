// Explains one image and text: java Explain HOST:PORT IMAGE TEXT [OVERLAY.png]
//
// TLS and token from the environment: M2IB_TLS_CA (a PEM file) and M2IB_TOKEN. A DICOM file is sent as it is: strip the
// patient's identifiers before, as the Python client does.

import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.ErrorInfo;
import com.google.rpc.Status;
import io.grpc.ChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import java.io.File;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import m2ib.v1.Attribution.Explanation;
import m2ib.v1.Attribution.ExplainRequest;
import m2ib.v1.Attribution.Image;
import m2ib.v1.Attribution.Output;
import m2ib.v1.Attribution.WordScore;
import m2ib.v1.AttributionServiceGrpc;
import m2ib.v1.SettingsOuterClass.Affine;
import m2ib.v1.SettingsOuterClass.Effort;
import m2ib.v1.SettingsOuterClass.FloatTensor;
import m2ib.v1.SettingsOuterClass.Settings;

public final class Explain {
  private static final int MAX_MESSAGE_BYTES = 64 * 1024 * 1024; // the server's own default
  private static final long TIMEOUT_SECONDS = 60;

  // Both statuses come with grpc-retry-pushback-ms, which the library obeys. Answers depend on the request alone, so a
  // repeated one is safe.
  private static final Map<String, ?> SERVICE_CONFIG =
      Map.of(
          "methodConfig",
          List.of(
              Map.of(
                  "name", List.of(Map.of("service", "m2ib.v1.AttributionService")),
                  "retryPolicy",
                      Map.of(
                          "maxAttempts", 4.0,
                          "initialBackoff", "0.2s",
                          "maxBackoff", "5s",
                          "backoffMultiplier", 3.0,
                          "retryableStatusCodes", List.of("UNAVAILABLE", "RESOURCE_EXHAUSTED")))),
          "retryThrottling", Map.of("maxTokens", 10.0, "tokenRatio", 0.5));

  public static void main(String[] arguments) throws Exception {
    if (arguments.length < 3) {
      System.err.println("usage: java Explain HOST:PORT IMAGE TEXT [OVERLAY.png]");
      System.exit(2);
    }
    ManagedChannel channel = open(arguments[0]);
    try {
      byte[] image = Files.readAllBytes(Path.of(arguments[1]));
      Explanation explanation = explain(channel, image, arguments[2]);
      print(explanation);
      if (arguments.length > 3) {
        Files.write(Path.of(arguments[3]), explanation.getImage().getOverlayPng().toByteArray());
      }
    } catch (StatusRuntimeException failure) {
      System.err.println(worded(failure));
      System.exit(1);
    } finally {
      channel.shutdownNow();
    }
  }

  private static ManagedChannel open(String address) throws IOException {
    String authority = System.getenv("M2IB_TLS_CA");
    ChannelCredentials credentials =
        authority == null
            ? InsecureChannelCredentials.create()
            : TlsChannelCredentials.newBuilder().trustManager(new File(authority)).build();
    return Grpc.newChannelBuilder(address, credentials)
        .maxInboundMessageSize(MAX_MESSAGE_BYTES)
        .keepAliveTime(30, TimeUnit.SECONDS) // a server cuts off who asks more often than every 10 s
        .perRpcBufferLimit(MAX_MESSAGE_BYTES) // a request above it is never repeated
        .retryBufferSize(4L * MAX_MESSAGE_BYTES)
        .defaultServiceConfig(SERVICE_CONFIG)
        .enableRetry()
        .build();
  }

  private static Explanation explain(ManagedChannel channel, byte[] image, String text)
      throws GeneralSecurityException {
    ExplainRequest.Builder request =
        ExplainRequest.newBuilder()
            .setImage(Image.newBuilder().setEncoded(ByteString.copyFrom(image)))
            .setText(text)
            .setSettings(Settings.newBuilder().setEffort(Effort.EFFORT_SPECIFIC))
            .addOutputs(Output.OUTPUT_OVERLAY);
    String model = System.getenv("M2IB_MODEL"); // not needed where the server has only one
    if (model != null) {
      request.setModel(model);
    }
    return AttributionServiceGrpc.newBlockingStub(channel)
        .withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers(image)))
        .withDeadlineAfter(TIMEOUT_SECONDS, TimeUnit.SECONDS)
        .explain(request.build())
        .getExplanation();
  }

  private static Metadata headers(byte[] image) throws GeneralSecurityException {
    Metadata headers = new Metadata();
    String token = System.getenv("M2IB_TOKEN");
    if (token != null && System.getenv("M2IB_TLS_CA") != null) { // over TLS only
      headers.put(key("authorization"), "Bearer " + token);
    }
    // Lets a proxy keep calls about one image on one server.
    StringBuilder digest = new StringBuilder();
    for (byte part : MessageDigest.getInstance("SHA-256").digest(image)) {
      digest.append(String.format("%02x", part));
    }
    headers.put(key("x-affinity"), digest.toString());
    return headers;
  }

  private static Metadata.Key<String> key(String name) {
    return Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER);
  }

  private static void print(Explanation explanation) {
    FloatTensor grid = explanation.getImage().getGridBits(); // bits per patch, comparable between images
    int columns = grid.getShape(1);
    FloatBuffer bits =
        ByteBuffer.wrap(grid.getData().toByteArray()).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer();
    int brightest = 0;
    for (int at = 1; at < bits.limit(); at++) {
      brightest = bits.get(at) > bits.get(brightest) ? at : brightest;
    }
    Affine affine = explanation.getImage().getGridToOriginal();
    double x = brightest % columns + 0.5;
    double y = brightest / columns + 0.5;
    System.out.printf("similarity %.3f%n", explanation.getSimilarity());
    System.out.printf(
        "brightest patch: %.3f bits around pixel (%.0f, %.0f)%n",
        bits.get(brightest),
        affine.getXx() * x + affine.getXy() * y + affine.getX0(),
        affine.getYx() * x + affine.getYy() * y + affine.getY0());
    for (WordScore word : explanation.getText().getWordsList()) {
      System.out.printf("%.3f bits  %s%n", word.getBits(), word.getText());
    }
  }

  private static String worded(StatusRuntimeException failure) throws InvalidProtocolBufferException {
    ErrorInfo info = ErrorInfo.getDefaultInstance();
    Status status = StatusProto.fromThrowable(failure);
    if (status != null) {
      for (com.google.protobuf.Any detail : status.getDetailsList()) {
        if (detail.is(ErrorInfo.class)) { // BadRequest, ResourceInfo, QuotaFailure and RetryInfo come the same way
          info = detail.unpack(ErrorInfo.class);
        }
      }
    }
    return String.format(
        "%s %s: %s (request %s)",
        failure.getStatus().getCode(),
        info.getReason(), // stable: write your cases for it
        failure.getStatus().getDescription(),
        info.getMetadataOrDefault("request_id", "")); // the server's log has more under it
  }
}

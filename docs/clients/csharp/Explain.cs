// Explains one image and text: dotnet run -- https://HOST:PORT IMAGE TEXT [OVERLAY.png]
//
// TLS and token from the environment: M2IB_TLS_CA (a PEM file) and M2IB_TOKEN. A DICOM file is sent as it is: strip the
// patient's identifiers before, as the Python client does.

using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Google.Protobuf;
using Google.Rpc;
using Grpc.Core;
using Grpc.Net.Client;
using Grpc.Net.Client.Configuration;
using M2Ib.V1;

const int MaxMessageBytes = 64 * 1024 * 1024; // the server's own default
const int TimeoutSeconds = 60;

if (args.Length < 3)
{
    Console.Error.WriteLine("usage: dotnet run -- https://HOST:PORT IMAGE TEXT [OVERLAY.png]");
    return 2;
}

using var channel = Open(args[0]);
var client = new AttributionService.AttributionServiceClient(channel);
var image = await File.ReadAllBytesAsync(args[1]);
var request = new ExplainRequest
{
    Image = new Image { Encoded = ByteString.CopyFrom(image) },
    Text = args[2],
    Settings = new Settings { Effort = Effort.Specific },
    Outputs = { Output.Overlay },
};
if (Environment.GetEnvironmentVariable("M2IB_MODEL") is { } model)
{
    request.Model = model; // not needed where the server has only one
}

try
{
    var deadline = DateTime.UtcNow.AddSeconds(TimeoutSeconds);
    var answer = await client.ExplainAsync(request, Headers(image), deadline);
    Print(answer.Explanation);
    if (args.Length > 3)
    {
        await File.WriteAllBytesAsync(args[3], answer.Explanation.Image.OverlayPng.ToByteArray());
    }
    return 0;
}
catch (RpcException failure)
{
    // BadRequest, ResourceInfo, QuotaFailure and RetryInfo come the same way.
    var info = failure.GetRpcStatus()?.GetDetail<ErrorInfo>();
    var requestId = ""; // the server's log has more under it
    info?.Metadata.TryGetValue("request_id", out requestId);
    // The reason is stable: write your cases for it.
    Console.Error.WriteLine($"{failure.StatusCode} {info?.Reason}: {failure.Status.Detail} (request {requestId})");
    return 1;
}

static GrpcChannel Open(string address)
{
    var handler = new SocketsHttpHandler
    {
        KeepAlivePingDelay = TimeSpan.FromSeconds(30), // a server cuts off who asks more often than every 10 s
        UseProxy = false, // images of patients go through no proxy that the environment names
    };
    if (Environment.GetEnvironmentVariable("M2IB_TLS_CA") is { } authority)
    {
        handler.SslOptions.CertificateChainPolicy = new X509ChainPolicy
        {
            TrustMode = X509ChainTrustMode.CustomRootTrust,
            RevocationMode = X509RevocationMode.NoCheck,
            CustomTrustStore = { X509Certificate2.CreateFromPem(File.ReadAllText(authority)) },
        };
    }
    // Both statuses come with grpc-retry-pushback-ms, which the library obeys. Answers depend on the request alone, so a
    // repeated one is safe.
    var retry = new RetryPolicy
    {
        MaxAttempts = 4,
        InitialBackoff = TimeSpan.FromSeconds(0.2),
        MaxBackoff = TimeSpan.FromSeconds(5),
        BackoffMultiplier = 3,
        RetryableStatusCodes = { StatusCode.Unavailable, StatusCode.ResourceExhausted },
    };
    return GrpcChannel.ForAddress(address, new GrpcChannelOptions
    {
        HttpHandler = handler,
        MaxSendMessageSize = MaxMessageBytes,
        MaxReceiveMessageSize = MaxMessageBytes,
        MaxRetryBufferPerCallSize = MaxMessageBytes, // a request above it is never repeated
        MaxRetryBufferSize = 4L * MaxMessageBytes,
        ServiceConfig = new ServiceConfig
        {
            MethodConfigs = { new MethodConfig { Names = { MethodName.Default }, RetryPolicy = retry } },
            RetryThrottling = new RetryThrottlingPolicy { MaxTokens = 10, TokenRatio = 0.5 },
        },
    });
}

static Metadata Headers(byte[] image)
{
    // Lets a proxy keep calls about one image on one server.
    var headers = new Metadata { { "x-affinity", Convert.ToHexString(SHA256.HashData(image)).ToLowerInvariant() } };
    var authority = Environment.GetEnvironmentVariable("M2IB_TLS_CA");
    if (authority is not null && Environment.GetEnvironmentVariable("M2IB_TOKEN") is { } token)
    {
        headers.Add("authorization", $"Bearer {token}"); // over TLS only
    }
    return headers;
}

static void Print(Explanation explanation)
{
    var grid = explanation.Image.GridBits; // bits per patch, comparable between images
    var columns = (int)grid.Shape[1];
    var bytes = grid.Data.ToByteArray();
    var brightest = 0;
    for (var at = 1; at < bytes.Length / 4; at++)
    {
        brightest = Bits(bytes, at) > Bits(bytes, brightest) ? at : brightest;
    }
    var affine = explanation.Image.GridToOriginal;
    var (x, y) = (brightest % columns + 0.5, brightest / columns + 0.5);
    var (left, top) = (affine.Xx * x + affine.Xy * y + affine.X0, affine.Yx * x + affine.Yy * y + affine.Y0);
    Console.WriteLine($"similarity {explanation.Similarity:F3}");
    Console.WriteLine($"brightest patch: {Bits(bytes, brightest):F3} bits around pixel ({left:F0}, {top:F0})");
    foreach (var word in explanation.Text.Words)
    {
        Console.WriteLine($"{word.Bits:F3} bits  {word.Text}");
    }
}

static float Bits(byte[] data, int at) =>
    System.Buffers.Binary.BinaryPrimitives.ReadSingleLittleEndian(data.AsSpan(4 * at, 4));

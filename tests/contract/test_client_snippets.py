"""Holds the clients in other languages to the wire contract: a name that they use is one that it has."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_tools import protoc

from m2ib.v1 import attribution_pb2, settings_pb2

CLIENTS = Path(__file__).parents[2] / "docs/clients"
NODE = CLIENTS / "node"
FILES = (attribution_pb2, settings_pb2, status_pb2, error_details_pb2)

# What the C# example names of .NET and of gRPC's own packages.
DOTNET = {
    "Add",
    "AddSeconds",
    "AsSpan",
    "Attributes",
    "BackoffMultiplier",
    "BinaryPrimitives",
    "Binary",
    "Buffers",
    "CertificateChainPolicy",
    "Configuration",
    "Client",
    "Collections",
    "Console",
    "Core",
    "CopyFrom",
    "CreateFromPem",
    "Cryptography",
    "CustomRootTrust",
    "CustomTrustStore",
    "Default",
    "Detail",
    "Error",
    "File",
    "ForAddress",
    "FromSeconds",
    "GetDetail",
    "GetEnvironmentVariable",
    "GetRpcStatus",
    "Google",
    "Grpc",
    "HashData",
    "HttpHandler",
    "InitialBackoff",
    "KeepAlivePingDelay",
    "Length",
    "M2Ib",
    "MaxAttempts",
    "MaxBackoff",
    "MaxReceiveMessageSize",
    "MaxRetryBufferPerCallSize",
    "MaxRetryBufferSize",
    "MaxSendMessageSize",
    "MaxTokens",
    "MethodConfigs",
    "Names",
    "Net",
    "NoCheck",
    "Protobuf",
    "ReadAllBytesAsync",
    "ReadAllText",
    "ReadSingleLittleEndian",
    "ResourceExhausted",
    "RetryPolicy",
    "RetryThrottling",
    "RetryableStatusCodes",
    "RevocationMode",
    "Rpc",
    "Security",
    "ServiceConfig",
    "SslOptions",
    "StatusCode",
    "System",
    "Status",
    "ToByteArray",
    "ToHexString",
    "ToLowerInvariant",
    "TokenRatio",
    "TrustMode",
    "TryGetValue",
    "Unavailable",
    "UseProxy",
    "UtcNow",
    "V1",
    "WriteAllBytesAsync",
    "WriteLine",
    "X509Certificates",
}

# What the Java example gets of Java's and gRPC's own classes.
JAVA = {"Code", "DefaultInstance", "Description", "Instance", "MetadataOrDefault", "Status"}


def described():
    for module in FILES:
        yield from module.DESCRIPTOR.message_types_by_name.values()


def enums():
    for module in FILES:
        yield from module.DESCRIPTOR.enum_types_by_name.values()


def pascal(name):
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


FIELDS = {pascal(field.name) for message in described() for field in message.fields}
MESSAGES = {message.name for message in described()}
METHODS = set(attribution_pb2.DESCRIPTOR.services_by_name["AttributionService"].methods_by_name)


def code(file):
    """Return a C# file without comments, imports and strings; of these, what is interpolated stays."""
    text = re.sub(r'\$"([^"\n]*)"', lambda found: " ".join(re.findall(r"\{([^}:]+)", found[1])), file.read_text())
    text = re.sub(r'"[^"\n]*"', '""', text)
    return re.sub(r"^using [\w.]+;$|//.*", "", text, flags=re.MULTILINE)


def test_the_csharp_example_names_only_what_there_is():
    text = code(CLIENTS / "csharp/Explain.cs")
    members = set(re.findall(r"\.\s*([A-Z]\w*)", text)) | set(re.findall(r"\b([A-Z]\w*) = ", text))
    constants = {"MaxMessageBytes", "TimeoutSeconds"}
    choices = {
        pascal(value.name.removeprefix(f"{choice.name.upper()}_").lower())
        for choice in enums()
        for value in choice.values
    }
    calls = {f"{method}Async" for method in METHODS} | {"AttributionServiceClient"}
    assert members <= FIELDS | choices | calls | DOTNET | constants
    assert {"GridBits", "OverlayPng", "GridToOriginal", "ExplainAsync", "Specific", "Xx"} <= members


def test_the_java_example_names_only_what_there_is():
    text = (CLIENTS / "java/Explain.java").read_text()
    imported = re.findall(r"^import m2ib\.v1\.(?:Attribution|SettingsOuterClass)\.(\w+);", text, flags=re.MULTILINE)
    assert set(imported) <= MESSAGES | {choice.name for choice in enums()}
    assert {"ExplainRequest", "FloatTensor", "Effort"} <= set(imported)
    numbers = {value.name for choice in enums() for value in choice.values}
    assert set(re.findall(r"\b(?:Effort|Output)\.(\w+)", text)) <= numbers
    named = {name.removesuffix("List") for name in re.findall(r"\.(?:get|set|add)([A-Z]\w*)\(", text)}
    assert named <= FIELDS | JAVA
    assert {"GridBits", "OverlayPng", "Words", "Encoded", "Yx"} <= named


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """What the Node example's own protos describe, in a pool of their own."""
    target = tmp_path_factory.mktemp("protos") / "set.pb"
    standard = Path(find_spec("grpc_tools").origin).parent / "_proto"
    arguments = [f"-I{NODE / 'protos'}", f"-I{standard}", f"--descriptor_set_out={target}", "--include_imports"]
    assert protoc.main(["protoc", *arguments, "google/rpc/details.proto", "grpc/health/v1/health.proto"]) == 0
    pool = descriptor_pool.DescriptorPool()
    files = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes()).file
    for file in files:
        pool.Add(file)
    return pool, [file for file in files if not file.name.startswith("google/protobuf/")]


def test_the_node_examples_protos_have_the_true_numbers(ours):
    pool, files = ours
    true = {module.DESCRIPTOR.package: module for module in (status_pb2, health_pb2)}
    assert {file.package for file in files} == set(true)
    standard = descriptor_pool.Default()
    for file in files:
        for message in file.message_type:
            name = f"{file.package}.{message.name}"
            mine, theirs = pool.FindMessageTypeByName(name), standard.FindMessageTypeByName(name)
            for field in mine.fields:
                other = theirs.fields_by_name[field.name]
                assert (field.number, field.type, field.is_repeated) == (other.number, other.type, other.is_repeated)
    service = pool.FindServiceByName("grpc.health.v1.Health")
    assert set(service.methods_by_name) <= set(standard.FindServiceByName("grpc.health.v1.Health").methods_by_name)
    states = pool.FindEnumTypeByName("grpc.health.v1.HealthCheckResponse.ServingStatus")
    assert {value.name: value.number for value in states.values} == dict(
        health_pb2.HealthCheckResponse.ServingStatus.items()
    )


def test_the_node_packages_are_pinned_and_name_no_host():
    package, lock = (json.loads((NODE / name).read_text()) for name in ("package.json", "package-lock.json"))
    assert set(package["dependencies"]) == {"@grpc/grpc-js", "@grpc/proto-loader"}
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in package["dependencies"].values())
    entries = {name: entry for name, entry in lock["packages"].items() if name}
    assert len(entries) > 2
    assert all(entry["integrity"].startswith("sha512-") for entry in entries.values())
    assert not any("resolved" in entry for entry in entries.values())

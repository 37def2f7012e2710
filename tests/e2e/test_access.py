"""The real server's doors: TLS with reload, certificates of clients, tokens, scopes, limits of one caller."""

import json
import os
import queue
import ssl
import subprocess
import sys
import time

import grpc
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from canary_inference import infer
from certificates import LOOPBACK, authority, issued
from m2ib.oip import inference_pb2_grpc
from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import attribution_pb2_grpc
from m2ib_client import TLS, AccessError, Client
from m2ib_server.access import tokens
from m2ib_server.errors import CredentialsInvalid
from raw_call import raw_call
from serving import running_server
from wire import details_of, explain_request

SECONDS = 60
SERVING = health_pb2.HealthCheckResponse.SERVING
ISSUER, AUDIENCE = "https://id.example", "m2ib"


@pytest.fixture(scope="module")
def vault(tmp_path_factory):
    """A folder with every file that says who may call, and what they were made from."""
    return Vault(tmp_path_factory.mktemp("vault"))


class Vault:
    def __init__(self, folder):
        self.folder = folder
        self.authority = authority()
        self.server = issued(self.authority, "server", *LOOPBACK)
        self.server.write(folder / "certificate", folder / "key")
        (folder / "ca").write_bytes(self.authority.pem)
        self.viewer, viewer = tokens.new_token("viewer", ["explain"])
        self.ops, ops = tokens.new_token("ops", ["explain", "admin"])
        tokens.write_tokens(folder / "tokens", {"viewer": viewer, "ops": ops})
        self.key = ec.generate_private_key(ec.SECP256R1())
        described = jwt.get_algorithm_by_name("ES256").to_jwk(self.key.public_key(), as_dict=True)
        (folder / "keys").write_text(json.dumps({"keys": [described]}))

    def flags(self, *names):
        return [word for name, file in names for word in (f"--{name}", str(self.folder / file))]

    def jwt(self, **claims):
        known = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": int(time.time()) + 300, "scope": "explain"}
        return jwt.encode({**known, **claims}, self.key, "ES256")

    def channel(self, address, client=None, options=()):
        pair = (client.key_pem(), client.pem) if client else (None, None)
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(self.authority.pem, *pair), options)


@pytest.fixture(scope="module")
def guarded(vault, tiny_package, tmp_path_factory):
    """A server with TLS, both kinds of tokens, small limits for one caller and all that it tells of itself."""
    flags = vault.flags(
        ("tls-certificate", "certificate"), ("tls-key", "key"), ("tokens", "tokens"), ("jwt-keys", "keys")
    )
    provider = ["--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE]
    told = ["--reflection", "--channelz", "--max-caller-requests", "2", "--max-connection-age-seconds", "1"]
    with running_server(tiny_package, tmp_path_factory.mktemp("guarded"), *flags, *provider, *told) as running:
        yield running


@pytest.fixture
def wire(vault, guarded):
    with vault.channel(guarded.address) as channel:
        yield channel


def bearing(token):
    return (("authorization", f"Bearer {token}"),)


def list_models(channel, metadata=()):
    stub = attribution_pb2_grpc.AttributionServiceStub(channel)
    return stub.ListModels(pb.ListModelsRequest(), metadata=metadata, timeout=SECONDS)


def refusal(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), details_of(caught.value)["ErrorInfo"].reason


def certificate_of(address):
    host, _, port = address.rpartition(":")
    return x509.load_pem_x509_certificate(ssl.get_server_certificate((host, int(port))).encode())


def test_callers_are_known_by_either_kind_of_token_and_named_in_the_log(vault, guarded, wire):
    for token, name in ((vault.viewer, "token:viewer"), (vault.jwt(), "jwt:alice")):
        answer = attribution_pb2_grpc.AttributionServiceStub(wire).Explain(
            explain_request(), metadata=bearing(token), timeout=SECONDS
        )
        assert answer.explanation.provenance.model == "tiny"
        assert guarded.events("call ended")[-1]["caller"] == name
        assert token not in guarded.log()


def test_the_sdk_is_let_in_with_its_token_and_told_why_it_is_not(vault, guarded):
    tls = TLS(ca=vault.folder / "ca")
    with Client(guarded.address, tls=tls, token=vault.viewer, timeout=SECONDS) as client:
        assert [model.name for model in client.models()] == ["tiny"]
    with Client(guarded.address, tls=tls, timeout=SECONDS) as client, pytest.raises(AccessError) as caught:
        client.models()
    assert caught.value.reason == "CREDENTIALS_MISSING"


def test_who_is_not_known_is_told_so_with_a_stable_reason(vault, wire):
    unknown = grpc.StatusCode.UNAUTHENTICATED
    assert refusal(lambda: list_models(wire)) == (unknown, "CREDENTIALS_MISSING")
    assert refusal(lambda: list_models(wire, bearing("m2ib_viewer.x"))) == (unknown, "CREDENTIALS_INVALID")
    old = vault.jwt(exp=int(time.time()) - 3600)
    assert refusal(lambda: list_models(wire, bearing(old))) == (unknown, "CREDENTIALS_EXPIRED")
    forbidden = grpc.StatusCode.PERMISSION_DENIED
    assert refusal(lambda: list_models(wire, bearing(vault.jwt(scope="openid")))) == (forbidden, "SCOPE_MISSING")


@pytest.fixture(scope="module")
def knocked(vault, tiny_package, tmp_path_factory):
    """A server in plaintext, on which tokens alone tell callers from strangers."""
    told = ["--channelz", "--max-message-mebibytes", "64"]
    folder = tmp_path_factory.mktemp("knocked")
    with running_server(tiny_package, folder, *vault.flags(("tokens", "tokens")), *told) as running:
        yield running


STRANGERS = ([], [(b"authorization", b"Bearer m2ib_viewer.x")], [(b"authorization", b"Basic x")])
MESSAGE_BYTES = 32 << 20


@pytest.mark.parametrize("headers", STRANGERS, ids=["nobody", "somebody else", "another scheme"])
@pytest.mark.parametrize(
    "path",
    [
        "m2ib.v1.AttributionService/Explain",
        "m2ib.v1.AttributionService/ExplainStream",
        "m2ib.v1.ModelRepository/LoadModel",
        "inference.GRPCInferenceService/ModelInfer",
        "grpc.channelz.v1.Channelz/GetServers",
    ],
)
def test_a_stranger_is_refused_before_its_message_is_there(knocked, path, headers):
    begun = b"\0" + MESSAGE_BYTES.to_bytes(4, "big")  # the length of a message that never comes
    ending = raw_call(knocked.address, f"/{path}", headers, body=begun, ends=False, seconds=SECONDS)
    assert ending.status == grpc.StatusCode.UNAUTHENTICATED.value[0]
    line = knocked.events("call ended")[-1]
    assert (line["method"], line["code"]) == (path.rpartition("/")[2], "UNAUTHENTICATED")
    assert line["request_id"].encode() in ending.heard


def test_a_stranger_with_a_large_message_is_told_why_by_a_library(knocked):
    large = explain_request(text="x" * MESSAGE_BYTES)
    with grpc.insecure_channel(knocked.address) as channel:
        stub = attribution_pb2_grpc.AttributionServiceStub(channel)
        refused = refusal(lambda: stub.Explain(large, timeout=SECONDS))
        assert refused == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_MISSING")


def test_health_is_told_to_anybody_over_tls_by_the_command_too(vault, guarded, wire):
    answer = health_pb2_grpc.HealthStub(wire).Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
    assert answer.status == SERVING
    asked = {"M2IB_LISTEN": guarded.address, "M2IB_TLS_CA": str(vault.folder / "ca")}
    assert asked_for_health(**asked) == (0, "serving\n")
    assert asked_for_health(**{**asked, "M2IB_TLS_SERVER_NAME": "another.example"}) == (1, "")
    assert asked_for_health(M2IB_LISTEN=guarded.address) == (1, "")  # in plaintext


def asked_for_health(**variables):
    command = [sys.executable, "-m", "m2ib_server", "health"]
    environment = {**os.environ, **variables}
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, env=environment, check=False)
    return done.returncode, done.stdout


def test_reflection_is_for_callers_and_channelz_for_administrators(vault, wire):
    def reflect(metadata=()):
        stub = reflection_pb2_grpc.ServerReflectionStub(wire)
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        return list(stub.ServerReflectionInfo(asked, metadata=metadata, timeout=SECONDS))

    def servers(metadata=()):
        stub = channelz_pb2_grpc.ChannelzStub(wire)
        return stub.GetServers(channelz_pb2.GetServersRequest(), metadata=metadata, timeout=SECONDS).server

    assert refusal(reflect)[1] == refusal(servers)[1] == "CREDENTIALS_MISSING"
    assert refusal(lambda: servers(bearing(vault.viewer))) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
    assert reflect(bearing(vault.viewer))[0].list_services_response.service
    assert servers(bearing(vault.ops))[0].data.calls_started > 0


def test_a_connection_is_replaced_at_its_age_and_no_call_is_lost(vault, guarded, wire):
    states = []
    wire.subscribe(states.append)
    metadata = bearing(vault.viewer)
    until = time.monotonic() + SECONDS
    while grpc.ChannelConnectivity.IDLE not in states[1:]:
        list_models(wire, metadata)
        assert time.monotonic() < until, "the connection was never replaced"
    list_models(wire, metadata)


def test_one_caller_at_its_limit_is_refused_and_hurts_no_other(vault, wire):
    stub = attribution_pb2_grpc.AttributionServiceStub(wire)
    long = explain_request()
    long.settings.steps, long.settings.samples = 1000, 64
    running = [stub.ExplainStream(pb.ExplainStreamRequest(request=long), metadata=bearing(vault.viewer)) for _ in "ab"]
    for call in running:
        next(iter(call))
    refused = refusal(lambda: stub.Explain(explain_request(), metadata=bearing(vault.viewer), timeout=SECONDS))
    assert refused == (grpc.StatusCode.RESOURCE_EXHAUSTED, "CALLER_FULL")
    stub.Explain(explain_request(), metadata=bearing(vault.ops), timeout=SECONDS)
    for call in running:
        call.cancel()
    until = time.monotonic() + SECONDS
    while True:  # the places of calls that were left are free a moment later
        try:
            stub.Explain(explain_request(), metadata=bearing(vault.viewer), timeout=SECONDS)
            break
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert time.monotonic() < until


def test_a_new_certificate_serves_the_next_handshake_and_half_of_one_does_not(vault, guarded):
    assert certificate_of(guarded.address) == vault.server.certificate
    renewed = issued(vault.authority, "renewed", *LOOPBACK)
    (vault.folder / "certificate").write_bytes(renewed.pem)
    assert certificate_of(guarded.address) == vault.server.certificate
    (line,) = guarded.events("certificate refused, the old stays")
    assert line["level"] == "ERROR"
    (vault.folder / "key").write_bytes(renewed.key_pem())
    assert certificate_of(guarded.address) == renewed.certificate
    with vault.channel(guarded.address) as channel:
        list_models(channel, bearing(vault.viewer))


def test_a_token_that_is_taken_back_ends_with_the_next_call(vault, guarded, wire):
    list_models(wire, bearing(vault.ops))
    kept = {name: line for name, line in tokens.read_tokens(vault.folder / "tokens").items() if name != "ops"}
    tokens.write_tokens(vault.folder / "tokens", kept)
    assert refusal(lambda: list_models(wire, bearing(vault.ops)))[1] == "CREDENTIALS_INVALID"
    list_models(wire, bearing(vault.viewer))


def refused(answer):
    """Return why one request of a stream was refused; "" where it was answered."""
    return answer.status.message if isinstance(answer, pb.ExplainBatchResponse) else answer.error_message


@pytest.mark.parametrize(
    ("of_service", "method", "part", "request_of"),
    [
        (
            attribution_pb2_grpc.AttributionServiceStub,
            "ExplainBatch",
            "pair",
            lambda: pb.ExplainBatchRequest(request=explain_request()),
        ),
        (inference_pb2_grpc.GRPCInferenceServiceStub, "ModelStreamInfer", "request", infer),
    ],
    ids=["batch", "inferences"],
)
def test_a_token_that_is_taken_back_ends_the_streams_it_opened_with_their_next_request(
    vault, guarded, wire, of_service, method, part, request_of
):
    before = tokens.read_tokens(vault.folder / "tokens")
    token, line = tokens.new_token("guest", ["explain"])
    tokens.write_tokens(vault.folder / "tokens", {**before, "guest": line})
    sent = queue.Queue()
    answers = getattr(of_service(wire), method)(iter(sent.get, None), metadata=bearing(token), timeout=SECONDS)
    try:
        sent.put(request_of())
        assert refused(next(answers)) == ""
        tokens.write_tokens(vault.folder / "tokens", before)
        sent.put(request_of())
        assert refused(next(answers)) == str(CredentialsInvalid())
        assert refusal(lambda: next(answers)) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID")
    finally:
        sent.put(None)
    ended = [each for each in guarded.events("call ended") if each["caller"] == "token:guest"]
    assert [(each["method"], each["code"]) for each in ended if each["method"].startswith(method)] == [
        (f"{method}.{part}", "OK"),
        (f"{method}.{part}", "UNAUTHENTICATED"),
        (method, "UNAUTHENTICATED"),
    ]
    list_models(wire, bearing(vault.viewer))


def test_with_an_authority_of_clients_only_its_certificates_get_in_and_name_the_caller(vault, tiny_package, tmp_path):
    flags = vault.flags(("tls-certificate", "certificate"), ("tls-key", "key"), ("tls-client-ca", "ca"))
    pacs = issued(vault.authority, "pacs", x509.UniformResourceIdentifier("spiffe://hospital/pacs"))
    stranger = issued(authority("other"), "pacs")
    told = ["--health-listen", "127.0.0.1:0", "--channelz"]
    with running_server(tiny_package, tmp_path, *flags, *told) as running:
        with vault.channel(running.address, pacs) as channel:
            list_models(channel)
            stub = channelz_pb2_grpc.ChannelzStub(channel)
            refused = refusal(lambda: stub.GetServers(channelz_pb2.GetServersRequest(), timeout=SECONDS))
            assert refused == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
        assert running.events("call ended")[0]["caller"] == "certificate:spiffe://hospital/pacs"
        for client in (None, stranger):
            with vault.channel(running.address, client) as channel, pytest.raises(grpc.RpcError) as caught:
                list_models(channel)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        (ready,) = running.events("health")
        with grpc.insecure_channel(ready["address"]) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
            assert answer.status == SERVING
            with pytest.raises(grpc.RpcError) as caught:
                list_models(channel)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert running.stop() == 0


def test_a_unix_socket_is_served(tiny_package, tmp_path):
    address = f"unix:{tmp_path}/socket"
    with running_server(tiny_package, tmp_path, "--listen", address) as running:
        assert running.address == address
        with grpc.insecure_channel(address) as channel:
            list_models(channel)
        assert asked_for_health(M2IB_LISTEN=address) == (0, "serving\n")

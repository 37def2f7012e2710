"""A client's channel: encrypted where asked, to the server that was meant, and a token never goes in plaintext."""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from cryptography import x509
from typer.testing import CliRunner

from certificates import LOOPBACK, authority, issued
from m2ib.v1 import attribution_pb2_grpc
from m2ib_client import TLS, AccessError, AsyncClient, Client, InvalidRequestError, UnavailableError
from m2ib_client._cli.app import app
from m2ib_client._local import LocalServer
from m2ib_client._secure import checked_security, is_loopback
from m2ib_client.testing import FakeService

SECONDS = 20
TOKEN = "m2ib_viewer.abc"


class Doorman(grpc.ServerInterceptor):
    """Notes the token of every call."""

    def __init__(self):
        self.methods, self.tokens = [], []

    def intercept_service(self, continuation, details):
        self.methods.append(details.method.rpartition("/")[2])
        self.tokens.append(dict(details.invocation_metadata).get("authorization"))
        return continuation(details)


class Vault:
    """Certificates in files, and a fake that serves with them."""

    def __init__(self, folder):
        self.authority = authority()
        self.ca, self.certificate, self.key = (folder / name for name in ("ca", "certificate", "key"))
        self.ca.write_bytes(self.authority.pem)
        issued(self.authority, "client").write(self.certificate, self.key)
        self.doorman = Doorman()
        self.service = FakeService()
        self.tls = TLS(ca=self.ca, certificate=self.certificate, key=self.key)

    def serve(self, pair):
        server = grpc.server(ThreadPoolExecutor(4), interceptors=[self.doorman])
        attribution_pb2_grpc.add_AttributionServiceServicer_to_server(self.service, server)
        credentials = grpc.ssl_server_credentials([(pair.key_pem(), pair.pem)], self.authority.pem, True)
        self.service.address = f"localhost:{server.add_secure_port('127.0.0.1:0', credentials)}"
        server.start()
        return server


@pytest.fixture
def vault(tmp_path):
    """A server that wants a certificate of every client."""
    made = Vault(tmp_path)
    server = made.serve(issued(made.authority, "server", *LOOPBACK))
    yield made
    server.stop(None).wait()


def test_either_shell_makes_every_call_over_tls_with_its_certificate_and_token(vault, connect, image):
    client = connect(vault.service, tls=vault.tls, token=TOKEN, timeout=SECONDS)
    handle = client.upload(image)
    client.explain(handle, "a cat")
    list(client.explain_stream(image, "a cat", steps=2))
    assert all(result.error is None for result in client.explain_many([(image, "a cat"), (image, "a dog")]))
    client.score(image, ["a cat"])
    client.models()
    client.model()
    called = {"UploadImage", "Explain", "ExplainStream", "ExplainBatch", "Score", "ListModels", "GetModel"}
    assert set(vault.doorman.methods) == called
    assert set(vault.doorman.tokens) == {f"Bearer {TOKEN}"}


def test_a_server_of_another_authority_or_name_is_not_spoken_to(vault, connect, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(authority("other").pem)
    for changes in ({"ca": other}, {"server_name": "another.example"}):
        tls = TLS(
            ca=changes.get("ca", vault.ca),
            certificate=vault.certificate,
            key=vault.key,
            server_name=changes.get("server_name"),
        )
        with pytest.raises(UnavailableError):
            connect(vault.service, tls=tls, timeout=SECONDS).models()
    assert vault.doorman.methods == []


def test_a_client_without_a_certificate_is_not_let_in(vault, connect):
    with pytest.raises(UnavailableError):
        connect(vault.service, tls=TLS(ca=vault.ca), timeout=SECONDS).models()


def test_a_server_s_certificate_may_have_a_name_of_its_own(tmp_path, connect):
    vault = Vault(tmp_path)
    server = vault.serve(issued(vault.authority, "server", x509.DNSName("m2ib.example")))
    tls = TLS(ca=vault.ca, certificate=vault.certificate, key=vault.key, server_name="m2ib.example")
    assert connect(vault.service, tls=tls, timeout=SECONDS).models()
    server.stop(None).wait()


def test_a_token_that_is_a_function_is_asked_for_each_call(vault, connect):
    fresh = iter(["one", "two"])
    client = connect(vault.service, tls=vault.tls, token=lambda: next(fresh), timeout=SECONDS)
    client.models()
    client.models()
    assert vault.doorman.tokens == ["Bearer one", "Bearer two"]


def test_a_token_goes_in_plaintext_to_this_machine_only(fake, connect):
    assert connect(fake, token=TOKEN).models()
    for kind in (Client, AsyncClient):
        with pytest.raises(InvalidRequestError) as caught:
            kind("m2ib.example:50051", token=TOKEN)
        assert caught.value.field == "token"
        assert "plaintext" in str(caught.value)
        assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "é", "x" * 6001])
def test_what_no_token_looks_like_is_refused_and_not_repeated(fake, connect, token):
    for given in (token, lambda: token):
        with pytest.raises(InvalidRequestError) as caught:
            connect(fake, token=given).models()
        assert not token or token not in str(caught.value)


def test_files_that_cannot_be_used_are_named_before_anything_connects(vault, tmp_path):
    spoilt = tmp_path / "spoilt"
    spoilt.write_text("nonsense")
    for tls, field in (
        (TLS(ca=tmp_path / "absent"), "tls.ca"),
        (TLS(ca=spoilt), "tls.ca"),
        (TLS(certificate=vault.certificate), "tls"),
        (TLS(certificate=vault.certificate, key=tmp_path / "absent"), "tls.key"),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            Client("127.0.0.1:1", tls=tls)
        assert caught.value.field == field


def test_what_opens_a_channel_shows_no_secret(vault):
    assert TOKEN not in repr(checked_security("localhost:1", vault.tls, TOKEN))


@pytest.mark.parametrize(
    ("address", "is_local"),
    [
        ("127.0.0.1:1", True),
        ("127.1.2.3:1", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("unix:/run/m2ib", True),
        ("10.0.0.1:1", False),
        ("m2ib.example:1", False),
        ("localhost.example:1", False),
        ("dns:///localhost:1", False),
    ],
)
def test_loopback_is_what_stays_on_this_machine(address, is_local):
    assert is_loopback(address) is is_local


def test_the_server_s_reason_to_keep_a_caller_out_is_told(fake, connect):
    fake.fail_next(AccessError("the token has expired", reason="CREDENTIALS_EXPIRED"))
    with pytest.raises(AccessError) as caught:
        connect(fake).models()
    assert caught.value.reason == "CREDENTIALS_EXPIRED"


def command(*arguments, **variables):
    return CliRunner(env={"COLUMNS": "300", "NO_COLOR": "1", **variables}).invoke(app, list(arguments))


def test_the_command_takes_files_for_tls_and_its_token_from_a_file_or_a_variable(vault, tmp_path):
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    files = {"M2IB_TLS_CA": str(vault.ca), "M2IB_CLIENT_CERTIFICATE": str(vault.certificate)}
    files |= {"M2IB_CLIENT_KEY": str(vault.key), "M2IB_SERVER": vault.service.address}
    assert command("models", "--token-file", str(token), **files).exit_code == 0
    files["M2IB_TOKEN"] = "m2ib_other.abc"
    assert command("models", **files).exit_code == 0
    assert vault.doorman.tokens == [f"Bearer {TOKEN}", "Bearer m2ib_other.abc"]


def test_the_command_has_no_option_for_the_token_itself():
    refused = command("models", "--token", TOKEN)
    assert refused.exit_code == 2


def test_the_command_sends_no_token_in_plaintext_over_a_network():
    refused = command("models", "--server", "m2ib.example:50051", M2IB_TOKEN=TOKEN)
    assert refused.exit_code == 3
    assert "plaintext" in refused.output
    assert TOKEN not in refused.output


def test_a_private_server_has_none_of_another_server_s_identity(tmp_path, monkeypatch):
    for name in ("M2IB_TLS_CERTIFICATE", "M2IB_TOKENS", "M2IB_JWT_KEYS", "M2IB_HEALTH_LISTEN"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("M2IB_THREADS", "1")
    shown = tmp_path / "shown"
    script = f"import os, sys; open({str(shown)!r}, 'w').write(' '.join(os.environ)); sys.exit(1)"
    server = LocalServer(models=tmp_path, program=[sys.executable, "-c", script])
    with pytest.raises(Exception, match="ended with status 1"):
        server.start()
    names = shown.read_text().split()
    assert "M2IB_THREADS" in names
    assert not {"M2IB_TLS_CERTIFICATE", "M2IB_TOKENS", "M2IB_JWT_KEYS", "M2IB_HEALTH_LISTEN"} & set(names)

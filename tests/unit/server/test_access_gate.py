"""The gate: a call is its token's caller, else its certificate's, else nobody's; and nobody may do what it may not."""

import json
import math

import grpc
import pytest

from m2ib_server.access import certificates, tokens
from m2ib_server.access.bearer import Bearers, bearer_token
from m2ib_server.access.doors import CHANNELZ, REFLECTION, Doors
from m2ib_server.access.gate import AccessGate
from m2ib_server.access.identity import Identity
from m2ib_server.access.opening import anonymous_scopes, open_access
from m2ib_server.access.verified import Verified, VerifiedTokens
from m2ib_server.access.watched import Watched
from m2ib_server.errors import CredentialsInvalid, CredentialsMissing, ScopeMissing
from m2ib_server.settings import AccessSettings
from m2ib_server.telemetry import JsonLines

VIEWER_CERTIFICATE = {
    "x509_pem_cert": [b"-----BEGIN CERTIFICATE-----"],
    "peer_dns": [b"viewer.example"],
    "x509_common_name": [b"a viewer"],
}


class Context:
    def __init__(self, *metadata, peer=None):
        self._metadata, self._peer = metadata, peer or {}

    def invocation_metadata(self):
        return self._metadata

    def auth_context(self):
        return self._peer


class CountingLines(dict):
    """Lines that count how often one is looked up, which is once for each hash that is computed."""

    looked_up = 0

    def get(self, name):
        self.looked_up += 1
        return super().get(name)


@pytest.fixture
def viewer():
    """A token, its header and the bearers that know it."""
    token, line = tokens.new_token("viewer", ["explain"])
    lines = CountingLines(viewer=line)
    return ("authorization", f"Bearer {token}"), lines, Bearers(Watched("token file", [], lambda: lines), None)


def test_a_token_names_the_caller_and_its_scopes_bound_it(viewer):
    header, _, bearers = viewer
    gate = AccessGate(bearers)
    assert gate.admit(Context(header), "explain") == "token:viewer"
    with pytest.raises(ScopeMissing) as caught:
        gate.admit(Context(header), "admin")
    assert caught.value.scope == "admin"


def test_a_token_is_hashed_for_its_first_call_only(viewer):
    header, lines, bearers = viewer
    gate = AccessGate(bearers)
    for _ in range(5):
        gate.admit(Context(header), "explain")
    assert lines.looked_up == 1


def test_where_callers_have_names_nobody_is_anonymous(viewer):
    gate = AccessGate(viewer[2])
    with pytest.raises(CredentialsMissing):
        gate.admit(Context(), "explain")


@pytest.mark.parametrize(
    "metadata",
    [
        [("authorization", "Bearer m2ib_viewer.wrong")],
        [("authorization", "Basic dmlld2VyOndyb25n")],
        [("authorization", "Bearer")],
        [("authorization", "")],
        [("authorization", "Bearer not.a.jwt")],
    ],
)
def test_a_bad_token_is_refused_and_no_certificate_makes_up_for_it(viewer, metadata):
    gate = AccessGate(viewer[2], certificate_scopes={"explain"})
    with pytest.raises(CredentialsInvalid):
        gate.admit(Context(*metadata, peer=VIEWER_CERTIFICATE), "explain")


def test_two_tokens_in_one_call_are_refused(viewer):
    with pytest.raises(CredentialsInvalid):
        bearer_token([viewer[0], viewer[0]])


def test_a_certificate_names_the_caller_where_no_token_does(viewer):
    gate = AccessGate(viewer[2], certificate_scopes={"explain"}, certificate_admins={"ops.example"})
    assert gate.admit(Context(peer=VIEWER_CERTIFICATE), "explain") == "certificate:viewer.example"
    assert gate.admit(Context(viewer[0], peer=VIEWER_CERTIFICATE), "explain") == "token:viewer"
    with pytest.raises(ScopeMissing):
        gate.admit(Context(peer=VIEWER_CERTIFICATE), "admin")
    ops = {**VIEWER_CERTIFICATE, "peer_dns": [b"ops.example"]}
    assert gate.admit(Context(peer=ops), "admin") == "certificate:ops.example"


@pytest.mark.parametrize(
    ("names", "name"),
    [
        ({"peer_uri": [b"spiffe://hospital/pacs"], "peer_dns": [b"pacs"]}, "certificate:spiffe://hospital/pacs"),
        ({"peer_dns": [b"two words", b"pacs"]}, "certificate:pacs"),
        ({"x509_common_name": [b"pacs"]}, "certificate:pacs"),
    ],
)
def test_of_a_certificate_s_names_the_most_telling_plain_one_is_taken(names, name):
    peer = {"x509_pem_cert": [b"pem"], **names}
    assert certificates.identify(peer, {"explain"}, set()).name == name


@pytest.mark.parametrize("names", [{}, {"x509_common_name": [b"Zebra Finch"]}, {"peer_dns": [b"\xff"]}])
def test_a_certificate_without_a_plain_name_names_nobody(names):
    with pytest.raises(CredentialsInvalid):
        certificates.identify({"x509_pem_cert": [b"pem"], **names}, {"explain"}, set())


def test_a_peer_s_word_counts_for_nothing_without_a_certificate():
    assert certificates.identify({"x509_common_name": [b"ops"], "x509_pem_cert": []}, {"explain"}, {"ops"}) is None


def test_where_no_token_could_be_valid_one_that_comes_is_not_read():
    gate = AccessGate(Bearers(None, None), anonymous={"explain"})
    assert gate.admit(Context(("authorization", "Bearer of-the-proxy-before-us")), "explain") == ""
    with pytest.raises(ScopeMissing):
        gate.admit(Context(), "admin")


@pytest.mark.parametrize(
    ("listen", "is_admin"), [("127.0.0.1:1", True), ("unix:/run/m2ib", True), ("0.0.0.0:1", False), ("host:1", False)]
)
def test_nobody_in_particular_administers_only_what_no_other_machine_reaches(listen, is_admin):
    assert ("admin" in anonymous_scopes(AccessSettings(), listen)) is is_admin
    assert "admin" in anonymous_scopes(AccessSettings(anonymous_admin=True), listen)


@pytest.mark.parametrize(
    ("listen", "settings", "is_told"),
    [
        ("127.0.0.1:1", AccessSettings(), True),
        ("0.0.0.0:1", AccessSettings(anonymous_admin=True), True),
        ("0.0.0.0:1", AccessSettings(), False),
    ],
    ids=["loopback", "asked-for", "elsewhere"],
)
def test_an_operator_is_told_once_where_anybody_may_administer(caplog, listen, settings, is_told):
    caplog.set_level("INFO")
    open_access(settings, listen)
    logged = [json.loads(JsonLines().format(record)) for record in caplog.records]
    told = [(line["level"], line["event"], line["address"]) for line in logged]
    assert told == [("WARNING", "anonymous callers are admins", listen)] * is_told


def test_where_callers_have_names_no_such_word_is_needed(caplog, tmp_path):
    file = tmp_path / "tokens"
    tokens.write_tokens(file, {"viewer": tokens.new_token("viewer", ["explain"])[1]})
    open_access(AccessSettings(tokens=file, anonymous_admin=True), "127.0.0.1:1")
    assert caplog.records == []


def test_a_change_of_the_token_file_ends_the_old_token_with_the_next_call(tmp_path):
    file = tmp_path / "tokens"
    token, line = tokens.new_token("viewer", ["explain"])
    tokens.write_tokens(file, {"viewer": line})
    gate = AccessGate(Bearers(Watched("token file", [file], lambda: tokens.read_tokens(file)), None))
    call = Context(("authorization", f"bearer {token}"))
    assert gate.admit(call, "explain") == "token:viewer"
    tokens.write_tokens(file, {"viewer": tokens.new_token("viewer", ["explain"])[1]})
    with pytest.raises(CredentialsInvalid):
        gate.admit(call, "explain")


IDENTITY = Identity(name="jwt:alice", scopes=frozenset({"explain"}))


def test_a_verified_token_is_known_until_it_ends():
    kept = VerifiedTokens()
    kept.keep("token", Verified(identity=IDENTITY, until=100.0))
    assert kept.find("token", 99.9) is IDENTITY
    assert kept.find("token", 100.0) is None
    assert len(kept) == 0
    assert kept.find("other", 0.0) is None


def test_of_verified_tokens_the_one_longest_unused_makes_way():
    kept = VerifiedTokens(max_tokens=2)
    for token in ("one", "two"):
        kept.keep(token, Verified(identity=IDENTITY, until=math.inf))
    kept.find("one", 0.0)
    kept.keep("three", Verified(identity=IDENTITY, until=math.inf))
    assert [kept.find(token, 0.0) for token in ("one", "two", "three")] == [IDENTITY, None, IDENTITY]


class Refused(Exception):
    pass


class Reception:
    """Refuses every call, and notes what was asked of whom."""

    def __init__(self):
        self.asked = []

    def receive(self, context, *, service, method, scope):
        self.asked.append((service, method, scope))
        return self

    async def __aenter__(self):
        raise Refused

    async def __aexit__(self, *failure):
        return False


async def handler_behind(doors, method, handler):
    class Details:
        pass

    async def continuation(details):
        return handler

    details = Details()
    details.method = method
    return await doors.intercept_service(continuation, details)


async def test_a_service_of_others_is_not_reached_by_whom_the_gate_refuses():
    def unreachable(wire, context):
        raise AssertionError("reached")

    reception = Reception()
    doors = Doors(reception)
    answering = grpc.unary_unary_rpc_method_handler(unreachable)
    guarded = await handler_behind(doors, f"/{CHANNELZ}/GetServers", answering)
    with pytest.raises(Refused):
        await guarded.unary_unary(None, None)
    streaming = grpc.stream_stream_rpc_method_handler(unreachable)
    guarded = await handler_behind(doors, f"/{REFLECTION}/ServerReflectionInfo", streaming)
    with pytest.raises(Refused):
        await anext(guarded.stream_stream(None, None))
    assert reception.asked == [
        (CHANNELZ, "GetServers", "admin"),
        (REFLECTION, "ServerReflectionInfo", "explain"),
    ]
    assert await handler_behind(doors, "/grpc.health.v1.Health/Check", answering) is answering
    assert await handler_behind(doors, f"/{CHANNELZ}/Nothing", None) is None

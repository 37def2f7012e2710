"""Whatever stands where credentials belong, from a library or a bare socket: refused in time, quoted nowhere."""

import json

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from knock import CANARY, SECONDS, check, check_answers, knock
from m2ib.v1 import attribution_pb2 as pb
from m2ib_server.access import tokens
from mutants import damaged, fuzzed
from raw_call import RESET, raw_call
from serving import running_server

METHODS = pb.DESCRIPTOR.services_by_name["AttributionService"].methods_by_name
PATH = "/m2ib.v1.AttributionService/ListModels"
STATIC, LINE = tokens.new_token("viewer", ["explain"])
KEY = ec.generate_private_key(ec.SECP256R1())
STRANGER = jwt.encode({"sub": CANARY, "exp": 2**40}, ec.generate_private_key(ec.SECP256R1()), "ES256")
OK, EXHAUSTED, INTERNAL, UNAUTHENTICATED = (
    getattr(grpc.StatusCode, name).value[0] for name in ("OK", "RESOURCE_EXHAUSTED", "INTERNAL", "UNAUTHENTICATED")
)


@pytest.fixture(scope="module")
def guarded(tiny_package, tmp_path_factory):
    """A server that asks every caller for a token, of either kind."""
    folder = tmp_path_factory.mktemp("guarded")
    tokens.write_tokens(folder / "tokens", {"viewer": LINE})
    described = json.loads(jwt.get_algorithm_by_name("ES256").to_jwk(KEY.public_key()))
    (folder / "keys").write_text(json.dumps({"keys": [described]}), encoding="utf-8")
    provider = ("--jwt-keys", str(folder / "keys"), "--jwt-issuer", "https://id.example", "--jwt-audience", "m2ib")
    with running_server(tiny_package, folder, "--tokens", str(folder / "tokens"), *provider) as running:
        yield running


@pytest.fixture(scope="module")
def wire(guarded):
    with grpc.insecure_channel(guarded.address) as channel:
        yield channel


# What gRPC's own clients let through in a value: ASCII without controls, no space at either end.
PRINTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=80).map(str.strip)
SCHEMES = st.sampled_from(["Bearer ", "bearer  ", "Bearer", "Basic ", "", "Bearer Bearer "])
TOKENS = st.sampled_from([STRANGER, f"m2ib_viewer.{CANARY}", f"m2ib_{CANARY}.x", CANARY, "..", "e30.e30.", "x" * 5000])
VALUES = st.builds(str.__add__, SCHEMES, TOKENS | PRINTABLE).map(str.strip)


@fuzzed(80)
@given(values=st.lists(VALUES, min_size=1, max_size=3))
def test_what_a_library_sends_is_refused_with_a_reason(wire, values):
    metadata = [("authorization", value) for value in values]
    ending = knock(wire, METHODS["ListModels"], [b""], metadata)
    check(ending, {"UNAUTHENTICATED", "RESOURCE_EXHAUSTED"})
    assert ending.reason == ("CREDENTIALS_INVALID" if ending.code == "UNAUTHENTICATED" else "")
    assert ending.code == "UNAUTHENTICATED" or sum(map(len, values)) > 7000  # of gRPC's 8192 for all headers


GOOD = f"Bearer {STATIC}".encode()
RAW_VALUES = (
    damaged(GOOD)
    | st.binary(max_size=200).map(b"Bearer ".__add__)
    | st.sampled_from(
        [b"", GOOD, "Bearer Canary\u00e9\U0001f468".encode(), b"Bearer Canary\xff\xfe", b"Bearer Ca\0na\r\nry"]
    )
)


@fuzzed(60)
@given(values=st.lists(RAW_VALUES, min_size=1, max_size=3))
def test_values_that_no_library_sends_are_refused(guarded, values):
    ending = raw_call(guarded.address, PATH, [(b"authorization", value) for value in values], seconds=SECONDS)
    assert ending.status in {OK, UNAUTHENTICATED}, ending
    assert ending.status != OK or (len(values) == 1 and STATIC.encode() in values[0]), ending
    assert CANARY.lower().encode() not in ending.heard.lower()


@pytest.mark.parametrize(
    ("value", "times"),
    [(b"x" * 9_000, 1), (b"m2ib_viewer." + b"x" * 100_000, 1), (b"e30." * 100_000, 1), (CANARY.encode(), 500)],
    ids=["long", "longer", "dots", "many"],
)
def test_more_than_headers_may_take_is_refused_or_cut_off(guarded, value, times):
    """Before the caller has heard of the limit, gRPC may hand it all over; after that it resets the stream."""
    sent = [(b"authorization", b"Bearer " + value)] * times
    ending = raw_call(guarded.address, PATH, sent, seconds=SECONDS)
    assert ending.status in {UNAUTHENTICATED, EXHAUSTED, RESET}, ending
    assert CANARY.lower().encode() not in ending.heard.lower()


NAMES = st.sampled_from([b"authorization", b"Authorization", b"authorization-bin", b"", b"\xff", b":authority"])


@fuzzed(12)  # gRPC lets whoever sends such a name wait for up to a second
@given(name=NAMES | st.binary(max_size=20), value=RAW_VALUES)
def test_names_that_no_library_sends_end_the_call(guarded, name, value):
    ending = raw_call(guarded.address, PATH, [(name, value)], seconds=SECONDS)
    assert ending.status in {OK, UNAUTHENTICATED, EXHAUSTED, INTERNAL, RESET}, ending
    assert ending.status != OK or (name == b"authorization" and STATIC.encode() in value), ending
    assert CANARY.lower().encode() not in ending.heard.lower()


def test_after_all_that_the_server_serves_and_has_said_nothing(guarded, wire):
    """A value that is no UTF-8 is told of by gRPC itself, and our log lets through where, not what."""
    check_answers(guarded, wire, [("authorization", f"Bearer {STATIC}")])
    log = guarded.log()
    assert CANARY.lower() not in log.lower()
    assert STATIC not in log
    assert STRANGER not in log
    errors = [line for line in map(json.loads, log.splitlines()) if line["level"] == "ERROR"]
    assert {(line["event"], line["origin"]) for line in errors} <= {("foreign", "grpc._cython.cygrpc")}
    assert all(set(line) == {"time", "level", "event", "origin"} for line in errors)

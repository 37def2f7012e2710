"""Whatever stands in a call's metadata: it names a known caller, or one of the four refusals is raised."""

import base64
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import example, given
from hypothesis import strategies as st

from m2ib_server.access import jwts, tokens
from m2ib_server.access.bearer import Bearers, JwtSource
from m2ib_server.access.gate import AccessGate
from m2ib_server.access.identity import is_name
from m2ib_server.access.watched import Watched
from m2ib_server.errors import CredentialsExpired, CredentialsInvalid, CredentialsMissing, ScopeMissing
from mutants import damaged, fuzzed

REFUSALS = (CredentialsExpired, CredentialsInvalid, CredentialsMissing, ScopeMissing)
ISSUER = jwts.Issuer(name="https://id.example", audience="m2ib")
KEY = ec.generate_private_key(ec.SECP256R1())
ES256 = jwt.get_algorithm_by_name("ES256")
STATIC, LINE = tokens.new_token("viewer", ["explain"])
GOOD_HEADER = {"alg": "ES256", "typ": "JWT", "kid": "one"}
# gRPC hands text over, decoded from whatever bytes were sent; surrogates are what no decoder of its makes.
TEXTS = st.text(max_size=60) | st.text(st.characters(max_codepoint=255), max_size=60)
NUMBERS = (
    st.integers()
    | st.floats()
    | st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400, -(10**400), 1e308, float("inf"), float("nan")])
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS | st.sampled_from(["9" * 400, "9" * 5000, "explain admin"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


class Context:
    """A call of a peer without a certificate."""

    def __init__(self, metadata):
        self._metadata = metadata

    def invocation_metadata(self):
        return self._metadata

    def auth_context(self):
        return {}


@pytest.fixture(scope="module")
def gate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("access")
    tokens.write_tokens(folder / "tokens", {"viewer": LINE})
    described = json.loads(ES256.to_jwk(KEY.public_key()))
    (folder / "keys").write_text(json.dumps({"keys": [{**described, "kid": "one"}]}), encoding="utf-8")
    lines = Watched("token file", [folder / "tokens"], lambda: tokens.read_tokens(folder / "tokens"))
    keys = Watched("key set", [folder / "keys"], lambda: jwts.read_keys(folder / "keys"))
    return AccessGate(Bearers(lines, JwtSource(issuer=ISSUER, keys=keys)))


def good_claims():
    return {
        "iss": ISSUER.name,
        "aud": ISSUER.audience,
        "sub": "alice",
        "exp": int(time.time()) + 300,
        "scope": "explain",
    }


def encoded(part: bytes) -> bytes:
    return base64.urlsafe_b64encode(part).rstrip(b"=")


def signed(header: object, claims: object) -> str:
    """Sign whatever it is with the provider's own key, past every check that a library for tokens makes."""
    body = b".".join(encoded(json.dumps(part).encode()) for part in (header, claims))
    return (body + b"." + encoded(ES256.sign(body, KEY))).decode()


@st.composite
def altered(draw, good, names):
    """A good object with some of its members others, gone or new; or no object at all."""
    if draw(st.integers(0, 9)) == 0:
        return draw(JSON)
    changed = {**good, **draw(st.dictionaries(st.sampled_from(names), JSON, max_size=2))}
    for gone in draw(st.lists(st.sampled_from(sorted(good)), max_size=1)):
        del changed[gone]
    return changed


HEADERS = altered(GOOD_HEADER, ["alg", "typ", "kid", "b64", "crit", "jwk", "jku", "x5c", "zip"])
CLAIMS = st.deferred(
    lambda: altered(good_claims(), ["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "scope", "scp", "x"])
)
GOOD_TOKENS = st.sampled_from([STATIC]) | st.builds(lambda: signed(GOOD_HEADER, good_claims()))
BROKEN_TOKENS = GOOD_TOKENS.flatmap(lambda token: damaged(token.encode())).map(lambda raw: raw.decode("latin-1"))
OWN_TOKENS = st.builds("m2ib_{}.{}".format, st.sampled_from(["viewer", "", "other"]) | TEXTS, TEXTS)
HUGE = st.sampled_from(["x" * 10**6, "." * 10**6, "m2ib_" + "y" * 10**6, "e30." * 10**5, "[" * 10**5])
TOKENS = GOOD_TOKENS | BROKEN_TOKENS | OWN_TOKENS | HUGE | TEXTS | st.builds(signed, HEADERS, CLAIMS)
SCHEMES = st.sampled_from(["Bearer ", "bearer  ", "BEARER\t", "Bearer", "Basic ", "", " ", "Bearer Bearer "]) | TEXTS
VALUES = st.builds(str.__add__, SCHEMES, TOKENS) | TEXTS | st.binary(max_size=60)
KEYS = st.sampled_from(["authorization", "authorization", "authorization-bin", "x-request-id", ""])


def admit(gate, *metadata):
    """Return the caller's name, None for a refusal that is one of the four and quotes nothing but a scope."""
    try:
        name = gate.admit(Context(metadata), "explain")
    except REFUSALS as refusal:
        assert str(refusal) in {str(one) for one in (*(kind() for kind in REFUSALS[:3]), ScopeMissing("explain"))}
        return None
    assert is_name(name)
    return name


def bearing(token):
    return ("authorization", f"Bearer {token}")


def test_good_credentials_are_let_in(gate):
    """Else the fuzzing would begin at a closed door."""
    assert admit(gate, bearing(STATIC)) == "token:viewer"
    assert admit(gate, bearing(signed(GOOD_HEADER, good_claims()))) == "jwt:alice"


@fuzzed(300)
@given(metadata=st.lists(st.tuples(KEYS, VALUES), max_size=3))
def test_whatever_metadata_is_refused_or_names_a_caller(gate, metadata):
    admit(gate, *metadata)


@fuzzed(300)
@given(token=TOKENS)
def test_whatever_token_is_refused_or_names_a_caller(gate, token):
    admit(gate, bearing(token))


@fuzzed(500)
@given(header=HEADERS, claims=CLAIMS)
@example(header=GOOD_HEADER, claims={**good_claims(), "exp": 10**400})  # beyond what a float holds
def test_whatever_the_provider_signs_is_refused_or_names_a_caller(gate, header, claims):
    admit(gate, bearing(signed(header, claims)))


@fuzzed(150)
@given(token=BROKEN_TOKENS | OWN_TOKENS)
def test_no_damage_makes_another_caller_of_a_token(gate, token):
    assert admit(gate, bearing(token)) in (None, "token:viewer", "jwt:alice")


@fuzzed(50)
@given(values=st.lists(GOOD_TOKENS, min_size=2, max_size=3))
def test_several_headers_are_refused_however_good_each_is(gate, values):
    assert admit(gate, *map(bearing, values)) is None

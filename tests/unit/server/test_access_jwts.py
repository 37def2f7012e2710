"""JSON Web Tokens: only what the provider's public keys signed, for us, and not too long ago, names a caller."""

import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from m2ib_server.access import jwts
from m2ib_server.errors import AccessFileUnusable, CredentialsExpired, CredentialsInvalid

ISSUER = jwts.Issuer(name="https://id.example", audience="m2ib")
KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(65537, 2048)
PUBLIC_PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwk(key, **members):
    algorithm = {ec.EllipticCurvePrivateKey: "ES256", rsa.RSAPrivateKey: "RS256"}
    kind = next((name for base, name in algorithm.items() if isinstance(key, base)), "EdDSA")
    described = jwt.get_algorithm_by_name(kind).to_jwk(key.public_key())
    return {**json.loads(described), **members}


def write_keys(path, *keys):
    path.write_text(json.dumps({"keys": list(keys)}))
    return path


@pytest.fixture
def keys(tmp_path):
    listed = (jwk(KEY, kid="one"), jwk(RSA_KEY, kid="two", alg="PS256"))
    return jwts.read_keys(write_keys(tmp_path / "keys", *listed))


def signed(key=KEY, algorithm="ES256", kid="one", **claims):
    payload = {
        "iss": ISSUER.name,
        "aud": ["other", ISSUER.audience],
        "sub": "alice@hospital.example",
        "exp": int(time.time()) + 300,
        "scope": "openid explain",
        **claims,
    }
    present = {name: value for name, value in payload.items() if value is not None}
    return jwt.encode(present, key, algorithm, headers={"kid": kid} if kid else {})


@pytest.mark.parametrize(("key", "algorithm", "kid"), [(KEY, "ES256", "one"), (RSA_KEY, "PS256", "two")])
def test_a_token_that_the_provider_signed_for_us_names_its_caller(keys, key, algorithm, kid):
    claimed = jwts.identify(signed(key, algorithm, kid), keys, ISSUER)
    assert claimed.identity.name == "jwt:alice@hospital.example"
    assert claimed.identity.scopes == {"explain"}
    assert claimed.until > time.time() + 300


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({"scope": "explain admin"}, {"explain", "admin"}),
        ({"scope": None, "scp": ["admin", 5, None]}, {"admin"}),
        ({"scope": None, "scp": "explain"}, {"explain"}),
        ({"scope": "explainer Admin explain2"}, set()),
        ({"scope": None}, set()),
        ({"scope": {"explain": True}}, set()),
    ],
)
def test_scopes_are_those_of_either_claim_that_mean_something_here(keys, claims, scopes):
    assert jwts.identify(signed(**claims), keys, ISSUER).identity.scopes == scopes


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": None},
        {"iss": None},
        {"aud": None},
        {"sub": None},
        {"iss": "https://other.example"},
        {"aud": "other"},
        {"nbf": 2**40},
        {"exp": "soon"},
        {"sub": ""},
        {"sub": "Zebra Finch"},
        {"sub": "a" * 129},
        {"sub": "line\nbreak"},
        {"sub": "naïve"},
    ],
)
def test_a_token_that_lacks_a_claim_or_is_not_for_us_is_refused_without_a_word_of_it(keys, claims):
    with pytest.raises(CredentialsInvalid) as caught:
        jwts.identify(signed(**claims), keys, ISSUER)
    assert str(caught.value) == "the credentials are not valid here"


def test_a_token_that_was_valid_says_so(keys):
    with pytest.raises(CredentialsExpired):
        jwts.identify(signed(exp=int(time.time()) - 3600), keys, ISSUER)


def unsigned():
    return signed(None, "none")


def of_another_key():
    return signed(ec.generate_private_key(ec.SECP256R1()))


def signed_with_the_public_key_as_a_secret():
    header, payload = jwt.utils.base64url_encode(b'{"alg":"HS256","kid":"one"}'), signed().split(".")[1].encode()
    secret = jwt.get_algorithm_by_name("HS256")
    signature = secret.sign(header + b"." + payload, PUBLIC_PEM)
    return b".".join([header, payload, jwt.utils.base64url_encode(signature)]).decode()


def of_an_unknown_key_id():
    return signed(kid="three")


def without_a_key_id():
    return signed(kid=None)


def of_a_key_s_other_algorithm():
    return signed(RSA_KEY, "RS256", "two")


def tampered():
    header, payload, signature = signed().split(".")
    return f"{header}.{payload[:-2]}AA.{signature}"


@pytest.mark.parametrize(
    "make",
    [
        unsigned,
        of_another_key,
        signed_with_the_public_key_as_a_secret,
        of_an_unknown_key_id,
        without_a_key_id,
        of_a_key_s_other_algorithm,
        tampered,
        lambda: "",
        lambda: "a.b.c",
        lambda: "....",
        lambda: "e30.e30.",
        lambda: "é",
    ],
)
def test_what_no_key_of_the_provider_signed_is_refused(keys, make):
    with pytest.raises(CredentialsInvalid):
        jwts.identify(make(), keys, ISSUER)


def test_a_sole_key_needs_no_id(tmp_path):
    key = ed25519.Ed25519PrivateKey.generate()
    keys = jwts.read_keys(write_keys(tmp_path / "keys", jwk(key), jwk(RSA_KEY, use="enc")))
    assert jwts.identify(signed(key, "EdDSA", None), keys, ISSUER).identity.name == "jwt:alice@hospital.example"


SECRET = {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"}


@pytest.mark.parametrize(
    "listed",
    [
        [],
        [SECRET],
        [jwk(KEY, kid="one"), {**SECRET, "kid": "two"}],
        [jwk(KEY), jwk(RSA_KEY)],
        [jwk(KEY, kid="one"), jwk(RSA_KEY, kid="one")],
        [jwk(rsa.generate_private_key(65537, 1024), kid="short")],  # noqa: S505 - that is what is refused
        [{"kty": "nonsense"}],
        ["nonsense"],
        [jwk(RSA_KEY, use="enc")],
    ],
)
def test_a_key_set_with_a_secret_a_short_key_or_no_way_to_choose_is_unusable(tmp_path, listed):
    with pytest.raises(AccessFileUnusable) as caught:
        jwts.read_keys(write_keys(tmp_path / "keys", *listed))
    assert str(tmp_path / "keys") in str(caught.value)
    assert SECRET["k"] not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 10_000])
def test_a_file_that_is_no_key_set_is_unusable(tmp_path, text):
    (tmp_path / "keys").write_text(text)
    with pytest.raises(AccessFileUnusable):
        jwts.read_keys(tmp_path / "keys")

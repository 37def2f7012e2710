"""Owns JSON Web Tokens: which keys sign them, what they must claim, and whom they name. Fetches nothing."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt

from m2ib_server.access.identity import Identity, is_name, known_scopes
from m2ib_server.errors import AccessFileUnusable, CredentialsExpired, CredentialsInvalid

KIND = "jwt:"
LEEWAY_SECONDS = 30  # by which the provider's clock and ours may differ
REQUIRED = ("exp", "iss", "aud", "sub")
# Signatures that a public key checks. With a shared secret whoever can check could sign as well.
ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Whose tokens are taken, and for whom they must be made out.

    Attributes:
        name: the claim `iss`.
        audience: what the claim `aud` must contain.
    """

    name: str
    audience: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """Whom a token names and until when.

    Attributes:
        identity: the caller.
        until: when it ends, in seconds since 1970, the leeway included.
    """

    identity: Identity
    until: float


def read_keys(path: Path) -> dict[str | None, jwt.PyJWK]:
    """Return the keys of a JWKS file by their ids; a sole key may have none. Keys for encryption are passed over.

    Raises:
        AccessFileUnusable: the file cannot be read, has no key, or has one that is no public key for signatures.
    """
    try:
        listed = json.loads(path.read_bytes())["keys"]
        keys = [jwt.PyJWK.from_dict(key) for key in listed if key.get("use", "sig") == "sig"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, jwt.PyJWTError) as error:
        seen = f"what ends in {type(error).__name__}"
        raise AccessFileUnusable(str(path), seen=seen, allowed="a JSON Web Key Set (RFC 7517)") from error
    _check_keys(path, keys)
    return {key.key_id: key for key in keys}


def identify(token: str, keys: Mapping[str | None, jwt.PyJWK], issuer: Issuer) -> Claimed:
    """Return whom a token names, having checked its signature, issuer, audience and times.

    Raises:
        CredentialsExpired: it was valid once.
        CredentialsInvalid: it is not valid for any other reason, or its `sub` is no name that may stand in a log.
    """
    claims = _claims(token, keys, issuer)
    subject = claims["sub"]
    if not is_name(subject):
        raise CredentialsInvalid
    identity = Identity(name=f"{KIND}{subject}", scopes=known_scopes(_scopes(claims)))
    return Claimed(identity=identity, until=_until(claims["exp"]))


def _claims(token: str, keys: Mapping[str | None, jwt.PyJWK], issuer: Issuer) -> Mapping[str, Any]:
    try:
        key = _key(jwt.get_unverified_header(token).get("kid"), keys)
        return jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            issuer=issuer.name,
            audience=issuer.audience,
            leeway=LEEWAY_SECONDS,
            options={"require": list(REQUIRED), "enforce_minimum_key_length": True},
        )
    except jwt.ExpiredSignatureError as error:
        raise CredentialsExpired from error
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise CredentialsInvalid from error


def _key(key_id: object, keys: Mapping[str | None, jwt.PyJWK]) -> jwt.PyJWK:
    if key_id is None and len(keys) == 1:
        return next(iter(keys.values()))
    key = keys.get(key_id) if isinstance(key_id, str) else None
    if key is None:
        raise CredentialsInvalid
    return key


def _until(expiry: Any) -> float:
    """Return when a token ends; its library takes whole numbers, and digits, that are beyond any float."""
    try:
        until = float(expiry) + LEEWAY_SECONDS
    except OverflowError as error:
        raise CredentialsInvalid from error
    if not math.isfinite(until):
        raise CredentialsInvalid
    return until


def _scopes(claims: Mapping[str, Any]) -> list[object]:
    """Return the scopes, of whichever of the two claims providers use: a text with spaces, or a list."""
    given = claims.get("scope", claims.get("scp", ()))
    if isinstance(given, str):
        return list(given.split())
    return list(given) if isinstance(given, list | tuple) else []


def _check_keys(path: Path, keys: list[jwt.PyJWK]) -> None:
    if not keys:
        raise AccessFileUnusable(str(path), seen="no key for signatures", allowed="at least one")
    if len({key.key_id for key in keys}) < len(keys):
        raise AccessFileUnusable(
            str(path), seen="two keys of one id, or of none", allowed="a `kid` of its own for each"
        )
    for key in keys:
        if key.algorithm_name not in ALGORITHMS:
            allowed = f"public keys for {', '.join(sorted(ALGORITHMS))}"
            raise AccessFileUnusable(str(path), seen=f"a key for {key.algorithm_name}", allowed=allowed)
        if message := key.Algorithm.check_key_length(key.key):
            raise AccessFileUnusable(str(path), seen=message.rstrip("."), allowed="a longer key")

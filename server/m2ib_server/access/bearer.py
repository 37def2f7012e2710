"""Finds out whose bearer token a call carries: a static one by its hash, any other as a JSON Web Token."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import jwt

from m2ib_server.access import jwts, tokens
from m2ib_server.access.identity import Identity
from m2ib_server.access.verified import Verified, VerifiedTokens
from m2ib_server.access.watched import Watched
from m2ib_server.errors import CredentialsInvalid

HEADER = "authorization"
SCHEME = "bearer"


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtSource:
    """Where JSON Web Tokens come from.

    Attributes:
        issuer: who issues them, for whom.
        keys: what signs them.
    """

    issuer: jwts.Issuer
    keys: Watched[dict[str | None, jwt.PyJWK]]


class Bearers:
    """The bearers that are known. One event loop's alone."""

    def __init__(self, lines: Watched[dict[str, tokens.TokenLine]] | None, provider: JwtSource | None) -> None:
        """Know static tokens, those of a provider, both or none."""
        self._lines = lines
        self._provider = provider
        self._verified = VerifiedTokens()
        self._versions = (0, 0)

    @property
    def is_empty(self) -> bool:
        """Whether no token could ever be valid."""
        return self._lines is None and self._provider is None

    def identify(self, token: str, now: float) -> Identity:
        """Return whose token it is; `now` is in seconds since 1970.

        Raises:
            CredentialsExpired: it was valid once.
            CredentialsInvalid: it is nobody's.
        """
        lines = self._lines.current() if self._lines else {}
        keys = self._provider.keys.current() if self._provider else {}
        self._forget_if_changed()
        identity = self._verified.find(token, now)
        if identity is None:
            verified = self._verify(token, lines, keys)
            self._verified.keep(token, verified)
            identity = verified.identity
        return identity

    def _verify(
        self, token: str, lines: Mapping[str, tokens.TokenLine], keys: Mapping[str | None, jwt.PyJWK]
    ) -> Verified:
        if token.startswith(tokens.PREFIX):
            return Verified(identity=tokens.identify(token, lines), until=math.inf)
        if self._provider is None:
            raise CredentialsInvalid
        claimed = jwts.identify(token, keys, self._provider.issuer)
        return Verified(identity=claimed.identity, until=claimed.until)

    def _forget_if_changed(self) -> None:
        versions = (
            self._lines.version if self._lines else 0,
            self._provider.keys.version if self._provider else 0,
        )
        if versions != self._versions:
            self._versions = versions
            self._verified.clear()


def bearer_token(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    """Return the token that a call carries; None where it carries none.

    Raises:
        CredentialsInvalid: it carries several, or something else in a token's place.
    """
    values = [value for key, value in metadata if key == HEADER]
    if not values:
        return None
    scheme, _, token = str(values[0]).partition(" ")
    if len(values) > 1 or scheme.lower() != SCHEME or not token.strip():
        raise CredentialsInvalid
    return token.strip()

"""Remembers tokens that were verified, by their digest, so that the cost is paid once and not for each call."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from m2ib_server.access.identity import Identity

MAX_TOKENS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """Whose token it is and until when, in seconds since 1970."""

    identity: Identity
    until: float


class VerifiedTokens:
    """The tokens lately verified; the one longest unused makes way. No token itself is kept."""

    def __init__(self, max_tokens: int = MAX_TOKENS) -> None:
        """Remember so many."""
        self._max_tokens = max_tokens
        self._kept: OrderedDict[bytes, Verified] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, token: str, now: float) -> Identity | None:
        """Return whose token it is; None where that is not known, or not any more."""
        digest = _digest(token)
        found = self._kept.get(digest)
        if found is None:
            return None
        if now >= found.until:
            del self._kept[digest]
            return None
        self._kept.move_to_end(digest)
        return found.identity

    def keep(self, token: str, verified: Verified) -> None:
        """Remember a token."""
        self._kept[_digest(token)] = verified
        if len(self._kept) > self._max_tokens:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        """Forget all of them: what says who may call has changed."""
        self._kept.clear()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()

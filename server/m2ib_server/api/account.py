"""Counts what one party holds: requests, bytes of their own, and what several of them share, which counts once."""

from collections import Counter
from typing import Protocol

from m2ib_server.errors import ServiceError


class Shared(Protocol):
    """What several requests may hold together. Equal to nothing but itself."""

    @property
    def size_bytes(self) -> int:
        """What it takes in memory."""
        ...


class Refusal(Protocol):
    """Words a refusal."""

    def __call__(self, what: str, *, used: int, limit: int) -> ServiceError:
        """Return the fault of too much of something."""
        ...


class Account:
    """What the requests of one party hold: a caller's, or everybody's."""

    def __init__(self, *, max_requests: int, max_bytes: int, refusal: Refusal) -> None:
        """Hold at most so many requests, of at most so many bytes together."""
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self._refusal = refusal
        self.requests = 0
        self.used_bytes = 0
        self.holders: Counter[Shared] = Counter()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held."""
        return not self.requests and not self.used_bytes and not self.holders

    def check_request(self) -> None:
        """Refuse a request beyond the limit.

        Raises:
            ServiceError: naming the requests under way.
        """
        if self.requests >= self.max_requests:
            raise self._refusal("requests", used=self.requests, limit=self.max_requests)

    def check_bytes(self, size_bytes: int, *, held_bytes: int) -> None:
        """Refuse bytes that do not fit beside those of others; one request alone always fits, whatever its size.

        Args:
            size_bytes: the bytes.
            held_bytes: what the request holds already.

        Raises:
            ServiceError: naming the bytes in use.
        """
        if self.used_bytes > held_bytes and self.used_bytes + size_bytes > self.max_bytes:
            raise self._refusal("bytes", used=self.used_bytes, limit=self.max_bytes)

    def hold(self, shared: Shared) -> None:
        """Count one more holder of what is shared, and its bytes with the first one."""
        if shared not in self.holders:
            self.used_bytes += shared.size_bytes
        self.holders[shared] += 1

    def let_go(self, shared: Shared) -> None:
        """Count one holder less, and the bytes no more after the last one."""
        self.holders[shared] -= 1
        if not self.holders[shared]:
            del self.holders[shared]
            self.used_bytes -= shared.size_bytes

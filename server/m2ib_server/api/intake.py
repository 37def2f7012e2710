"""Bounds what requests under way may take before the engine sees them: their number and their bytes."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from m2ib_server.errors import ServerFull


class Shared(Protocol):
    """What several requests may hold together. Equal to nothing but itself."""

    @property
    def size_bytes(self) -> int:
        """What it takes in memory."""
        ...


class Place:
    """One request's place; it grows when a small file turns out to be a large image."""

    def __init__(self, intake: "Intake") -> None:
        """Begin with no bytes."""
        self._intake = intake
        self._own_bytes = 0
        self._shared: list[Shared] = []

    def grow(self, size_bytes: int) -> None:
        """Take more bytes.

        Raises:
            ServerFull: they would be too many.
        """
        self._intake.check_bytes(size_bytes, held_bytes=self._held_bytes)
        self._intake.used_bytes += size_bytes
        self._own_bytes += size_bytes

    def share(self, shared: Shared) -> None:
        """Hold what other requests may hold as well; its bytes count once.

        Raises:
            ServerFull: they would be too many.
        """
        if shared not in self._intake.holders:
            self._intake.check_bytes(shared.size_bytes, held_bytes=self._held_bytes)
            self._intake.used_bytes += shared.size_bytes
        self._intake.holders[shared] += 1
        self._shared.append(shared)

    def leave(self) -> None:
        """Give everything back."""
        self._intake.used_bytes -= self._own_bytes
        for shared in self._shared:
            self._intake.holders[shared] -= 1
            if not self._intake.holders[shared]:
                del self._intake.holders[shared]
                self._intake.used_bytes -= shared.size_bytes

    @property
    def _held_bytes(self) -> int:
        return self._own_bytes + sum(shared.size_bytes for shared in self._shared)


class Intake:
    """The requests under way. One event loop's alone."""

    def __init__(
        self, *, max_requests: int, max_bytes: int, until_end: Callable[[], float | None] = lambda: None
    ) -> None:
        """Hold at most so many requests, of at most so many bytes together.

        until_end: estimates when the next request under way ends, in seconds; None where nobody can tell.
        """
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self._until_end = until_end
        self.requests = 0
        self.used_bytes = 0
        self.holders: Counter[Shared] = Counter()

    @contextmanager
    def place(self, size_bytes: int) -> Iterator[Place]:
        """Hold a place for a request of `size_bytes`.

        Raises:
            ServerFull: there is none.
        """
        if self.requests >= self.max_requests:
            raise self._full("requests", used=self.requests, limit=self.max_requests)
        place = Place(self)
        place.grow(size_bytes)
        self.requests += 1
        try:
            yield place
        finally:
            self.requests -= 1
            place.leave()

    def check_bytes(self, size_bytes: int, *, held_bytes: int) -> None:
        """Refuse bytes that do not fit beside those of others; one request alone always fits, whatever its size.

        Args:
            size_bytes: the bytes.
            held_bytes: what the request holds already.

        Raises:
            ServerFull: naming the bytes in use.
        """
        if self.used_bytes > held_bytes and self.used_bytes + size_bytes > self.max_bytes:
            raise self._full("bytes", used=self.used_bytes, limit=self.max_bytes)

    def _full(self, what: str, *, used: int, limit: int) -> ServerFull:
        return ServerFull(what=what, used=used, limit=limit, retry_seconds=self._until_end())

"""Bounds what requests under way may take before the engine sees them: their number and their bytes."""

from collections.abc import Iterator
from contextlib import contextmanager

from m2ib_server.errors import ServerFull


class Place:
    """One request's place; it grows when a small file turns out to be a large image."""

    def __init__(self, intake: "Intake") -> None:
        """Begin with no bytes."""
        self._intake = intake
        self.size_bytes = 0

    def grow(self, size_bytes: int) -> None:
        """Take more bytes.

        Raises:
            ServerFull: they would be too many.
        """
        self._intake.check_bytes(size_bytes, own_bytes=self.size_bytes)
        self._intake.used_bytes += size_bytes
        self.size_bytes += size_bytes


class Intake:
    """The requests under way. One event loop's alone."""

    def __init__(self, *, max_requests: int, max_bytes: int) -> None:
        """Hold at most so many requests, of at most so many bytes together."""
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self.requests = 0
        self.used_bytes = 0

    @contextmanager
    def place(self, size_bytes: int) -> Iterator[Place]:
        """Hold a place for a request of `size_bytes`.

        Raises:
            ServerFull: there is none.
        """
        if self.requests >= self.max_requests:
            raise ServerFull(what="requests", used=self.requests, limit=self.max_requests)
        place = Place(self)
        place.grow(size_bytes)
        self.requests += 1
        try:
            yield place
        finally:
            self.requests -= 1
            self.used_bytes -= place.size_bytes

    def check_bytes(self, size_bytes: int, *, own_bytes: int) -> None:
        """Refuse bytes that do not fit beside those of others; one request alone always fits, whatever its size.

        Raises:
            ServerFull: naming the bytes in use.
        """
        if self.used_bytes > own_bytes and self.used_bytes + size_bytes > self.max_bytes:
            raise ServerFull(what="bytes", used=self.used_bytes, limit=self.max_bytes)

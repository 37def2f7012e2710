"""Owns the engines, one for each device, and sends each image to the device that keeps its features."""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence

from m2ib_server.engine.engine import Engine


class Fleet:
    """The engines of all devices."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        """Take at least one engine."""
        self._engines = tuple(engines)
        self._was_given_up = False

    def __iter__(self) -> Iterator[Engine]:
        return iter(self._engines)

    def engine_for(self, digest: str) -> Engine:
        """Return the engine for a content digest: always the same one (rendezvous hashing)."""
        return self._engines[route(digest, len(self._engines))]

    def shares(self, digests: Sequence[str]) -> Mapping[Engine, Sequence[int]]:
        """Return the places of the digests by the engine that each belongs to."""
        shares: dict[Engine, list[int]] = {}
        for place, digest in enumerate(digests):
            shares.setdefault(self.engine_for(digest), []).append(place)
        return shares

    def until_end(self) -> float:
        """Estimate when the first job under way on any device is done, in seconds; 0 where there is none."""
        return min((seconds for engine in self._engines if (seconds := engine.roster.until_end())), default=0.0)

    def start(self) -> None:
        """Start every compute thread."""
        for engine in self._engines:
            engine.start()

    def close(self, timeout_seconds: float | None = None) -> bool:
        """Send away every caller that is left and end every compute thread; return whether all have ended in time.

        The timeout is that of all threads together. Those that were given up once are not waited for again.
        """
        for engine in self._engines:
            engine.stop()
        if self._was_given_up:
            timeout_seconds = 0.0
        began = time.monotonic()
        have_ended = []
        for engine in self._engines:
            left = None if timeout_seconds is None else max(0.0, began + timeout_seconds - time.monotonic())
            have_ended.append(engine.join(left))
        self._was_given_up = not all(have_ended)
        return not self._was_given_up


def route(digest: str, count: int) -> int:
    """Return the index, below `count`, of the engine for a digest; one engine more moves only what moves to it."""
    return max(range(count), key=lambda index: hashlib.sha256(f"{index} {digest}".encode()).digest())

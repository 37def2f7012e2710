"""Owns whether the server takes calls, and which are under way. One event loop's alone."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from m2ib_server.errors import Draining, Loading, ServiceError


class Phase(StrEnum):
    """What the server is doing."""

    LOADING = "loading"
    OPEN = "open"
    DRAINING = "draining"


REFUSAL_BY_PHASE: dict[Phase, type[ServiceError] | None] = {
    Phase.LOADING: Loading,
    Phase.OPEN: None,
    Phase.DRAINING: Draining,
}


class Lifecycle:
    """The server's phase and its calls. Questions for health are none of them: they are answered in every phase."""

    def __init__(self, phase: Phase = Phase.LOADING) -> None:
        """Begin in a phase, without calls."""
        self.phase = phase
        self._calls: dict[object, asyncio.Task[Any]] = {}
        self._cut: set[object] = set()
        self._told: dict[object, Callable[[], None]] = {}
        self._ended = asyncio.Event()

    def open(self) -> None:
        """Take calls from now on, unless the server is draining already."""
        if self.phase is Phase.LOADING:
            self.phase = Phase.OPEN

    def drain(self) -> None:
        """Take no call any more; those under way go on, and are told where they asked to be."""
        self.phase = Phase.DRAINING
        for tell in tuple(self._told.values()):
            tell()

    @contextmanager
    def telling_of_drain(self, tell: Callable[[], None]) -> Iterator[None]:
        """While the body lasts, call `tell` once no call is taken any more; at once where that is so already."""
        if self.phase is Phase.DRAINING:
            tell()
        key = object()
        self._told[key] = tell
        try:
            yield
        finally:
            del self._told[key]

    @property
    def is_open(self) -> bool:
        """Whether calls are taken."""
        return self.phase is Phase.OPEN

    def check(self) -> None:
        """Refuse a call while none is taken.

        Raises:
            Loading: the models are not loaded yet.
            Draining: the server is shutting down.
        """
        if (refusal := REFUSAL_BY_PHASE[self.phase]) is not None:
            raise refusal()

    @contextmanager
    def call(self) -> Iterator[Callable[[], bool]]:
        """Surround a call, the recording of its end included; give what tells whether it was cut off.

        Raises:
            Loading: as `check`.
            Draining: as `check`, and where the call was cut off.
        """
        self.check()
        task, key = asyncio.current_task(), object()
        assert task is not None, "calls are made on the event loop"
        self._calls[key] = task
        try:
            yield lambda: key in self._cut
        except asyncio.CancelledError as error:
            if key not in self._cut:
                raise
            task.uncancel()
            raise Draining from error
        finally:
            del self._calls[key]
            self._cut.discard(key)
            self._ended.set()

    async def until_idle(self, timeout_seconds: float) -> bool:
        """Wait until no call is under way; return whether that came before the timeout."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while self._calls:
                    self._ended.clear()
                    await self._ended.wait()
        except TimeoutError:
            return False
        return True

    def cut(self) -> int:
        """End every call that is under way as one that the server is too busy ending to answer; return how many."""
        for key, task in self._calls.items():
            self._cut.add(key)
            task.cancel()
        return len(self._calls)

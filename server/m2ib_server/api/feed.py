"""Carries steps from the compute thread to an event loop; for a reader that falls far behind the latest one wins."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from m2ib_server.methods import StepDone

MAX_UNREAD = 64  # a reader that has so many before it is behind, and gets the latest alone until it has caught up


class StepFeed:
    """A feed of one job's steps for one reader."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Feed a reader on `loop`."""
        self._loop = loop
        self._unread: deque[StepDone] = deque()
        self._is_behind = False
        self._changed = asyncio.Event()
        self._is_over = False

    def put(self, step: StepDone) -> None:
        """Add a step. May be called from any thread; a loop that has ended is no error, nobody reads then."""
        self._from_thread(self._append, step)

    def end(self) -> None:
        """End the feed once all unread steps are read. May be called from any thread."""
        self._from_thread(self._append, None)

    async def steps(self) -> AsyncIterator[StepDone]:
        """Iterate over the steps until the feed ends."""
        while True:
            while self._unread:
                yield self._unread.popleft()
            self._is_behind = False
            if self._is_over:
                return
            self._changed.clear()
            await self._changed.wait()

    def _append(self, step: StepDone | None) -> None:
        if step is None:
            self._is_over = True
        else:
            if self._is_behind or len(self._unread) >= MAX_UNREAD:
                self._is_behind = True
                self._unread.clear()
            self._unread.append(step)
        self._changed.set()

    def _from_thread(self, call: Callable[[StepDone | None], None], step: StepDone | None) -> None:
        try:
            self._loop.call_soon_threadsafe(call, step)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

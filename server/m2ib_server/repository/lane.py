"""Owns the one thread at a time that looks at a folder or file which may hang; nobody waits for it for ever."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from m2ib_server.apart import apart
from m2ib_server.errors import ModelsStalled

Outcome = TypeVar("Outcome")
THREAD = "m2ib-models"


class Lane:
    """Work on one folder or file, one after the other. One event loop's alone."""

    def __init__(self, patience_seconds: float) -> None:
        """Let whoever asks wait for so long."""
        self._patience_seconds = patience_seconds
        self._free = asyncio.Lock()  # taken while a thread is at work, also once nobody waits for it any more
        self._waiting: set[asyncio.Task[Any]] = set()  # those that have not begun
        self._begun: set[asyncio.Task[Any]] = set()
        self._shared: asyncio.Task[Any] | None = None

    async def run(self, work: Callable[[], Outcome]) -> Outcome:
        """Do work in its turn; what has not begun when its time is up never does.

        Raises:
            ModelsStalled: it has not ended in time.
        """
        task = self._enqueue(work)
        try:
            return await self._outcome_of(task)
        finally:
            if task in self._waiting:
                task.cancel()

    async def share(self, look: Callable[[], Outcome]) -> Outcome:
        """Look in its turn; one look that has not begun does for all who ask for it, each sees what was there before.

        Raises:
            ModelsStalled: it has not ended in time.
        """
        if self._shared not in self._waiting:
            self._shared = self._enqueue(look)
        assert self._shared is not None, "it was made above"
        return await self._outcome_of(self._shared)

    def _enqueue(self, work: Callable[[], Outcome]) -> "asyncio.Task[Outcome]":
        async def turn() -> Outcome:
            async with self._free:
                self._waiting.discard(task)
                self._begun.add(task)
                return await apart(work, THREAD)

        task = asyncio.create_task(turn())
        self._waiting.add(task)
        task.add_done_callback(self._forget)
        return task

    async def _outcome_of(self, task: "asyncio.Task[Outcome]") -> Outcome:
        await asyncio.wait({task}, timeout=self._patience_seconds)
        if not task.done():
            raise ModelsStalled(seconds=self._patience_seconds)
        return task.result()

    def _forget(self, task: "asyncio.Task[Any]") -> None:
        self._waiting.discard(task)
        self._begun.discard(task)
        if not task.cancelled():
            task.exception()  # told to whoever still waits; nobody may be left

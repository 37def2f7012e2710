"""Owns the threads beside the event loop: a lane each for reading, decoding and answering; none waits for another."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")
THREADS = 2  # of each lane


class Workers:
    """Three lanes. One event loop's alone."""

    def __init__(self) -> None:
        """Begin without threads; they come with the work."""
        self._preparing, self._decoding, self._answering = (_Lane(name) for name in ("prepare", "decode", "answer"))

    async def aside(self, work: Callable[[], Result]) -> Result:
        """Run slow work that ends soon: digests, tokens."""
        return await self._preparing.run(work)

    async def decode(self, work: Callable[[], Result]) -> Result:
        """Decode an image; a hostile one may hold its thread for as long as `imaging` bears with it."""
        return await self._decoding.run(work)

    async def answer(self, work: Callable[[], Result]) -> Result:
        """Draw maps and pictures, which for a large original takes a while."""
        return await self._answering.run(work)

    def close(self) -> None:
        """Begin nothing more and let the threads end."""
        for lane in (self._preparing, self._decoding, self._answering):
            lane.close()


class _Lane:
    """A few threads. What waits for one does so on the event loop, so that who leaves takes all of it along."""

    def __init__(self, name: str) -> None:
        self._free = asyncio.Semaphore(THREADS)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix=f"m2ib-{name}")

    async def run(self, work: Callable[[], Result]) -> Result:
        await self._free.acquire()
        running = asyncio.get_running_loop().run_in_executor(self._pool, work)
        running.add_done_callback(self._landed)
        return await asyncio.shield(running)  # a thread that has begun is not free before it has ended

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _landed(self, running: asyncio.Future[Any]) -> None:
        self._free.release()
        if not running.cancelled():
            running.exception()  # told to whoever still waits; nobody may be left

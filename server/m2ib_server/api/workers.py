"""Owns the threads beside the event loop: images have some of their own, so that nothing else waits for a decoder."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")
PREPARING_THREADS = 2
DECODING_THREADS = 2


class Workers:
    """Two pools of threads. One event loop's alone."""

    def __init__(self) -> None:
        """Begin without threads; they come with the work."""
        self._preparing = ThreadPoolExecutor(PREPARING_THREADS, thread_name_prefix="m2ib-prepare")
        self._decoding = ThreadPoolExecutor(DECODING_THREADS, thread_name_prefix="m2ib-decode")

    async def aside(self, work: Callable[[], Result]) -> Result:
        """Run slow work that ends by itself: digests, tokens, answers."""
        return await _run(self._preparing, work)

    async def decode(self, work: Callable[[], Result]) -> Result:
        """Decode an image; a hostile one may hold its thread for as long as `imaging` bears with it."""
        return await _run(self._decoding, work)

    def close(self) -> None:
        """Begin nothing more and let the threads end."""
        for pool in (self._preparing, self._decoding):
            pool.shutdown(wait=False, cancel_futures=True)


async def _run(pool: Executor, work: Callable[[], Result]) -> Result:
    return await asyncio.get_running_loop().run_in_executor(pool, work)

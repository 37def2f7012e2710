"""Texts and answers do not wait for images, however long a decoder takes."""

import asyncio
import threading

from m2ib_server.api.workers import DECODING_THREADS, Workers

SECONDS = 10


async def test_decoders_that_hang_hold_up_nothing_but_images():
    workers, release, held = Workers(), threading.Event(), threading.Semaphore(0)

    def hang() -> None:
        held.release()
        release.wait(SECONDS)

    hanging = [asyncio.create_task(workers.decode(hang)) for _ in range(DECODING_THREADS)]
    next_image = asyncio.create_task(workers.decode(lambda: "decoded"))
    try:
        for _ in range(DECODING_THREADS):
            assert await asyncio.to_thread(held.acquire, timeout=SECONDS)
        assert await asyncio.wait_for(workers.aside(lambda: "prepared"), SECONDS / 2) == "prepared"
        assert not next_image.done()
    finally:
        release.set()
    await asyncio.gather(*hanging)
    assert await next_image == "decoded"
    workers.close()

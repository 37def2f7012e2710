"""Texts and answers do not wait for images, however long a decoder takes."""

import asyncio
import threading

from m2ib_server.api.workers import THREADS, Workers

SECONDS = 10


async def test_decoders_that_hang_hold_up_nothing_but_images():
    workers, release, held = Workers(), threading.Event(), threading.Semaphore(0)

    def hang() -> None:
        held.release()
        release.wait(SECONDS)

    hanging = [asyncio.create_task(workers.decode(hang)) for _ in range(THREADS)]
    next_image = asyncio.create_task(workers.decode(lambda: "decoded"))
    try:
        for _ in range(THREADS):
            assert await asyncio.to_thread(held.acquire, timeout=SECONDS)
        assert await asyncio.wait_for(workers.aside(lambda: "prepared"), SECONDS / 2) == "prepared"
        assert not next_image.done()
    finally:
        release.set()
    await asyncio.gather(*hanging)
    assert await next_image == "decoded"
    workers.close()


async def test_work_that_nobody_waits_for_any_more_is_let_go_of_at_once():
    workers, release, held, begun = Workers(), threading.Event(), threading.Semaphore(0), []

    def work(name: int) -> None:
        begun.append(name)
        held.release()
        release.wait(SECONDS)

    tasks = [asyncio.create_task(workers.decode(lambda name=name: work(name))) for name in range(THREADS + 10)]
    for _ in range(THREADS):
        assert await asyncio.to_thread(held.acquire, timeout=SECONDS)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    last = asyncio.create_task(workers.decode(lambda: "decoded"))
    await asyncio.sleep(0.01)
    assert not last.done()  # the threads are still held by what had begun
    release.set()
    assert await last == "decoded"
    assert begun == list(range(THREADS))
    workers.close()

"""Checks that a run of `explain_many` ends with everything it began, and how it shares a thread or a loop."""

import asyncio
import gc
import itertools
import threading
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

import m2ib_client
from m2ib_client import (
    AsyncClient,
    Client,
    Pair,
)
from m2ib_client.testing import FakeService
from pairs import SOON, TEXT, client_threads, eventually, films, numbered, sources


def test_whole_run_is_no_cancelled_call(connect: Any, fake: FakeService) -> None:
    list(connect(fake).explain_many(numbered(3)))
    time.sleep(0.05)
    assert fake.cancelled_calls == 0


@pytest.mark.parametrize("leave", [lambda results: results.close(), lambda _: None], ids=["close", "drop"])
def test_leaving_early_cancels_on_the_server_and_leaves_no_thread(slow_fake: FakeService, leave: Any) -> None:
    with Client(slow_fake.address) as client:
        client.models()
        before = client_threads()
        results = client.explain_many(((film, TEXT) for film in itertools.cycle(films(50))), steps=2)
        next(results)
        assert client_threads() > before
        leave(results)
        del results
        gc.collect()
        assert not [thread for thread in threading.enumerate() if thread.name == "m2ib-answers"]
        assert eventually(lambda: client_threads() <= before)
        assert eventually(lambda: slow_fake.cancelled_calls == 1)


def test_whole_run_leaves_no_thread(fake: FakeService) -> None:
    with Client(fake.address) as client:
        client.models()
        before = client_threads()
        fake.break_next_batch(SOON, after=4)
        assert len(list(client.explain_many(numbered(10)))) == 10
        assert eventually(lambda: client_threads() <= before)


def test_failed_run_leaves_no_thread(slow_fake: FakeService) -> None:
    with Client(slow_fake.address) as client:
        client.models()
        before = client_threads()
        with pytest.raises(m2ib_client.DeadlineError):
            list(client.explain_many(numbered(3, steps=100), timeout=0.2))
        assert eventually(lambda: client_threads() <= before)


def test_closing_the_client_under_a_run_ends_it(slow_fake: FakeService) -> None:
    client = Client(slow_fake.address)
    results = client.explain_many(numbered(2, steps=100))
    timer = threading.Timer(0.3, client.close)
    timer.start()
    with pytest.raises(m2ib_client.CallCancelledError):
        next(results)
    timer.join()


def test_many_runs_share_a_client(fake: FakeService) -> None:
    with Client(fake.address) as client:
        runs = [client.explain_many(numbered(6), seed=seed) for seed in range(3)]
        for results in zip(*runs, strict=True):
            assert [result.explained().provenance.settings.seed for result in results] == [0, 1, 2]


async def test_pairs_may_come_asynchronously_and_in_one_task(fake: FakeService) -> None:
    tasks = set()

    async def pairs() -> AsyncIterator[Pair]:
        for pair in numbered(5):
            await asyncio.sleep(0)
            tasks.add(asyncio.current_task())
            yield pair

    async with AsyncClient(fake.address) as client:
        results = [result async for result in client.explain_many(pairs())]
    assert [result.index for result in results] == [0, 1, 2, 3, 4]
    assert len(tasks) == 1


async def test_waiting_for_a_pair_holds_up_no_answer(fake: FakeService) -> None:
    is_answered = asyncio.Event()

    async def pairs() -> AsyncIterator[Pair]:
        first, second = numbered(2)
        yield first
        await is_answered.wait()
        yield second

    async with AsyncClient(fake.address) as client:
        async for result in client.explain_many(pairs(), timeout=5):
            assert result.error is None
            is_answered.set()


async def test_leaving_early_leaves_no_task(slow_fake: FakeService) -> None:
    async with AsyncClient(slow_fake.address) as client:
        await client.models()
        before = asyncio.all_tasks()
        pairs = ((film, TEXT) for film in itertools.cycle(films(50)))
        async with aclosing(client.explain_many(pairs, steps=2)) as results:
            async for _ in results:
                break
        await asyncio.sleep(0.05)
        assert asyncio.all_tasks() == before
        assert await asyncio.to_thread(eventually, lambda: slow_fake.cancelled_calls == 1)


async def test_dropping_the_iterator_leaves_no_task_either(slow_fake: FakeService) -> None:
    async with AsyncClient(slow_fake.address) as client:
        await client.models()
        before = asyncio.all_tasks()
        async for _ in client.explain_many(((film, TEXT) for film in itertools.cycle(films(50))), steps=2):
            break
        gc.collect()
        assert await asyncio.to_thread(eventually, lambda: slow_fake.cancelled_calls == 1)
        await asyncio.sleep(0.05)
        assert asyncio.all_tasks() == before


async def test_cancelled_task_leaves_no_task_and_cancels_on_the_server(slow_fake: FakeService) -> None:
    async def endless() -> AsyncIterator[Pair]:
        for film in films(4):
            yield Pair(film, TEXT)
        await asyncio.Event().wait()

    async def consume(client: AsyncClient) -> None:
        async for _ in client.explain_many(endless(), steps=100):
            pass

    async with AsyncClient(slow_fake.address) as client:
        await client.models()
        before = asyncio.all_tasks()
        task = asyncio.create_task(consume(client))
        assert await asyncio.to_thread(eventually, lambda: len(sources(slow_fake)) == 4)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.05)
        assert asyncio.all_tasks() == before
        assert await asyncio.to_thread(eventually, lambda: slow_fake.cancelled_calls == 1)


async def test_whole_run_leaves_no_task(fake: FakeService) -> None:
    async with AsyncClient(fake.address) as client:
        await client.models()
        before = asyncio.all_tasks()
        fake.break_next_batch(SOON, after=4)
        assert len([result async for result in client.explain_many(numbered(10))]) == 10
        await asyncio.sleep(0.05)
        assert asyncio.all_tasks() == before


async def test_what_is_no_iterable_is_a_type_error(fake: FakeService) -> None:
    async with AsyncClient(fake.address) as client:
        with pytest.raises(TypeError, match="iterable"):
            [result async for result in client.explain_many(3)]  # type: ignore[arg-type]
    with Client(fake.address) as client_in_threads, pytest.raises(TypeError, match="iterable"):
        client_in_threads.explain_many(3)  # type: ignore[arg-type]

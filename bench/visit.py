"""Plays the server's clients: each asks again as soon as it is answered, or requests come whatever is answered."""

import asyncio
import itertools
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from m2ib_client import AsyncClient, Explanation
from subject import TEXT

_SEEDS = itertools.count()  # no request is like another, so none shares another's computation


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One request that was answered.

    Attributes:
        latency: from when the request was due until its answer was read, in seconds.
        engine: the part of it that the server's engine says it took, waiting included, in seconds.
        prepare: the part for reading the request, in seconds.
        render: the part for maps and pictures, in seconds.
    """

    latency: float
    engine: float
    prepare: float
    render: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What came of one load.

    Attributes:
        visits: one for each request.
        seconds: from the first request to the last answer.
    """

    visits: tuple[Visit, ...]
    seconds: float

    @property
    def rate(self) -> float:
        """Requests answered per second."""
        return len(self.visits) / self.seconds


class Visitors:
    """Clients of one server; each has an `AsyncClient` of its own. One event loop's alone."""

    def __init__(self, address: str, steps: int) -> None:
        """Visit the server at an address, asking for so many steps and else for what is published."""
        self._address = address
        self._steps = steps

    async def closed(self, images: Sequence[bytes], clients: int) -> Level:
        """Ask for an explanation of every image; so many clients take the next one as soon as they are answered."""
        left = iter(images)
        started = time.perf_counter()
        of_each = await asyncio.gather(*(self._again_and_again(left) for _ in range(clients)))
        seconds = time.perf_counter() - started
        return Level(visits=tuple(visit for visits in of_each for visit in visits), seconds=seconds)

    async def open(self, images: Sequence[bytes], rate: float) -> Level:
        """Ask for an explanation of every image at random times, `rate` a second, whatever is answered meanwhile.

        Latency counts from the time a request was due, so that a late client hides nothing.
        """
        gaps = random.Random(0)
        started = due = time.perf_counter()
        async with AsyncClient(self._address, timeout=None) as client, asyncio.TaskGroup() as group:
            tasks = []
            for image in images:
                await asyncio.sleep(due - time.perf_counter())
                tasks.append(group.create_task(self._ask(client, image, due)))
                due += gaps.expovariate(rate)
        return Level(visits=tuple(task.result() for task in tasks), seconds=time.perf_counter() - started)

    async def _again_and_again(self, images: Iterator[bytes]) -> list[Visit]:
        async with AsyncClient(self._address, timeout=None) as client:
            return [await self._ask(client, image, time.perf_counter()) for image in images]

    async def _ask(self, client: AsyncClient, image: bytes, due: float) -> Visit:
        explanation = await client.explain(image, TEXT, steps=self._steps, seed=next(_SEEDS))
        return _visit(explanation, time.perf_counter() - due)


def _visit(explanation: Explanation, latency: float) -> Visit:
    timings = explanation.timings
    engine = (
        timings.queue_seconds + timings.encode_seconds + timings.optimise_image_seconds + timings.optimise_text_seconds
    )
    return Visit(latency=latency, engine=engine, prepare=timings.prepare_seconds, render=timings.render_seconds)

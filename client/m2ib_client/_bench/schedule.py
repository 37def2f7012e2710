"""Decides beforehand which calls a load test makes and when. Knows nothing of clocks or answers."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Literal, TypeAlias

from m2ib_client._options import PriorityName

ArrivalsName: TypeAlias = Literal["poisson", "constant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What load to offer.

    `rate` is in calls a second, above 0; `duration` and `warm_up` are in seconds, the latter before the former and not
    measured. The shares, from 0 to 1, are of all calls: `cancel` of those that are cancelled under way, `stream` of
    those that follow every step, `bulk` of those that let others go first. The same `seed` plans the same calls.
    """

    rate: float
    duration: float
    warm_up: float = 0.0
    arrivals: ArrivalsName = "poisson"
    cancel: float = 0.0
    stream: float = 0.0
    bulk: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One call of a plan.

    `at` is when it is made, in seconds after the beginning. `image` and `text` are numbers from 0 to the counts that
    were planned for. `cancel_after` is where in the usual time of a call it is cancelled, in [0, 1); None where it is
    not. `is_measured` is False during the warm-up.
    """

    index: int
    at: float
    image: int
    text: int
    is_streamed: bool
    priority: PriorityName
    cancel_after: float | None
    is_measured: bool


def planned(plan: Plan, *, images: int, texts: int) -> Iterator[Arrival]:
    """Yield the plan's calls in the order of their times; `images` 0 means a new one for each call."""
    chance = random.Random(plan.seed)  # noqa: S311 - a load to repeat, no secret
    for index, at in enumerate(_times(plan, random.Random(plan.seed + 1))):  # noqa: S311 - the same
        is_cancelled, fraction = chance.random() < plan.cancel, chance.random()
        yield Arrival(
            index=index,
            at=at,
            is_measured=at >= plan.warm_up,
            cancel_after=fraction if is_cancelled else None,
            is_streamed=chance.random() < plan.stream,
            priority="bulk" if chance.random() < plan.bulk else "interactive",
            image=chance.randrange(images) if images else index,
            text=chance.randrange(texts),
        )


def _times(plan: Plan, chance: random.Random) -> Iterator[float]:
    end = plan.warm_up + plan.duration
    if plan.arrivals == "constant":
        yield from takewhile(lambda at: at < end, (index / plan.rate for index in count()))
        return
    at = chance.expovariate(plan.rate)
    while at < end:
        yield at
        at += chance.expovariate(plan.rate)

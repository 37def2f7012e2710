"""Owns the list of what is compared: every trajectory once, the order of the work, and the readings along each."""

from collections.abc import Iterator
from dataclasses import dataclass

from fidelity_mask import Plan

SEEDS = (0, 1, 2)
REFERENCE_SEEDS = (100, 101, 102, 103)
FILMS, PART = 500, 25  # films in all, films a job
REFERENCE_FILMS = 25


def _plan(shape: str, beta: float, rows: int, steps: int, *, pairs: bool = False) -> Plan:
    return Plan(shape=shape, beta=beta, rows=rows, steps=steps, is_antithetic=pairs)


PUBLISHED = _plan("channel", 5, 10, 10)  # the paper's ten by ten, at the beta chosen on validation films
LEADERS = (
    PUBLISHED,
    _plan("channel", 5, 2, 20),
    _plan("token", 1, 2, 20),
    _plan("channel", 5, 5, 20),
)
REST = (
    _plan("channel", 1, 10, 10),  # the paper's beta for chest films
    _plan("token", 1, 5, 20),
    _plan("channel", 1, 5, 20),
    _plan("token", 1, 2, 20, pairs=True),
    _plan("token", 1, 4, 10),
    _plan("token", 1, 1, 20),
    _plan("token", 0.3, 2, 20),
    _plan("channel", 3, 2, 20),
    _plan("channel", 1, 2, 20),
    _plan("channel", 5, 1, 40),
    _plan("channel", 1, 10, 10, pairs=True),
    _plan("token", 1, 10, 10),
)
REFERENCES = tuple(_plan(shape, beta, 64, 20) for shape, beta in (("channel", 1), ("token", 1), ("channel", 5)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A trajectory of some films under one seed.

    Attributes:
        plan: the trajectory.
        seed: the noise's.
        start: the first film.
        count: films.
    """

    plan: Plan
    seed: int
    start: int
    count: int

    @property
    def name(self) -> str:
        """A name that is a file's."""
        return f"{self.plan.name}.seed{self.seed}.from{self.start}"


def jobs() -> Iterator[Job]:
    """The whole work, in an order that leaves a usable study wherever it is stopped."""
    parts = tuple(range(0, FILMS, PART))
    yield from _parts(LEADERS, parts)
    for plan in REFERENCES:
        for seed in REFERENCE_SEEDS:
            yield Job(plan=plan, seed=seed, start=0, count=REFERENCE_FILMS)
    yield from _parts(REST, parts)


def _parts(plans: tuple[Plan, ...], starts: tuple[int, ...]) -> Iterator[Job]:
    for start in starts:
        for plan in plans:
            for seed in SEEDS:
                yield Job(plan=plan, seed=seed, start=start, count=PART)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A map read along a trajectory.

    Attributes:
        plan: the trajectory.
        steps: steps paid for.
        is_after: read after the last update; the published map is read before it, at the last step's own noise.
    """

    plan: Plan
    steps: int
    is_after: bool = False

    @property
    def updates(self) -> int:
        """Adam's updates before the reading."""
        return self.steps if self.is_after else self.steps - 1

    @property
    def row_steps(self) -> int:
        """What the map costs."""
        return self.plan.rows * self.steps

    @property
    def name(self) -> str:
        """Mask, beta, rows x steps and what is particular."""
        particular = ", opposite pairs" * self.plan.is_antithetic + ", after the last update" * self.is_after
        return f"{self.plan.shape}, beta {self.plan.beta:g}, {self.plan.rows}x{self.steps}{particular}"


def _read(plan: Plan, *steps: int, after: bool = False) -> tuple[Contender, ...]:
    return tuple(Contender(plan=plan, steps=count, is_after=after) for count in steps)


AS_PUBLISHED = Contender(plan=PUBLISHED, steps=10)
CONTENDERS = (
    AS_PUBLISHED,
    *_read(PUBLISHED, 10, after=True),
    *_read(PUBLISHED, 5),
    *(each for plan in (*LEADERS[1:], *REST) for each in _read(plan, *sorted({10, plan.steps}, reverse=True))),
    *_read(REST[0], 10, after=True),
    *_read(LEADERS[1], 20, after=True),
    *_read(LEADERS[2], 20, after=True),
)
SETTLING = (PUBLISHED, LEADERS[1], LEADERS[2], LEADERS[3])  # stopped once the map has settled
AVERAGED = (*_read(PUBLISHED, 10), *_read(LEADERS[1], 20), *_read(LEADERS[2], 20), *_read(LEADERS[3], 20))

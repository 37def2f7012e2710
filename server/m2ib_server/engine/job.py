"""Owns one job, a method under way, and its callers: identical requests share a job, and each caller leaves alone."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic

from torch import Tensor

from m2ib_server.engine.schedule import Contender, Priority
from m2ib_server.engine.turn import cut, joined, rows_by_role, rows_of
from m2ib_server.methods import Evaluation, Event, Method, StepDone
from m2ib_server.methods.evaluation import Outcome
from m2ib_server.package import Role


class Stage(StrEnum):
    """What a job spends its time on."""

    QUEUE = "queue"
    ENCODE = "encode"
    OPTIMISE_IMAGE = "optimise_image"
    OPTIMISE_TEXT = "optimise_text"


STAGE_BY_ROLE = {
    Role.VISION_HEAD: Stage.ENCODE,
    Role.VISION_TAIL: Stage.ENCODE,
    Role.VISION_TAIL_GRAD: Stage.OPTIMISE_IMAGE,
    Role.TEXT_HEAD: Stage.ENCODE,
    Role.TEXT_TAIL: Stage.ENCODE,
    Role.TEXT_TAIL_GRAD: Stage.OPTIMISE_TEXT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """A time that was spent on one stage.

    Attributes:
        stage: its name.
        started_ns: on the monotonic clock.
        ended_ns: on the same.
    """

    stage: str
    started_ns: int
    ended_ns: int

    @property
    def seconds(self) -> float:
        """How long it was."""
        return (self.ended_ns - self.started_ns) / 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance(Generic[Outcome]):
    """What came of one step of a job.

    Attributes:
        events: what happened, in order.
        is_done: whether the method has returned.
        outcome: what it returned; None before.
    """

    events: tuple[Event, ...]
    is_done: bool = False
    outcome: Outcome | None = None


class Caller(Generic[Outcome]):
    """One request's stake in a job. `reply` is ended by the engine alone (docs/decisions/0003)."""

    def __init__(
        self,
        *,
        on_step: Callable[[StepDone], None] | None = None,
        deadline_ns: int | None = None,
        wants_partial: bool = False,
    ) -> None:
        """Prepare a caller.

        Args:
            on_step: called on the engine's thread after each step; must return at once and never raise.
            deadline_ns: on the monotonic clock; the caller expires at the first step after it.
            wants_partial: whether it takes what there is before the deadline rather than be refused.
        """
        self.reply: Future[Outcome] = Future()
        self.reply.set_running_or_notify_cancel()  # a caller that leaves says so by cancel()
        self.priority = Priority.INTERACTIVE  # that of the job it came with
        self.deadline_ns = deadline_ns
        self.wants_partial = wants_partial
        self.is_shared = False
        self._on_step = on_step
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Leave; the engine notices at its next step. May be called from any thread, any number of times."""
        self._cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether the caller has left."""
        return self._cancelled.is_set()

    def is_expired(self, now_ns: int) -> bool:
        """Whether the deadline has passed."""
        return self.deadline_ns is not None and now_ns >= self.deadline_ns

    def tell(self, event: Event) -> None:
        """Tell of an event."""
        if self._on_step is not None and isinstance(event, StepDone):
            self._on_step(event)


class Job(Generic[Outcome]):
    """A method under way. Everything but the constructor belongs to the engine."""

    def __init__(
        self,
        method: Method[Outcome],
        *,
        model: str,
        key: Hashable = None,
        rows: int = 1,
        work: Mapping[Role, int] | None = None,
        priority: Priority = Priority.INTERACTIVE,
        so_far: Callable[[Sequence[Event]], Outcome | None] = lambda events: None,
    ) -> None:
        """Prepare a job.

        Args:
            method: not yet started.
            model: the digest of the model whose graphs it runs on.
            key: everything that its outcome depends on; jobs with the same key are one. None is like no other.
            rows: the rows that one of its steps evaluates.
            work: the rows that it evaluates in all, by graph, as far as that is known before.
            priority: its class; a caller of a better class lifts it.
            so_far: makes an outcome of the events so far, or None where they are not enough for one.
        """
        self.model = model
        self.key = key
        self.priority = priority
        self.callers: list[Caller[Outcome]] = []
        self.events: list[Event] = []
        self.cached_roles: set[Role] = set()
        self.seconds: dict[Stage, float] = dict.fromkeys(Stage, 0.0)
        self.share = 0
        self.is_started = False
        self.idle_since_ns = time.monotonic_ns()
        self._rows = rows
        self._step: tuple[Evaluation, ...] = ()
        self._done: list[tuple[Evaluation, tuple[Tensor, ...]]] = []
        self._left = Counter(work or {})
        self._method = method
        self._so_far = so_far
        self._stage = Stage.QUEUE
        self._marked_ns = time.monotonic_ns()
        self._open = self._stage, self._marked_ns  # the period under way, as one value: any thread may read it
        self._ended_ns: int | None = None
        self._periods: list[Period] = []

    @property
    def contender(self) -> Contender:
        """The job as the policy sees it."""
        rows = rows_of(self._step) - self._done_rows if self._done else self._rows
        return Contender(
            priority=self.priority,
            rows=rows,
            step_rows=self._rows,
            share=self.share,
            idle_since_ns=self.idle_since_ns,
        )

    @property
    def rows_left(self) -> Mapping[Role, int]:
        """The rows that it has still to evaluate, by graph, as far as that is known."""
        return dict(self._left)

    @property
    def _done_rows(self) -> int:
        return rows_of(part for part, _ in self._done)

    def turn(self, max_rows: int) -> list[Evaluation]:
        """Return what it wants evaluated next: at most `max_rows` rows of its step; nothing before it has started."""
        return cut(self._step, start=self._done_rows, max_rows=max_rows)

    def so_far(self) -> Outcome | None:
        """Return an outcome of what has happened so far, or None."""
        return self._so_far(self.events)

    def start(self) -> Advance[Outcome]:
        """Start the method; as `advance`."""
        self.is_started = True
        return self._send(None)

    def advance(self, parts: Sequence[Evaluation], answers: Sequence[tuple[Tensor, ...]]) -> Advance[Outcome]:
        """Take the answers to a turn; once its step is whole, hand them to the method and take what it wants next.

        Raises:
            Exception: whatever the method raises.
        """
        self._left.subtract(rows_by_role(parts))
        self.share += max(1, rows_of(parts))
        self.idle_since_ns = time.monotonic_ns()
        self._done.extend(zip(parts, answers, strict=True))
        if self._done_rows < rows_of(self._step):
            return Advance(events=())
        done, self._done = self._done, []
        return self._send(joined(self._step, done))

    def close(self) -> None:
        """End the method; one that another thread is inside goes on to its next step, for nobody."""
        self._ended_ns = self._ended_ns or time.monotonic_ns()
        with suppress(ValueError):  # Python's word for a generator that is being run
            self._method.close()

    def _send(self, answer: tuple[Tensor, ...] | None) -> Advance[Outcome]:
        events: list[Event] = []
        try:
            wanted = next(self._method) if answer is None else self._method.send(answer)
            while isinstance(wanted, Event):
                events.append(wanted)
                wanted = self._method.send(())
        except StopIteration as stop:
            self.mark(self._stage)
            self._ended_ns = self._marked_ns
            return Advance(events=tuple(events), is_done=True, outcome=stop.value)
        self._step = wanted if isinstance(wanted, tuple) else (wanted,)
        if self._step:
            self.mark(STAGE_BY_ROLE[self._step[0].role])
        return Advance(events=tuple(events))

    def mark(self, stage: Stage) -> None:
        """Book the time since the last mark on the stage so far, and go on in `stage`."""
        now_ns = time.monotonic_ns()
        self.seconds[self._stage] += (now_ns - self._marked_ns) / 1e9
        if stage is not self._stage:
            self._periods.append(Period(stage=self._stage, started_ns=self._open[1], ended_ns=now_ns))
            self._open = stage, now_ns
        self._stage, self._marked_ns = stage, now_ns

    def periods(self, *, since_ns: int, until_ns: int) -> list[Period]:
        """Return what of its stages lies between two times on the monotonic clock. May be called from any thread."""
        stage, entered_ns = self._open
        closed = [one for one in list(self._periods) if one.ended_ns <= entered_ns]
        last = Period(stage=stage, started_ns=entered_ns, ended_ns=self._ended_ns or until_ns)
        cut = [
            Period(stage=one.stage, started_ns=max(one.started_ns, since_ns), ended_ns=min(one.ended_ns, until_ns))
            for one in (*closed, last)
        ]
        return [one for one in cut if one.ended_ns >= one.started_ns]

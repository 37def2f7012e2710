"""Knows the admitted jobs and their callers, under one lock: who waits, who runs, who shares a job, who has left."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, cast

from m2ib_server.engine.admission import check_admission
from m2ib_server.engine.cost import CostModel
from m2ib_server.engine.estimate import Estimator
from m2ib_server.engine.job import Advance, Caller, Job
from m2ib_server.engine.schedule import Priority, entry_share, next_round
from m2ib_server.errors import (
    DeadlineExpired,
    DeadlineTooShort,
    Draining,
    EngineFailed,
    EngineRestarting,
    ServiceError,
)
from m2ib_server.settings import EngineLimits
from m2ib_server.telemetry import log_event, origin_of


class Ending(StrEnum):
    """How a caller's stake ended; each caller has exactly one of these."""

    ANSWERED = "answered"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REFUSED = "refused"  # never admitted


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """How many there are.

    Attributes:
        waiting: jobs that wait to start.
        running: jobs under way.
        callers: callers of either.
        shared: callers so far that joined a job under way.
        endings: callers so far by how their stake ended.
    """

    waiting: int
    running: int
    callers: int
    shared: int
    endings: dict[Ending, int]


class Roster:
    """The jobs of one engine. Any thread admits; the engine's thread does the rest."""

    def __init__(self, limits: EngineLimits, costs: CostModel) -> None:
        """Begin with no job."""
        self._limits = limits
        self._estimator = Estimator(limits, costs)
        self._changed = threading.Condition()
        self._waiting: list[Job[Any]] = []
        self._running: list[Job[Any]] = []
        self._by_key: dict[Hashable, Job[Any]] = {}
        self._endings: Counter[Ending] = Counter()
        self._shared = 0
        self._bulk_served_ns = 0
        self._refusal: Callable[[], ServiceError] | None = None  # what newcomers are told; None while they are welcome

    def admit(self, job: Job[Any], caller: Caller[Any]) -> Job[Any]:
        """Admit a caller with its job, or to the job with the same key that is under way; return that job.

        Raises:
            QueueFull: as many jobs of its class wait as may.
            WaitTooLong: the estimate says that it would wait for longer than its class may.
            DeadlineTooShort: the caller would not take a partial answer and the estimate does not fit its deadline.
            Draining: the engine is closing.
            EngineRestarting: its compute thread has ended by a fault.
        """
        with self._changed:
            try:
                admitted = self._place(job, caller)
            except Exception:
                self._endings[Ending.REFUSED] += 1
                raise
            for event in admitted.events:
                caller.tell(event)
            self._changed.notify()
        if admitted is not job:
            job.close()
        return admitted

    def census(self) -> Census:
        """Count."""
        with self._changed:
            return Census(
                waiting=len(self._waiting),
                running=len(self._running),
                callers=sum(len(job.callers) for job in self._jobs()),
                shared=self._shared,
                endings={ending: self._endings[ending] for ending in Ending},
            )

    def until_end(self) -> float:
        """Estimate when the first job under way is done, in seconds; 0 where there is none."""
        with self._changed:
            return self._estimator.until_end(self._running)

    def wait_for_work(self, timeout_seconds: float | None) -> bool:
        """Wait until there is a job or the engine closes; return whether one of the two came before the timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(self._jobs()) or self._is_closing, timeout_seconds)

    @property
    def is_over(self) -> bool:
        """Whether the engine is closing and no job is left."""
        with self._changed:
            return self._is_closing and not self._jobs()

    @property
    def has_work(self) -> bool:
        """Whether there are jobs."""
        with self._changed:
            return bool(self._jobs())

    def take_round(self, now_ns: int) -> list[Job[Any]]:
        """Let waiting jobs run as the policy has it, and return those that advance now."""
        with self._changed:
            contenders = [job.contender for job in self._running]
            chosen = next_round(
                [job.contender for job in self._waiting],
                contenders,
                now_ns,
                self._limits,
                bulk_served_ns=self._bulk_served_ns,
            )
            starting = [self._waiting[index] for index in chosen.starting]
            for job in starting:
                job.share = entry_share(job.priority, contenders)
                self._waiting.remove(job)
            self._running.extend(starting)
            return [self._running[index] for index in chosen.advancing]

    def still_running(self, jobs: Sequence[Job[Any]]) -> list[Job[Any]]:
        """Return those of the jobs that somebody still wants."""
        with self._changed:
            return [job for job in jobs if job in self._running]

    def seconds_of(self, jobs: Sequence[Job[Any]]) -> float:
        """Estimate how long a round of the jobs takes: a turn of each."""
        return sum(self._estimator.next_turn(job) for job in jobs)

    def dismiss(self, now_ns: int, horizon_ns: int) -> None:
        """End the callers who have left or whose time is over, and the jobs that nobody wants any more.

        `horizon_ns`: how long the next round may take; who takes a partial answer, and can have one, gets it before
        that is too late.
        """
        with self._changed:
            left = [
                (job, caller)
                for job in self._jobs()
                for caller in job.callers
                if self._is_closing or _is_over(job, caller, now_ns, horizon_ns)
            ]
            for job, caller in left:
                job.callers.remove(caller)
            unwanted = [job for job in self._jobs() if not job.callers]
            for job in unwanted:
                self._strike(job)
            for job in {job for job, _ in left}.difference(unwanted):
                self._settle_class(job)
        for job, caller in left:
            _whatever_comes(partial(self._end_early, job, caller))
        for job in unwanted:
            _whatever_comes(job.close)

    def record(self, job: Job[Any], advance: Advance[Any]) -> None:
        """Tell a job's callers what happened; answer them when it is done."""
        with self._changed:
            if job.priority is Priority.BULK:  # the end of its step: a long one must not use up the others' time
                self._bulk_served_ns = max(self._bulk_served_ns, job.idle_since_ns)
            job.events.extend(advance.events)
            callers = list(job.callers)
            if advance.is_done:
                job.callers.clear()
                self._strike(job)
        for event in advance.events:
            for caller in callers:
                caller.tell(event)
        if advance.is_done:
            for caller in callers:
                self._count(Ending.ANSWERED)
                caller.reply.set_result(advance.outcome)

    def fail(self, job: Job[Any], error: BaseException) -> None:
        """End a job, and every caller of it, with an error."""
        self._fail([(job, error)])

    def close(self) -> None:
        """Take no new job and send every caller that is left away."""
        with self._changed:
            self._refusal = Draining
            self._changed.notify_all()

    def fail_all(self, cause: BaseException | None = None) -> None:
        """Take no new job and end every one that is left, after the compute thread has ended by `cause`.

        What was under way may be why, and is not to be tried again; what still waited may be.
        """
        suspected = EngineFailed()
        suspected.__cause__ = cause
        with self._changed:
            if not self._is_closing:
                self._refusal = EngineRestarting
            running, waiting = list(self._running), list(self._waiting)
            self._changed.notify_all()
        self._fail([*((job, suspected) for job in running), *((job, EngineRestarting()) for job in waiting)])

    def reopen(self) -> None:
        """Take jobs again; there is none now. An engine that was closed stays so."""
        with self._changed:
            if self._refusal is Draining:
                return
            self._refusal = None
            self._running.clear()
            self._waiting.clear()
            self._by_key.clear()

    @property
    def _is_closing(self) -> bool:
        return self._refusal is not None

    def _place(self, job: Job[Any], caller: Caller[Any]) -> Job[Any]:
        if self._refusal is not None:
            raise self._refusal()
        caller.priority = job.priority
        under_way = self._by_key.get(job.key) if job.key is not None else None
        self._check_deadline(job if under_way is None else under_way, job.priority, caller)
        if under_way is not None:
            self._join(under_way, caller)
            return under_way
        check_admission(
            job.priority,
            self._limits,
            depth=sum(one.priority is job.priority for one in self._waiting),
            wait_seconds=self._estimator.wait(job, self._jobs()),
            until_room=lambda: self._estimator.until_end(self._running, job.priority),
        )
        job.callers.append(caller)
        self._waiting.append(job)
        if job.key is not None:
            self._by_key[job.key] = job
        return job

    def _join(self, job: Job[Any], caller: Caller[Any]) -> None:
        """Add a caller to a job under way; one of a better class lifts it there."""
        job.callers.append(caller)
        caller.is_shared = True
        self._shared += 1
        self._settle_class(job)

    def _settle_class(self, job: Job[Any]) -> None:
        """Put a job into the best class of its callers, without head start or debt there."""
        best = min((caller.priority for caller in job.callers), key=list(Priority).index)
        if best is not job.priority:
            job.share = entry_share(best, [one.contender for one in self._running])
            job.priority = best

    def _check_deadline(self, job: Job[Any], priority: Priority, caller: Caller[Any]) -> None:
        if caller.deadline_ns is None or caller.wants_partial:
            return
        estimate = self._estimator.until_done(job, priority, self._jobs())
        left = (caller.deadline_ns - time.monotonic_ns()) / 1e9
        if estimate > left:
            raise DeadlineTooShort(left=max(0.0, left), estimate=estimate)

    def _fail(self, ends: Sequence[tuple[Job[Any], BaseException]]) -> None:
        """End jobs with an error each: first every caller of all of them is told, then methods are closed."""
        with self._changed:
            left = [(caller, error) for job, error in ends for caller in job.callers]
            for job, _ in ends:
                job.callers.clear()  # whoever still works on it has nobody to tell
                self._strike(job)
        for caller, error in left:
            _whatever_comes(partial(self._fail_caller, caller, error))
        for job, _ in ends:
            _whatever_comes(job.close)

    def _fail_caller(self, caller: Caller[Any], error: BaseException) -> None:
        if not caller.reply.done():
            self._count(Ending.FAILED)
        caller.reply.set_exception(error)  # raises where there is a reply already

    def _end_early(self, job: Job[Any], caller: Caller[Any]) -> None:
        outcome = job.so_far() if caller.wants_partial and not caller.is_cancelled else None
        if outcome is not None:
            self._count(Ending.PARTIAL)
            caller.reply.set_result(outcome)
            return
        ending, error = Ending.EXPIRED, cast(Exception, DeadlineExpired())
        if caller.is_cancelled:
            ending, error = Ending.CANCELLED, CancelledError()
        elif self._is_closing:
            ending, error = Ending.CANCELLED, Draining()
        self._count(ending)
        caller.reply.set_exception(error)

    def _count(self, ending: Ending) -> None:
        with self._changed:
            self._endings[ending] += 1

    def _strike(self, job: Job[Any]) -> None:
        """Forget a job."""
        for jobs in (self._waiting, self._running):
            if job in jobs:
                jobs.remove(job)
        if job.key is not None and self._by_key.get(job.key) is job:
            del self._by_key[job.key]

    def _jobs(self) -> Sequence[Job[Any]]:
        return [*self._running, *self._waiting]


def _whatever_comes(ending: Callable[[], None]) -> None:
    """Do one of several things that end a job: what one raises must not keep the others from being done."""
    try:
        ending()
    except BaseException as error:  # a method's code runs when it is closed, and may raise whatever it likes
        fields = {"error_type": type(error).__name__, "origin": origin_of(error)}
        log_event("job not ended in order", level=logging.ERROR, **fields)


def _is_over(job: Job[Any], caller: Caller[Any], now_ns: int, horizon_ns: int) -> bool:
    """Whether a caller has left or its time is over; one that can have a partial answer must get it in time."""
    if caller.is_cancelled or caller.is_expired(now_ns):
        return True
    return caller.wants_partial and caller.is_expired(now_ns + horizon_ns) and job.so_far() is not None

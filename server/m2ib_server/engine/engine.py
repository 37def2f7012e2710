"""Advances all running jobs together, one evaluation at a time, on a compute thread of its own."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import torch

from m2ib_server.engine.evaluator import Answer, Evaluator
from m2ib_server.engine.job import Job
from m2ib_server.engine.schedule import Pending, admit
from m2ib_server.errors import DeadlineExpired, Draining, QueueFull
from m2ib_server.settings import EngineLimits
from m2ib_server.telemetry import log_event, origin_of


class Engine:
    """Runs methods on one device. Every admitted job ends exactly once: answered, failed, cancelled or expired."""

    def __init__(self, evaluator: Evaluator, *, limits: EngineLimits, threads: int) -> None:
        """Prepare an engine; `start` starts it."""
        self._evaluator = evaluator
        self._limits = limits
        self._threads = threads
        self._changed = threading.Condition()
        self._waiting: deque[Job[Any]] = deque()
        self._running: list[Job[Any]] = []
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name="m2ib-engine", daemon=True)
        self._on_death: Callable[[], None] = lambda: None

    def start(self, on_death: Callable[[], None] = lambda: None) -> None:
        """Start the compute thread; `on_death` is called on it should it end by a fault of ours."""
        self._on_death = on_death
        self._thread.start()

    def submit(self, job: Job[Any]) -> None:
        """Admit a job.

        Raises:
            QueueFull: as many jobs wait as may.
            Draining: the engine is closing.
        """
        with self._changed:
            if self._is_closing:
                raise Draining
            if len(self._waiting) >= self._limits.max_waiting:
                raise QueueFull(depth=len(self._waiting), limit=self._limits.max_waiting)
            self._waiting.append(job)
            self._changed.notify()

    def close(self) -> None:
        """Cancel every job that is left and end the compute thread."""
        with self._changed:
            self._is_closing = True
            for job in (*self._waiting, *self._running):
                job.cancel()
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        torch.set_num_threads(self._threads)
        try:
            while self._admit():
                self._retire()
                self._step()
        except Exception as error:
            log_event(
                "engine died",
                level=logging.CRITICAL,
                error_type=type(error).__name__,
                origin=origin_of(error),
            )
            self._bury(error)

    def _admit(self) -> bool:
        """Wait for work and start what may start; False once the engine is closing and idle."""
        with self._changed:
            while not (self._waiting or self._running):
                if self._is_closing:
                    return False
                self._changed.wait()
            starting = list(admit(list(self._waiting), len(self._running), self._limits))
            for job in starting:
                self._waiting.popleft()
                self._running.append(job)
        for job in starting:
            self._advance(job, None)
        return True

    def _retire(self) -> None:
        """End the jobs whose callers have left or whose time is over, waiting ones included."""
        now_ns = time.monotonic_ns()
        with self._changed:
            gone = [job for job in (*self._running, *self._waiting) if job.is_cancelled or job.is_expired(now_ns)]
            self._waiting = deque(job for job in self._waiting if job not in gone)
            self._running = [job for job in self._running if job not in gone]
        for job in gone:
            job.fail(CancelledError() if job.is_cancelled else DeadlineExpired())

    def _step(self) -> None:
        """Evaluate what every running job waits for, and hand out the answers one by one."""
        jobs = list(self._running)
        recalled, wanted = self._recall(jobs)
        answers = iter(self._evaluator.evaluate(wanted))
        for job, kept in zip(jobs, recalled, strict=True):
            parts = [next(answers) if part is None else part for part in kept]
            faults = [part for part in parts if isinstance(part, Exception)]
            if faults:
                self._end(job, faults[0])
            else:
                self._advance(job, tuple(tensor for part in parts for tensor in part))  # type: ignore[union-attr]

    def _recall(self, jobs: list[Job[Any]]) -> tuple[list[list[Answer | None]], list[Pending]]:
        """Look every pending evaluation up in the cache; return what is kept, and what is left to evaluate."""
        recalled: list[list[Answer | None]] = []
        wanted: list[Pending] = []
        for job in jobs:
            pending = [Pending(model=job.model, evaluation=evaluation) for evaluation in job.pending]
            kept = [self._evaluator.recall(item) for item in pending]
            for item, answer in zip(pending, kept, strict=True):
                if answer is None:
                    wanted.append(item)
                else:
                    job.cached_roles.add(item.evaluation.role)
            recalled.append(kept)
        return recalled, wanted

    def _advance(self, job: Job[Any], answer: Answer | None) -> None:
        """Hand a job its answer; a method that raises fails its own job and no other."""
        try:
            is_done = job.advance(answer)
        except Exception as error:
            self._end(job, error)
            return
        if is_done:
            self._forget(job)

    def _end(self, job: Job[Any], error: Exception) -> None:
        self._forget(job)
        job.fail(error)

    def _forget(self, job: Job[Any]) -> None:
        with self._changed:
            self._running.remove(job)

    def _bury(self, error: Exception) -> None:
        """After a fault of ours nothing is left hanging: every job fails, no new one is taken, the owner is told."""
        with self._changed:
            self._is_closing = True
            left = (*self._running, *self._waiting)
            self._running, self._waiting = [], deque()
        for job in left:
            if not job.reply.done():
                job.fail(error)
        self._on_death()

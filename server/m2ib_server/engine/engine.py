"""Advances all jobs of a device together, one optimisation step at a time, on a compute thread of its own."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from m2ib_server.engine.evaluator import Evaluated, Evaluator
from m2ib_server.engine.job import Advance, Caller, Job
from m2ib_server.engine.observer import UNOBSERVED, EngineObserver
from m2ib_server.engine.roster import Roster
from m2ib_server.engine.schedule import Pending
from m2ib_server.engine.turn import Answer
from m2ib_server.methods import Evaluation
from m2ib_server.runtime import Device, trim_heap
from m2ib_server.telemetry import log_event, origin_of

_SAFETY = 1.5  # how much longer than estimated a round may take before a partial answer comes too late
_IDLE_SECONDS = 5.0  # without work for so long, memory for large batches is given back


class Engine:
    """Runs methods on one device. Every admitted caller ends exactly once: see `roster.Ending`."""

    def __init__(
        self, roster: Roster, evaluator: Evaluator, device: Device, observer: EngineObserver = UNOBSERVED
    ) -> None:
        """Prepare an engine; `start` starts it. `observer` is told of every round."""
        self.roster = roster
        self.evaluator = evaluator
        self.device = device
        self._observer = observer
        self._thread = threading.Thread(target=self._work, name="m2ib-engine", daemon=True)
        self._on_death: Callable[[], None] = lambda: None

    def start(self, on_death: Callable[[], None] = lambda: None) -> None:
        """Start the compute thread; `on_death` is called on it should it end by a fault of ours."""
        self._on_death = on_death
        self._thread.start()

    def submit(self, job: Job[Any], caller: Caller[Any]) -> Job[Any]:
        """Admit a caller; return its job, which is another one where an identical request is under way.

        Raises:
            ServiceError: as `Roster.admit` does.
        """
        return self.roster.admit(job, caller)

    def close(self) -> None:
        """Cancel every job that is left and end the compute thread."""
        self.roster.close()
        if self._thread.is_alive():
            self._thread.join()

    def tally(self) -> dict[str, int]:
        """Count what is under way and what was done so far, as the log tells it when the engine rests or stops."""
        census, counts = self.roster.census(), self.evaluator.counts
        return {
            "waiting": census.waiting,
            "running": census.running,
            "callers": census.callers,
            **{ending.value: count for ending, count in census.endings.items()},
            "shared": census.shared,
            "calls": counts.calls.total(),
            "rows": counts.rows.total(),
            "cache_hits": counts.hits.total(),
            "cache_misses": counts.misses.total(),
        }

    def _work(self) -> None:
        torch.set_num_threads(1)  # a mask is small: waking a second thread costs more, and it would take ONNX Runtime's
        try:
            with self.device.in_order():
                is_resting = True
                while not self.roster.is_over:
                    if self.roster.wait_for_work(_IDLE_SECONDS):
                        is_resting = False
                        self._round()
                        continue
                    if not is_resting:
                        log_event("engine idle", **self.tally())
                    is_resting = True
                    self._trim()  # each time: what others keep for a while is free only later
        except Exception as error:
            log_event(
                "engine died",
                level=logging.CRITICAL,
                error_type=type(error).__name__,
                origin=origin_of(error),
            )
            self.roster.fail_all(error)
            self._on_death()

    def _trim(self) -> None:
        """Give memory back; what fails here has cost nobody an answer."""
        try:
            self.evaluator.trim()
            trim_heap()
        except Exception as error:
            fields = {"error_type": type(error).__name__, "origin": origin_of(error)}
            log_event("memory not given back", level=logging.ERROR, **fields)

    def _round(self) -> None:
        """Let go who has left, then give each job whose turn it is its rows."""
        started, now_ns = time.perf_counter(), time.monotonic_ns()
        chosen = self.roster.take_round(now_ns)
        self.roster.dismiss(now_ns, horizon_ns=int(_SAFETY * 1e9 * self.roster.seconds_of(chosen)))
        jobs = self.roster.still_running(chosen)
        jobs = [job for job in jobs if job.is_started or self._attempt(job, job.start)]
        turns = [job.turn(self.evaluator.max_rows) for job in jobs]
        wanted = [
            Pending(model=job.model, evaluation=part) for job, parts in zip(jobs, turns, strict=True) for part in parts
        ]
        evaluated = iter(self.evaluator.evaluate(wanted))
        for job, parts in zip(jobs, turns, strict=True):
            self._hand_over(job, parts, [next(evaluated) for _ in parts])
        self._observer.advanced(jobs=len(jobs), seconds=time.perf_counter() - started)

    def _hand_over(self, job: Job[Any], parts: Sequence[Evaluation], evaluated: Sequence[Evaluated]) -> None:
        answers: list[Answer] = []
        for part, each in zip(parts, evaluated, strict=True):
            if isinstance(each.answer, Exception):
                self.roster.fail(job, each.answer)
                return
            if each.is_recalled:
                job.cached_roles.add(part.role)
            answers.append(each.answer)
        self._attempt(job, lambda: job.advance(parts, answers))

    def _attempt(self, job: Job[Any], step: Callable[[], Advance[Any]]) -> bool:
        """Take a job's step; a method that raises fails its own job and no other. Return whether the job goes on."""
        try:
            advance = step()
        except Exception as error:
            self.roster.fail(job, error)
            return False
        self.roster.record(job, advance)
        return not advance.is_done

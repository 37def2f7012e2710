"""Advances all jobs of a device together, one optimisation step at a time, on a compute thread of its own."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from m2ib_server.engine.evaluator import Evaluated, Evaluator
from m2ib_server.engine.job import Advance, Caller, Job
from m2ib_server.engine.observer import UNOBSERVED, EngineObserver
from m2ib_server.engine.pulse import Pulse
from m2ib_server.engine.roster import Roster
from m2ib_server.engine.schedule import Pending
from m2ib_server.engine.turn import Answer
from m2ib_server.methods import Evaluation
from m2ib_server.runtime import Device, trim_heap
from m2ib_server.telemetry import log_event, origin_of

_SAFETY = 1.5  # how much longer than estimated a round may take before a partial answer comes too late
IDLE_SECONDS = 5.0  # without work for so long, memory for large batches is given back


class Engine:
    """Runs methods on one device. Every admitted caller ends exactly once: see `roster.Ending`."""

    def __init__(
        self, roster: Roster, evaluator: Evaluator, device: Device, observer: EngineObserver = UNOBSERVED
    ) -> None:
        """Prepare an engine; `start` starts it. `observer` is told of every round."""
        self.roster = roster
        self.evaluator = evaluator
        self.device = device
        self.restarts = 0
        self._observer = observer
        self._thread = self._new_thread()
        self._on_death: Callable[[], None] = lambda: None
        self._beat_ns = self._step_ns = time.monotonic_ns()
        self._busy_since_ns: int | None = None

    def start(self, on_death: Callable[[], None] = lambda: None) -> None:
        """Start the compute thread; `on_death` is called on it should it end by a fault of ours."""
        self._on_death = on_death
        self._beat_ns = self._step_ns = time.monotonic_ns()
        self._thread.start()

    @property
    def pulse(self) -> Pulse:
        """What the compute thread last told of itself; any thread may ask."""
        return Pulse(
            is_alive=self._thread.is_alive(),
            beat_ns=self._beat_ns,
            busy_since_ns=self._busy_since_ns,
            step_ns=self._step_ns,
            has_work=self.roster.has_work,
        )

    def abort(self) -> None:
        """End the evaluation that is under way: who waits for it fails, and the engine goes on. From any thread."""
        self.evaluator.abort()

    def retire(self) -> None:
        """End every job and let the compute thread end, so that the engine can be restarted. From any thread."""
        self.roster.fail_all()

    def restart(self) -> None:
        """Begin anew with another compute thread, no job and an empty cache. The last thread has ended."""
        assert not self._thread.is_alive()
        self.roster.fail_all()  # a thread that was killed has told nobody
        self.evaluator.forget()
        self.roster.reopen()
        self._busy_since_ns = None
        self.restarts += 1
        self._thread = self._new_thread()
        self.start(self._on_death)

    def submit(self, job: Job[Any], caller: Caller[Any]) -> Job[Any]:
        """Admit a caller; return its job, which is another one where an identical request is under way.

        Raises:
            ServiceError: as `Roster.admit` does.
        """
        return self.roster.admit(job, caller)

    def stop(self) -> None:
        """Cancel every job that is left and let the compute thread end."""
        self.roster.close()

    def join(self, timeout_seconds: float | None = None) -> bool:
        """Wait for the compute thread of an engine that was stopped; return whether it has ended in time."""
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def close(self, timeout_seconds: float | None = None) -> bool:
        """Cancel every job that is left and end the compute thread; return whether it has ended in time."""
        self.stop()
        return self.join(timeout_seconds)

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

    def _new_thread(self) -> threading.Thread:
        return threading.Thread(target=self._work, name="m2ib-engine", daemon=True)

    def _work(self) -> None:
        torch.set_num_threads(1)  # a mask is small: waking a second thread costs more, and it would take ONNX Runtime's
        try:
            with self.device.in_order():
                is_resting = True
                while not self.roster.is_over:
                    self._beat_ns = time.monotonic_ns()
                    if self.roster.wait_for_work(IDLE_SECONDS):
                        is_resting = False
                        with self._busy():
                            if self._round():
                                self._step_ns = time.monotonic_ns()
                        continue
                    self._step_ns = time.monotonic_ns()
                    if not is_resting:
                        log_event("engine idle", **self.tally())
                    is_resting = True
                    with self._busy():
                        self._trim()  # each time: what others keep for a while is free only later
        except BaseException as error:  # whatever ends this thread, nobody may be left to wait for it
            log_event(
                "engine died",
                level=logging.CRITICAL,
                error_type=type(error).__name__,
                origin=origin_of(error),
            )
            self.roster.fail_all(error)
            self._on_death()

    @contextmanager
    def _busy(self) -> Iterator[None]:
        """Let whoever watches see since when this thread has not looked for work."""
        self._busy_since_ns = time.monotonic_ns()
        try:
            yield
        finally:
            self._busy_since_ns = None

    def _trim(self) -> None:
        """Give memory back; what fails here has cost nobody an answer."""
        try:
            self.evaluator.trim()
            trim_heap()
        except Exception as error:
            fields = {"error_type": type(error).__name__, "origin": origin_of(error)}
            log_event("memory not given back", level=logging.ERROR, **fields)

    def _round(self) -> bool:
        """Let go who has left, then give each job whose turn it is its rows; return whether any had a turn."""
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
        return bool(chosen)

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

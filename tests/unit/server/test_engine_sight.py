"""What an engine tells of itself: the times of its jobs' stages, and to an observer its calls and rounds."""

import time
from collections import Counter
from itertools import pairwise

import pytest

from fakes.engines import SETTINGS, engine_of, job_of, results, submitted
from m2ib_server.engine import Ending, Stage
from m2ib_server.package import Role


def test_a_job_tells_when_it_was_in_which_stage(engine):
    began_ns = time.monotonic_ns()
    job = job_of()
    results(submitted(engine, job))
    periods = job.periods(since_ns=began_ns, until_ns=time.monotonic_ns())
    assert [period.stage for period in periods] == list(Stage)
    for earlier, later in pairwise(periods):
        assert earlier.started_ns <= earlier.ended_ns == later.started_ns
    for period in periods:
        assert period.seconds == pytest.approx(job.seconds[Stage(period.stage)], abs=1e-6)


def test_of_a_shared_job_a_caller_is_told_only_what_came_after_it(engine):
    job = job_of()
    results(submitted(engine, job))
    until_ns = time.monotonic_ns()
    *_, last = job.periods(since_ns=0, until_ns=until_ns)
    middle_ns = (last.started_ns + last.ended_ns) // 2
    (seen,) = job.periods(since_ns=middle_ns, until_ns=until_ns)
    assert (seen.stage, seen.started_ns, seen.ended_ns) == (last.stage, middle_ns, last.ended_ns)


def test_a_job_that_waits_tells_of_its_waiting_until_now(make_engine):
    engine, began_ns = make_engine(), time.monotonic_ns()
    job = job_of()
    submitted(engine, job)  # an engine that has not started
    until_ns = time.monotonic_ns()
    (period,) = job.periods(since_ns=began_ns, until_ns=until_ns)
    assert (period.stage, period.ended_ns) == (Stage.QUEUE, until_ns)


def test_an_observer_is_told_of_every_call_and_every_round(graphs):
    observer = Observer()
    engine = engine_of(graphs, observer=observer)
    engine.start()
    try:
        results(submitted(engine, job_of()))
    finally:
        engine.close()
    assert observer.rows[Role.VISION_TAIL_GRAD] == SETTINGS.steps * SETTINGS.rows
    assert sum(observer.calls.values()) == engine.evaluator.counts.calls.total()
    assert observer.rounds > 2 * SETTINGS.steps


class Observer:
    def __init__(self):
        self.rows, self.calls, self.rounds = Counter(), Counter(), 0

    def called(self, role, *, rows, seconds):
        assert seconds >= 0
        self.rows[role] += rows
        self.calls[role] += 1

    def advanced(self, *, jobs, seconds):
        assert seconds >= 0
        self.rounds += 1


def test_a_restart_is_counted_and_no_count_falls(graphs):
    engine = engine_of(graphs)
    engine.start()
    results(submitted(engine, job_of(1)))
    before = engine.evaluator.counts.rows.total()
    engine.retire()
    while engine.pulse.is_alive:
        time.sleep(0.01)
    engine.restart()
    try:
        results(submitted(engine, job_of(1)))
    finally:
        engine.close()
    assert engine.restarts == 1
    assert engine.evaluator.counts.rows.total() == 2 * before  # the cache was emptied, the counts were not
    assert engine.roster.census().endings[Ending.ANSWERED] == 2

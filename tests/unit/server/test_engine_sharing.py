import time
from concurrent.futures import CancelledError

import pytest

from fakes.engines import SECONDS, job_of, results, submitted
from fakes.graphs import DIGEST
from m2ib_server.engine import Caller, Priority
from m2ib_server.engine.job import Advance
from m2ib_server.errors import DeadlineTooShort
from m2ib_server.methods import Side
from m2ib_server.package import Role


def test_identical_requests_share_one_computation(make_engine, graphs):
    engine = make_engine()
    jobs = [job_of(1, key="one"), job_of(1, key="one"), job_of(2, key="two")]
    first, second, other = submitted(engine, *jobs)
    engine.start()
    answers = results([first, second, other])
    assert answers[0] is answers[1]
    assert (first.is_shared, second.is_shared, other.is_shared) == (False, True, False)
    assert [role for role, _ in graphs.calls].count(Role.VISION_TAIL_GRAD) == 5
    assert engine.roster.census().shared == 1


def test_one_of_identical_callers_leaves_alone(make_engine):
    engine = make_engine()
    first, second = submitted(engine, job_of(1, key="one"), job_of(1, key="one"))
    first.cancel()
    engine.start()
    with pytest.raises(CancelledError):
        first.reply.result(timeout=SECONDS)
    assert second.reply.result(timeout=SECONDS)
    third = submitted(engine, job_of(1, key="one"))
    assert results(third)
    assert not third[0].is_shared


def test_a_job_that_all_callers_left_is_dropped(make_engine, graphs):
    engine = make_engine()
    callers = submitted(engine, job_of(1, key="one"), job_of(1, key="one"))
    for caller in callers:
        caller.cancel()
    engine.start()
    for caller in callers:
        with pytest.raises(CancelledError):
            caller.reply.result(timeout=SECONDS)
    assert graphs.calls == []


def test_a_caller_that_joins_late_is_told_of_every_step(make_engine):
    engine = make_engine()
    late, joined = [], []

    def join(step):
        if step.side is Side.IMAGE and step.step == 3:
            joined.extend(submitted(engine, job_of(1, key="one"), on_step=late.append))

    first = submitted(engine, job_of(1, key="one"), on_step=join)
    engine.start()
    results(first + joined)
    results(joined)
    assert joined[0].is_shared
    assert [(step.side, step.step) for step in late] == [(side, step) for side in Side for step in range(1, 6)]


def test_an_interactive_caller_lifts_a_bulk_job(make_engine):
    engine = make_engine()
    bulk = job_of(1, key="one", priority=Priority.BULK)
    callers = submitted(engine, bulk, job_of(1, key="one"))
    assert bulk.priority is Priority.INTERACTIVE
    engine.start()
    results(callers)


def test_who_joins_a_bulk_job_is_estimated_in_a_class_of_its_own(make_engine):
    engine = make_engine()
    engine.roster._estimator._costs.observe(
        DIGEST, Role.VISION_TAIL_GRAD, rows=3, seconds=0.3
    )  # a tenth of a second a row
    bulk = [job_of(seed, key=seed, priority=Priority.BULK) for seed in range(20)]
    submitted(engine, *bulk)
    deadline_ns = time.monotonic_ns() + 3 * 10**9  # its own second and a half, and a turn of bulk each second
    (caller,) = submitted(engine, job_of(5, key=5), deadline_ns=deadline_ns)
    assert caller.is_shared
    with pytest.raises(DeadlineTooShort):
        submitted(engine, job_of(6, key=6, priority=Priority.BULK), deadline_ns=deadline_ns)


def test_a_lifted_job_falls_back_when_the_interactive_caller_leaves(make_engine):
    roster = make_engine().roster
    bulk, passing = Caller(), Caller()
    job = roster.admit(job_of(1, key=1, priority=Priority.BULK), bulk)
    roster.admit(job_of(1, key=1), passing)
    assert job.priority is Priority.INTERACTIVE
    passing.cancel()
    roster.dismiss(time.monotonic_ns(), 0)
    assert job.priority is Priority.BULK
    assert job.callers == [bulk]


def test_a_job_that_is_lifted_has_neither_head_start_nor_debt(make_engine):
    engine = make_engine()
    bulk, interactive = job_of(1, key=1, priority=Priority.BULK), job_of(2)
    submitted(engine, bulk, interactive)
    engine.roster.take_round(time.monotonic_ns())
    bulk.share, interactive.share = 5000, 300
    submitted(engine, job_of(1, key=1))
    assert (bulk.priority, bulk.share) == (Priority.INTERACTIVE, 300)


def test_a_long_bulk_step_is_followed_by_the_interactive_jobs_turn(make_engine):
    roster = make_engine(max_rows=20, bulk_patience_ms=1000).roster
    bulk = [job_of(seed, rows=100, priority=Priority.BULK) for seed in (1, 2)]
    interactive = job_of(3, rows=10)
    for job in (*bulk, interactive):
        roster.admit(job, Caller())
    started_ns = time.monotonic_ns() + 2 * 10**9
    (first,) = roster.take_round(started_ns)
    assert first in bulk
    first.idle_since_ns = started_ns + 5 * 10**9  # its step took five seconds
    roster.record(first, Advance(events=()))
    assert roster.take_round(first.idle_since_ns + 1) == [interactive]

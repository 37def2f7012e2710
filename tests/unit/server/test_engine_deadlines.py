import time

import pytest

from fakes.engines import SECONDS, endings, job_of, results, submitted
from fakes.graphs import DIGEST
from m2ib_server.engine import Caller, Ending
from m2ib_server.errors import DeadlineExpired, DeadlineTooShort
from m2ib_server.methods import Side
from m2ib_server.package import Role


def test_a_deadline_that_has_passed_ends_a_caller_before_any_step(make_engine, graphs):
    engine = make_engine()
    (caller,) = submitted(engine, job_of())
    caller.deadline_ns = time.monotonic_ns()
    engine.start()
    with pytest.raises(DeadlineExpired):
        caller.reply.result(timeout=SECONDS)
    assert not any(role is Role.VISION_TAIL_GRAD for role, _ in graphs.calls)
    assert endings(engine) == {Ending.EXPIRED: 1}


def test_a_deadline_reaches_a_job_within_a_step(make_engine):
    engine = make_engine()
    steps = []

    def expire(step):
        steps.append(step)
        caller.deadline_ns = time.monotonic_ns()

    caller = Caller(on_step=expire)
    engine.submit(job_of(), caller)
    engine.start()
    with pytest.raises(DeadlineExpired):
        caller.reply.result(timeout=SECONDS)
    assert len(steps) == 1


def test_a_partial_answer_comes_instead_of_an_expiry(make_engine):
    engine = make_engine()
    steps = []

    def expire(step):
        steps.append(step)
        if len(steps) == 3:
            caller.deadline_ns = time.monotonic_ns()

    caller = Caller(on_step=expire, wants_partial=True)
    engine.submit(job_of(), caller)
    engine.start()
    partial = caller.reply.result(timeout=SECONDS)
    assert partial.is_partial
    assert len(partial.course[Side.IMAGE]) == 3
    assert Side.TEXT not in partial.course
    assert endings(engine) == {Ending.PARTIAL: 1}


def test_a_partial_answer_does_not_wait_for_a_newcomer_to_be_encoded(make_engine):
    engine = make_engine()
    engine.roster._estimator._costs.observe(DIGEST, Role.VISION_HEAD, rows=1, seconds=60)

    def arrive(step):
        if step.step == 1:
            newcomers.extend(submitted(engine, job_of(2)))

    newcomers = []
    caller = Caller(on_step=arrive, wants_partial=True, deadline_ns=time.monotonic_ns() + 10 * 10**9)
    engine.submit(job_of(), caller)
    engine.start()
    partial = caller.reply.result(timeout=SECONDS)
    assert partial.is_partial
    assert len(partial.course[Side.IMAGE]) == 1
    assert results(newcomers[:1])


def test_without_a_step_there_is_no_partial_answer(engine):
    (caller,) = submitted(engine, job_of(), deadline_ns=time.monotonic_ns(), wants_partial=True)
    with pytest.raises(DeadlineExpired):
        caller.reply.result(timeout=SECONDS)


def test_a_deadline_that_the_estimate_does_not_fit_is_refused_at_once(make_engine):
    engine = make_engine()
    engine.roster._estimator._costs.observe(DIGEST, Role.VISION_TAIL_GRAD, rows=3, seconds=3)  # a second a row
    with pytest.raises(DeadlineTooShort, match="estimated to take 15"):
        submitted(engine, job_of(), deadline_ns=time.monotonic_ns() + 14 * 10**9)
    (fits,) = submitted(engine, job_of(), deadline_ns=time.monotonic_ns() + 16 * 10**9)
    with pytest.raises(DeadlineTooShort, match="estimated to take 30"):
        submitted(engine, job_of(2), deadline_ns=time.monotonic_ns() + 16 * 10**9)
    (partial,) = submitted(engine, job_of(3), deadline_ns=time.monotonic_ns() + 10**9, wants_partial=True)
    assert endings(engine) == {Ending.REFUSED: 2}
    engine.start()
    assert results([fits, partial])


def test_the_engine_learns_what_a_row_costs(engine):
    results(submitted(engine, job_of()))
    left = {Role.VISION_TAIL_GRAD: 1}
    assert engine.roster._estimator._costs.seconds(DIGEST, left) > 0
    assert engine.roster._estimator._costs.seconds("another", left) == 0


def test_a_partial_caller_is_not_sent_away_while_there_is_nothing_to_give(make_engine):
    engine = make_engine()
    for role in Role:
        engine.roster._estimator._costs.observe(
            DIGEST, role, rows=1, seconds=5
        )  # every round seems to take longer than is left
    (caller,) = submitted(engine, job_of(), deadline_ns=time.monotonic_ns() + 3 * 10**9, wants_partial=True)
    engine.start()
    partial = caller.reply.result(timeout=SECONDS)
    assert partial.is_partial
    assert len(partial.course[Side.IMAGE]) == 1

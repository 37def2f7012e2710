"""A compute thread that dies or gets stuck: who is told what, what it tells of itself, and how it begins anew."""

import threading
import time
from concurrent.futures import CancelledError
from dataclasses import replace

import pytest

from fakes.engines import SECONDS, SETTINGS, endings, job_of, results, submitted
from fakes.graphs import DIGEST, encoder_input
from m2ib_server.engine import Ending, Job
from m2ib_server.errors import Draining, EngineFailed, EngineRestarting, EvaluationAborted
from m2ib_server.methods import Side, explain
from m2ib_server.package import Role


def kill(role):
    """End the thread that evaluates, as nothing that a method or a runtime raises does."""
    raise SystemExit


def killed(make_engine, graphs, **limits):
    """Return an engine whose thread has been killed while one job ran and one waited, and their callers."""
    engine, died = make_engine(max_running=1, **limits), threading.Event()
    graphs.on_call = kill
    callers = submitted(engine, job_of(1), job_of(2))
    engine.start(on_death=died.set)
    assert died.wait(timeout=SECONDS)
    graphs.on_call = lambda role: None
    engine._thread.join(timeout=SECONDS)
    return engine, callers


def test_of_a_killed_thread_s_jobs_those_under_way_have_failed_and_those_that_waited_may_come_back(make_engine, graphs):
    engine, (running, waiting) = killed(make_engine, graphs)
    with pytest.raises(EngineFailed) as caught:
        running.reply.result(timeout=SECONDS)
    assert isinstance(caught.value.__cause__, SystemExit)
    with pytest.raises(EngineRestarting):
        waiting.reply.result(timeout=SECONDS)
    with pytest.raises(EngineRestarting):
        submitted(engine, job_of(3))
    assert not engine.pulse.is_alive
    assert endings(engine) == {Ending.FAILED: 2, Ending.REFUSED: 1}


def test_an_engine_begins_anew_with_nothing_that_the_killed_thread_kept(make_engine, graphs):
    engine, _ = killed(make_engine, graphs)
    for _ in range(2):
        engine.restart()
        graphs.calls.clear()
        assert results(submitted(engine, job_of(1), job_of(2)))
        assert [role for role, _ in graphs.calls].count(Role.VISION_HEAD) == 2
        assert engine.pulse.is_alive
        graphs.on_call = kill
        submitted(engine, job_of(3))
        engine._thread.join(timeout=SECONDS)
        graphs.on_call = lambda role: None
    assert endings(engine)[Ending.ANSWERED] == 4


def test_whoever_a_thread_that_vanished_told_nothing_is_told_at_the_restart(make_engine):
    engine = make_engine()  # never started: its thread is as silent as one that the system has killed
    (caller,) = submitted(engine, job_of(1))
    engine.restart()
    with pytest.raises(EngineRestarting):
        caller.reply.result(timeout=SECONDS)
    assert results(submitted(engine, job_of(2)))


def test_a_restart_opens_no_engine_that_was_closed(make_engine):
    engine = make_engine()
    engine.close()
    engine.restart()
    with pytest.raises(Draining):
        submitted(engine, job_of(1))


def test_a_retired_engine_ends_its_jobs_and_its_thread(make_engine, graphs):
    engine = make_engine()
    graphs.gate.clear()
    callers = submitted(engine, job_of(1))
    engine.start()
    until(lambda: engine.pulse.busy_since_ns is not None)
    engine.retire()
    graphs.gate.set()
    with pytest.raises(EngineFailed):
        callers[0].reply.result(timeout=SECONDS)
    engine._thread.join(timeout=SECONDS)
    assert not engine.pulse.is_alive
    engine.restart()
    assert results(submitted(engine, job_of(1)))


def test_an_aborted_evaluation_fails_all_of_its_call_once_and_the_engine_goes_on(make_engine, graphs):
    def stuck(role):
        graphs.on_call = lambda role: None
        raise EvaluationAborted

    engine = make_engine()
    graphs.on_call = stuck
    callers = submitted(engine, job_of(1), job_of(2))
    engine.start()
    for caller in callers:
        with pytest.raises(EvaluationAborted):
            caller.reply.result(timeout=SECONDS)
    # once and together: each alone would have been stuck for as long again
    assert [rows for role, rows in graphs.calls if role is Role.VISION_HEAD] == [2]
    assert results(submitted(engine, job_of(3)))


def test_an_abort_reaches_the_graphs(make_engine, graphs):
    make_engine().abort()
    assert graphs.aborts == 1


def test_a_pulse_tells_of_a_round_under_way_and_of_rest(make_engine, graphs):
    engine = make_engine()
    assert not engine.pulse.is_alive
    graphs.gate.clear()
    callers = submitted(engine, job_of(1))
    before_ns = time.monotonic_ns()
    engine.start()
    until(lambda: engine.pulse.busy_since_ns is not None)
    stuck = engine.pulse
    assert stuck.is_alive
    assert stuck.has_work
    assert before_ns <= stuck.step_ns <= stuck.beat_ns <= stuck.busy_since_ns <= time.monotonic_ns()
    graphs.gate.set()
    results(callers)
    until(lambda: not engine.pulse.has_work and engine.pulse.busy_since_ns is None)
    assert engine.pulse.step_ns > stuck.step_ns
    assert engine.pulse.beat_ns > stuck.beat_ns


def until(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_an_engine_that_is_retired_amid_a_step_tells_every_caller(make_engine):
    """The compute thread is inside the first job's method, which nobody else can close."""
    inside, over = threading.Event(), threading.Event()

    def method():
        inside.set()
        over.wait(timeout=SECONDS)
        yield from ()

    engine = make_engine(max_running=2)
    stuck = Job(method(), model=DIGEST)
    callers = submitted(engine, stuck, job_of(1))
    engine.start()
    assert inside.wait(timeout=SECONDS)
    engine.retire()
    for caller in callers:
        with pytest.raises((EngineFailed, EngineRestarting)):
            caller.reply.result(timeout=SECONDS)
    over.set()
    engine._thread.join(timeout=SECONDS)
    engine.restart()
    assert results(submitted(engine, job_of(2)))


def fragile_job(seed, *, inputs=encoder_input):
    """Make a job whose method cannot be ended early without raising."""

    def method():
        try:
            return (yield from explain(inputs(Side.IMAGE, seed), inputs(Side.TEXT, seed), SETTINGS, tuple(Side)))
        except GeneratorExit:
            raise RuntimeError("a value that the log must not show: 41.5") from None

    return Job(method(), model=DIGEST, rows=SETTINGS.rows)


def not_a_number(side, seed):
    made = encoder_input(side, seed)
    return replace(made, inputs={"rows": made.inputs["rows"] * float("nan")})


def test_a_job_that_cannot_be_ended_keeps_nobody_from_being_told(make_engine, graphs, caplog):
    engine, died = make_engine(max_running=3), threading.Event()
    graphs.on_call = kill
    callers = submitted(engine, fragile_job(1), fragile_job(2), job_of(3))
    engine.start(on_death=died.set)
    assert died.wait(timeout=SECONDS)
    for caller in callers:
        with pytest.raises(EngineFailed):
            caller.reply.result(timeout=0)
    assert endings(engine) == {Ending.FAILED: 3}
    told = [record.m2ib_fields for record in caplog.records if record.m2ib_event == "job not ended in order"]
    assert [fields["error_type"] for fields in told] == ["RuntimeError"] * 2
    assert "41.5" not in str(told)


def test_a_caller_whose_reply_is_given_already_keeps_no_other_from_being_told(make_engine, graphs):
    engine, died = make_engine(max_running=2), threading.Event()
    graphs.on_call = kill
    first, second = submitted(engine, job_of(1), job_of(2))
    first.reply.set_result(None)
    engine.start(on_death=died.set)
    assert died.wait(timeout=SECONDS)
    with pytest.raises(EngineFailed):
        second.reply.result(timeout=0)
    assert endings(engine) == {Ending.FAILED: 1}


def test_an_engine_goes_on_after_a_job_that_cannot_be_ended(make_engine, graphs):
    engine = make_engine()
    graphs.gate.clear()
    (left,), (failed,) = submitted(engine, fragile_job(1)), submitted(engine, fragile_job(2, inputs=not_a_number))
    engine.start()
    until(lambda: engine.pulse.busy_since_ns is not None)
    left.cancel()
    graphs.gate.set()
    with pytest.raises(CancelledError):
        left.reply.result(timeout=SECONDS)
    with pytest.raises(RuntimeError, match="41"):
        failed.reply.result(timeout=SECONDS)
    assert results(submitted(engine, job_of(3)))

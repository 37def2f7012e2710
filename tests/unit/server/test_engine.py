import threading
import time
from concurrent.futures import CancelledError
from dataclasses import replace

import pytest
import torch

from fakes.engines import SECONDS, SETTINGS, endings, final_bits, job_of, results, submitted
from fakes.graphs import DIGEST, encoder_input
from m2ib_server.engine import Caller, Ending, Job, Priority, Stage
from m2ib_server.errors import Draining, QueueFull
from m2ib_server.methods import Evaluation, Side, explain
from m2ib_server.package import Role
from m2ib_server.telemetry import FIELDS


def test_jobs_are_answered(engine):
    (attribution,) = results(submitted(engine, job_of()))
    assert len(attribution.course[Side.IMAGE]) == 5
    assert not attribution.is_partial
    assert endings(engine) == {Ending.ANSWERED: 1}


@pytest.mark.parametrize("max_rows", [1, 3, 7, 40])
def test_a_job_gets_the_same_map_alone_and_among_others(make_engine, max_rows):
    alone_engine, shared_engine = make_engine(), make_engine(max_rows=max_rows)
    alone_engine.start()
    (alone,) = results(submitted(alone_engine, job_of(2)))
    callers = submitted(shared_engine, job_of(1), job_of(2), job_of(3, tokens=4), job_of(4))
    shared_engine.start()
    together = results(callers)[1]
    for side in Side:
        torch.testing.assert_close(final_bits(alone, side), final_bits(together, side), rtol=1e-4, atol=1e-4)


def test_jobs_that_run_together_share_calls(make_engine, graphs):
    engine = make_engine(max_rows=12)
    callers = submitted(engine, *(job_of(seed) for seed in range(4)))
    engine.start()
    results(callers)
    gradient_rows = [rows for role, rows in graphs.calls if role is Role.VISION_TAIL_GRAD]
    assert gradient_rows == [12] * 5


def test_no_call_takes_more_rows_than_the_budget(make_engine, graphs):
    engine = make_engine(max_rows=4)
    callers = submitted(engine, *(job_of(seed) for seed in range(3)))
    engine.start()
    results(callers)
    assert max(rows for _, rows in graphs.calls) <= 4


def test_a_step_larger_than_a_round_takes_several_and_others_come_between(make_engine, graphs):
    engine = make_engine(max_rows=4)
    large = job_of(1, settings=replace(SETTINGS, samples=32))
    callers = submitted(engine, large, job_of(2))
    engine.start()
    results(callers)
    rows = [rows for role, rows in graphs.calls if role is Role.VISION_TAIL_GRAD]
    assert max(rows) <= 4
    first_step_of_large = [index for index, count in enumerate(rows) if count == 4][:8]
    small = [index for index, count in enumerate(rows) if count == 3]
    assert small[0] < first_step_of_large[-1]


def test_a_large_step_is_left_in_its_middle(make_engine, graphs):
    engine = make_engine(max_rows=4)
    (caller,) = submitted(engine, job_of(1, settings=replace(SETTINGS, samples=4000)))
    graphs.on_call = lambda role: caller.cancel() if role is Role.VISION_TAIL_GRAD else None
    engine.start()
    with pytest.raises(CancelledError):
        caller.reply.result(timeout=SECONDS)
    assert [role for role, _ in graphs.calls].count(Role.VISION_TAIL_GRAD) == 1


def test_torch_keeps_to_the_engines_own_thread(make_engine, graphs):
    engine, seen = make_engine(), []
    graphs.on_call = lambda role: seen.append(torch.get_num_threads())
    engine.start()
    results(submitted(engine, job_of(1)))
    assert set(seen) == {1}


def test_a_job_that_comes_later_joins_at_the_next_step(make_engine, graphs):
    engine = make_engine()
    second = []

    def join(step):
        if not second:
            second.extend(submitted(engine, job_of(2)))

    engine.start()
    results(submitted(engine, job_of(1), on_step=join))
    results(second)
    rows = [rows for role, rows in graphs.calls if role in (Role.VISION_TAIL_GRAD, Role.TEXT_TAIL_GRAD)]
    assert 6 in rows


def test_cancelling_one_of_several_jobs_leaves_the_others_the_very_result(make_engine, graphs):
    alone_engine = make_engine()
    alone_engine.start()
    alone = results(submitted(alone_engine, job_of(0), job_of(2)))
    engine = make_engine()
    graphs.gate.clear()
    callers = submitted(engine, *(job_of(seed) for seed in range(3)))
    engine.start()
    callers[1].cancel()
    graphs.gate.set()
    with pytest.raises(CancelledError):
        callers[1].reply.result(timeout=SECONDS)
    for expected, caller in zip(alone, (callers[0], callers[2]), strict=True):
        torch.testing.assert_close(final_bits(expected), final_bits(caller.reply.result(timeout=SECONDS)))
    assert endings(engine) == {Ending.ANSWERED: 2, Ending.CANCELLED: 1}


def test_a_job_whose_evaluation_fails_fails_alone(make_engine):
    engine = make_engine()
    broken = encoder_input(Side.IMAGE, 1)
    broken.inputs["rows"][0, 0, 0] = float("nan")
    method = explain(broken, encoder_input(Side.TEXT, 1), SETTINGS, tuple(Side))
    callers = submitted(engine, job_of(2), Job(method, model=DIGEST), job_of(3))
    engine.start()
    with pytest.raises(RuntimeError):
        callers[1].reply.result(timeout=SECONDS)
    assert all(results([callers[0], callers[2]]))
    assert endings(engine) == {Ending.ANSWERED: 2, Ending.FAILED: 1}


def test_a_method_that_raises_fails_its_own_job_only(make_engine):
    def broken():
        yield Evaluation(role=Role.VISION_HEAD, inputs=encoder_input(Side.IMAGE, 1).inputs)
        raise ZeroDivisionError

    engine = make_engine()
    callers = submitted(engine, Job(broken(), model=DIGEST), job_of(1))
    engine.start()
    with pytest.raises(ZeroDivisionError):
        callers[0].reply.result(timeout=SECONDS)
    assert callers[1].reply.result(timeout=SECONDS)


def test_a_method_that_raises_before_its_first_evaluation_fails_its_own_job_only(make_engine):
    def broken():
        raise ZeroDivisionError
        yield

    engine = make_engine()
    callers = submitted(engine, Job(broken(), model=DIGEST), job_of(1))
    engine.start()
    with pytest.raises(ZeroDivisionError):
        callers[0].reply.result(timeout=SECONDS)
    assert callers[1].reply.result(timeout=SECONDS)


def test_interactive_jobs_pass_bulk_jobs(make_engine):
    engine = make_engine(max_rows=3)
    order = []
    bulk = job_of(1, priority=Priority.BULK)
    callers = submitted(engine, bulk, on_step=lambda step: order.append("bulk"))
    callers += submitted(engine, job_of(2), on_step=lambda step: order.append("interactive"))
    engine.start()
    results(callers)
    assert order == ["interactive"] * 10 + ["bulk"] * 10


def test_a_waiting_job_can_be_cancelled(make_engine, graphs):
    engine = make_engine(max_running=1)
    graphs.gate.clear()
    first, second = submitted(engine, job_of(1), job_of(2))
    engine.start()
    second.cancel()
    graphs.gate.set()
    with pytest.raises(CancelledError):
        second.reply.result(timeout=SECONDS)
    assert first.reply.result(timeout=SECONDS)


def test_one_job_more_than_may_wait_is_refused_and_bulk_has_a_queue_of_its_own(make_engine):
    engine = make_engine(max_waiting=2)
    submitted(engine, job_of(1), job_of(2))
    with pytest.raises(QueueFull, match="2 of 2"):
        submitted(engine, job_of(3))
    submitted(engine, job_of(4, priority=Priority.BULK))
    engine.start()


def test_closing_sends_away_what_is_left_and_refuses_what_comes(make_engine, graphs):
    engine = make_engine()
    graphs.gate.clear()
    callers = submitted(engine, job_of(1), job_of(2))
    engine.start()
    closing = threading.Thread(target=engine.close)
    closing.start()
    graphs.gate.set()
    closing.join(timeout=SECONDS)
    assert not closing.is_alive()
    for caller in callers:
        with pytest.raises(Draining):
            caller.reply.result(timeout=SECONDS)
    with pytest.raises(Draining):
        submitted(engine, job_of(3))


def test_features_of_a_second_request_come_from_the_cache(engine, graphs):
    first, second = job_of(1), job_of(1)
    answers = results(submitted(engine, first)) + results(submitted(engine, second))
    assert first.cached_roles == set()
    assert second.cached_roles == {Role.VISION_HEAD, Role.VISION_TAIL, Role.TEXT_HEAD, Role.TEXT_TAIL}
    assert [role for role, _ in graphs.calls].count(Role.VISION_HEAD) == 1
    assert torch.equal(final_bits(answers[0]), final_bits(answers[1]))
    assert engine.evaluator.counts.hits[Role.VISION_HEAD] == engine.evaluator.counts.misses[Role.VISION_HEAD] == 1


def test_features_that_two_jobs_want_at_once_are_computed_once(make_engine, graphs):
    engine = make_engine(cache_bytes=0)
    jobs = [job_of(1), job_of(1, settings=SETTINGS)]
    callers = submitted(engine, *jobs)
    engine.start()
    results(callers)
    assert [rows for role, rows in graphs.calls if role is Role.VISION_HEAD] == [1]
    assert engine.evaluator.counts.hits[Role.VISION_HEAD] == 1


def test_time_is_booked_on_the_stage_that_took_it(engine):
    job = job_of()
    started = time.monotonic()
    results(submitted(engine, job))
    total = time.monotonic() - started
    assert set(job.seconds) == set(Stage)
    assert all(spent > 0 for spent in job.seconds.values())
    assert sum(job.seconds.values()) <= total + 0.1


def test_steps_are_told_in_order(engine):
    steps = []
    results(submitted(engine, job_of(), on_step=steps.append))
    assert [(step.side, step.step) for step in steps] == [(side, step) for side in Side for step in range(1, 6)]


def test_nothing_is_left_of_jobs_that_ended(engine):
    results(submitted(engine, *(job_of(seed, key=seed) for seed in range(20))))
    census = engine.roster.census()
    assert (census.waiting, census.running, census.callers) == (0, 0, 0)
    assert engine.roster._by_key == {}


def test_an_idle_engine_gives_memory_back(make_engine, graphs, monkeypatch):
    monkeypatch.setattr("m2ib_server.engine.engine.IDLE_SECONDS", 0.01)
    engine = make_engine()
    engine.start()
    deadline = time.monotonic() + SECONDS
    while not graphs.trims and time.monotonic() < deadline:
        time.sleep(0.01)
    assert graphs.trims


def test_a_rest_is_told_once_with_what_was_done(engine, graphs, monkeypatch, caplog):
    monkeypatch.setattr("m2ib_server.engine.engine.IDLE_SECONDS", 0.05)
    caplog.set_level("INFO", logger="m2ib_server")
    results(submitted(engine, job_of(1)))
    deadline = time.monotonic() + SECONDS
    while graphs.trims < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    (fields,) = [record.m2ib_fields for record in caplog.records if record.m2ib_event == "engine idle"]
    assert (fields["answered"], fields["callers"], fields["cache_misses"]) == (1, 0, 4)


def test_a_cancellation_reaches_a_job_within_a_step(make_engine):
    engine = make_engine()
    steps = []

    def leave(step):
        steps.append(step)
        caller.cancel()

    caller = Caller(on_step=leave)
    engine.submit(job_of(), caller)
    engine.start()
    with pytest.raises(CancelledError):
        caller.reply.result(timeout=SECONDS)
    assert len(steps) == 1


def test_the_tally_counts_every_ending_and_the_work(engine):
    results(submitted(engine, job_of(1), job_of(2)))
    tally = engine.tally()
    assert {ending.value for ending in Ending} < set(tally) <= FIELDS
    assert tally["answered"] == 2
    assert tally["rows"] == 2 * (4 + 2 * 5 * 3)
    assert tally["cache_misses"] == 8


@pytest.mark.parametrize("name", ["cat", "split"])
def test_a_batch_that_memory_does_not_hold_is_split(make_engine, monkeypatch, name):
    whole = getattr(torch, name)

    def scarce(tensors, *rest):
        parts = list(tensors) if name == "cat" else [tensors]
        if sum(part.shape[0] for part in parts) > 4:
            raise MemoryError
        return whole(tensors, *rest)

    engine = make_engine()
    callers = submitted(engine, *(job_of(seed) for seed in range(3)))
    monkeypatch.setattr(torch, name, scarce)
    engine.start()
    assert all(results(callers))


def test_an_engine_that_cannot_give_memory_back_goes_on(make_engine, graphs, monkeypatch):
    def fail():
        graphs.trims += 1
        raise MemoryError

    monkeypatch.setattr("m2ib_server.engine.engine.IDLE_SECONDS", 0.01)
    monkeypatch.setattr(graphs, "trim", fail)
    engine = make_engine()
    engine.start()
    deadline = time.monotonic() + SECONDS
    while not graphs.trims and time.monotonic() < deadline:
        time.sleep(0.01)
    assert results(submitted(engine, job_of()))

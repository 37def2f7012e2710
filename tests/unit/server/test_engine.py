import threading
import time
from concurrent.futures import CancelledError

import pytest
import torch

from fakes.graphs import DIGEST, FakeGraphs, encoder_input
from m2ib_server.engine import Engine, Evaluator, FeatureCache, Job, Stage
from m2ib_server.engine.cache import CacheKey
from m2ib_server.engine.schedule import Pending, admit, batches
from m2ib_server.errors import DeadlineExpired, Draining, QueueFull
from m2ib_server.methods import Evaluation, M2IBSettings, MaskShape, Side, explain
from m2ib_server.package import Role
from m2ib_server.settings import EngineLimits

SECONDS = 10
SETTINGS = M2IBSettings(beta=0.1, steps=5, samples=3, learning_rate=1.0, mask_shape=MaskShape.CHANNEL, seed=7)


def job_of(seed=1, *, settings=SETTINGS, **kwargs):
    method = explain(encoder_input(Side.IMAGE, seed), encoder_input(Side.TEXT, seed), settings, tuple(Side))
    return Job(method, model=DIGEST, **kwargs)


@pytest.fixture
def graphs():
    return FakeGraphs()


@pytest.fixture
def make_engine(graphs):
    engines = []

    def make(**limits):
        bounds = EngineLimits(**limits)
        evaluator = Evaluator({DIGEST: graphs}, max_rows=bounds.max_rows, cache=FeatureCache(bounds.cache_bytes))
        engines.append(Engine(evaluator, limits=bounds, threads=1))
        return engines[-1]

    yield make
    graphs.gate.set()
    for engine in engines:
        engine.close()


def finished(engine, *jobs):
    for job in jobs:
        engine.submit(job)
    return [job.reply.result(timeout=SECONDS) for job in jobs]


def test_jobs_are_answered(make_engine):
    engine = make_engine()
    engine.start()
    (attribution,) = finished(engine, job_of())
    assert len(attribution.course[Side.IMAGE]) == 5


@pytest.mark.parametrize("max_running", [1, 4])
def test_a_job_gets_the_same_map_alone_and_among_others(make_engine, max_running):
    alone_engine, shared_engine = make_engine(), make_engine(max_running=max_running)
    alone_engine.start()
    (alone,) = finished(alone_engine, job_of(2))
    jobs = [job_of(1), job_of(2), job_of(3), job_of(4)]
    for job in jobs:
        shared_engine.submit(job)
    shared_engine.start()
    together = jobs[1].reply.result(timeout=SECONDS)
    for side in Side:
        torch.testing.assert_close(alone.course[side][-1].bits, together.course[side][-1].bits, rtol=1e-4, atol=1e-4)


def test_jobs_that_run_together_share_calls(make_engine, graphs):
    engine = make_engine(max_running=4)
    jobs = [job_of(seed) for seed in range(4)]
    for job in jobs:
        engine.submit(job)
    engine.start()
    for job in jobs:
        job.reply.result(timeout=SECONDS)
    gradient_rows = [rows for role, rows in graphs.calls if role is Role.VISION_TAIL_GRAD]
    assert gradient_rows == [12] * 5


def test_cancelling_one_of_several_jobs_leaves_the_others_their_answers(make_engine, graphs):
    engine = make_engine(max_running=3)
    graphs.gate.clear()
    jobs = [job_of(seed) for seed in range(3)]
    for job in jobs:
        engine.submit(job)
    engine.start()
    jobs[1].cancel()
    graphs.gate.set()
    with pytest.raises(CancelledError):
        jobs[1].reply.result(timeout=SECONDS)
    assert all(job.reply.result(timeout=SECONDS) for job in (jobs[0], jobs[2]))


def test_a_future_cancelled_by_its_reader_does_not_disturb_the_engine(make_engine):
    engine = make_engine()
    job, after = job_of(1), job_of(2)
    assert not job.reply.cancel()
    engine.start()
    assert all(finished(engine, job, after))


def test_a_job_whose_evaluation_fails_fails_alone(make_engine):
    engine = make_engine(max_running=3)
    broken = encoder_input(Side.IMAGE, 1)
    broken.inputs["rows"][0, 0, 0] = float("nan")
    method = explain(broken, encoder_input(Side.TEXT, 1), SETTINGS, tuple(Side))
    jobs = [job_of(2), Job(method, model=DIGEST), job_of(3)]
    for job in jobs:
        engine.submit(job)
    engine.start()
    with pytest.raises(RuntimeError):
        jobs[1].reply.result(timeout=SECONDS)
    assert jobs[0].reply.result(timeout=SECONDS)
    assert jobs[2].reply.result(timeout=SECONDS)


def test_a_method_that_raises_fails_its_own_job_only(make_engine):
    def broken():
        yield Evaluation(role=Role.VISION_HEAD, inputs=encoder_input(Side.IMAGE, 1).inputs)
        raise ZeroDivisionError

    engine = make_engine(max_running=2)
    jobs = [Job(broken(), model=DIGEST), job_of(1)]
    for job in jobs:
        engine.submit(job)
    engine.start()
    with pytest.raises(ZeroDivisionError):
        jobs[0].reply.result(timeout=SECONDS)
    assert jobs[1].reply.result(timeout=SECONDS)


def test_a_deadline_ends_a_job_within_a_step(make_engine, graphs):
    engine = make_engine()
    job = job_of(deadline_ns=time.monotonic_ns())
    engine.start()
    engine.submit(job)
    with pytest.raises(DeadlineExpired):
        job.reply.result(timeout=SECONDS)
    assert not any(role is Role.VISION_TAIL_GRAD for role, _ in graphs.calls)


def test_a_waiting_job_can_be_cancelled(make_engine, graphs):
    engine = make_engine()
    graphs.gate.clear()
    first, second = job_of(1), job_of(2)
    engine.submit(first)
    engine.submit(second)
    engine.start()
    second.cancel()
    graphs.gate.set()
    with pytest.raises(CancelledError):
        second.reply.result(timeout=SECONDS)
    assert first.reply.result(timeout=SECONDS)


def test_one_job_more_than_may_wait_is_refused(make_engine):
    engine = make_engine(max_waiting=2)
    engine.submit(job_of(1))
    engine.submit(job_of(2))
    with pytest.raises(QueueFull, match="2 of 2"):
        engine.submit(job_of(3))
    engine.start()


def test_closing_cancels_what_is_left_and_refuses_what_comes(make_engine, graphs):
    engine = make_engine()
    graphs.gate.clear()
    jobs = [job_of(1), job_of(2)]
    for job in jobs:
        engine.submit(job)
    engine.start()
    closing = threading.Thread(target=engine.close)
    closing.start()
    graphs.gate.set()
    closing.join(timeout=SECONDS)
    assert not closing.is_alive()
    for job in jobs:
        with pytest.raises(CancelledError):
            job.reply.result(timeout=SECONDS)
    with pytest.raises(Draining):
        engine.submit(job_of(3))


def test_a_dying_engine_fails_its_jobs_and_tells_its_owner(make_engine, graphs):
    class Broken:
        def recall(self, pending):
            raise ZeroDivisionError

    engine = Engine(Broken(), limits=EngineLimits(), threads=1)
    died = threading.Event()
    jobs = [job_of(1), job_of(2)]
    for job in jobs:
        engine.submit(job)
    engine.start(on_death=died.set)
    for job in jobs:
        with pytest.raises(ZeroDivisionError):
            job.reply.result(timeout=SECONDS)
    assert died.wait(timeout=SECONDS)
    with pytest.raises(Draining):
        engine.submit(job_of(3))


def test_features_of_a_second_request_come_from_the_cache(make_engine, graphs):
    engine = make_engine()
    engine.start()
    first, second = job_of(1), job_of(1)
    answers = finished(engine, first, second)
    assert first.cached_roles == set()
    assert second.cached_roles == {Role.VISION_HEAD, Role.VISION_TAIL, Role.TEXT_HEAD, Role.TEXT_TAIL}
    assert [role for role, _ in graphs.calls].count(Role.VISION_HEAD) == 1
    assert torch.equal(answers[0].course[Side.IMAGE][-1].bits, answers[1].course[Side.IMAGE][-1].bits)


def test_time_is_booked_on_the_stage_that_took_it(make_engine):
    engine = make_engine()
    job = job_of()
    started = time.monotonic()
    engine.start()
    finished(engine, job)
    total = time.monotonic() - started
    assert set(job.seconds) == set(Stage)
    assert all(spent > 0 for spent in job.seconds.values())
    assert sum(job.seconds.values()) <= total + 0.1


def test_steps_are_told_in_order(make_engine):
    engine, steps = make_engine(), []
    engine.start()
    finished(engine, job_of(on_step=steps.append))
    assert [(step.side, step.step) for step in steps] == [(side, step) for side in Side for step in range(1, 6)]
    assert all(step.bits_kept == pytest.approx(float(step.bits.sum())) for step in steps)


def pending(role, rows, tokens=5, model=DIGEST):
    return Pending(model=model, evaluation=Evaluation(role=role, inputs={"features": torch.zeros(rows, tokens, 8)}))


def test_batches_join_equal_calls_up_to_the_row_budget():
    grad, head = Role.VISION_TAIL_GRAD, Role.VISION_HEAD
    items = [pending(grad, 4), pending(head, 1), pending(grad, 4), pending(grad, 4), pending(grad, 4, tokens=6)]
    assert batches(items, max_rows=8) == [[0, 2], [1], [3], [4]]


def test_batches_keep_models_apart_and_lose_nothing():
    items = [pending(Role.TEXT_TAIL, 1, model=model) for model in ("a", "b", "a")]
    assert batches(items, max_rows=8) == [[0, 2], [1]]
    assert batches([pending(Role.TEXT_TAIL, 20)], max_rows=8) == [[0]]
    assert batches([], max_rows=8) == []


@pytest.mark.parametrize(("running", "expected"), [(0, ["a", "b"]), (1, ["a"]), (2, []), (3, [])])
def test_admission_fills_the_free_places_oldest_first(running, expected):
    assert admit(["a", "b", "c"], running, EngineLimits(max_running=2)) == expected


def key(content, model=DIGEST, layer=1, role=Role.VISION_HEAD):
    return CacheKey(model=model, role=role, layer=layer, content=content)


def test_cache_forgets_the_least_recently_used_beyond_its_bytes():
    cache = FeatureCache(max_bytes=80)
    for content in "ab":
        cache.put(key(content), (torch.zeros(10),))
    assert cache.get(key("a")) is not None
    cache.put(key("c"), (torch.zeros(10),))
    assert cache.get(key("b")) is None
    assert cache.get(key("a")) is not None
    assert (len(cache), cache.size_bytes) == (2, 80)


def test_cache_does_not_keep_what_is_larger_than_itself():
    cache = FeatureCache(max_bytes=8)
    cache.put(key("a"), (torch.zeros(10),))
    assert (len(cache), cache.size_bytes) == (0, 0)


def test_cache_keeps_apart_what_differs_in_any_part_of_the_key():
    cache = FeatureCache(max_bytes=1000)
    cache.put(key("a"), (torch.zeros(1),))
    assert cache.get(key("b")) is None
    assert cache.get(key("a", model="1" * 64)) is None
    assert cache.get(key("a", layer=2)) is None
    assert cache.get(key("a", role=Role.VISION_TAIL)) is None

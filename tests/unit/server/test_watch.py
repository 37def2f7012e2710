"""What is healthy, what is restarted and what is given up: as policy, and over real compute threads and gRPC."""

import asyncio
import time
from dataclasses import replace

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fakes.engines import SECONDS, engine_of, job_of, submitted
from fakes.graphs import FakeGraphs
from m2ib_server.api import Lifecycle
from m2ib_server.api.lifecycle import Phase
from m2ib_server.engine import Catalogue, Fleet, LoadedModel, Pulse
from m2ib_server.engine.engine import IDLE_SECONDS
from m2ib_server.errors import Draining, EngineFailed, EvaluationAborted, Loading
from m2ib_server.package import open_package
from m2ib_server.settings import WatchLimits
from m2ib_server.watch import HealthBoard, HealthServicer, Watchdog
from m2ib_server.watch.canary import is_as_before
from m2ib_server.watch.policy import (
    Condition,
    EngineHealth,
    Proof,
    diagnose,
    is_canary_due,
    is_engine_broken,
    may_restart,
    serves_any,
    serves_model,
)

LIMITS = WatchLimits(stuck_seconds=60, max_restarts=2, restart_window_seconds=600, canary_seconds=60)
NOW = 10_000 * 10**9
REST = Pulse(is_alive=True, beat_ns=NOW, busy_since_ns=None, step_ns=NOW, has_work=False)
WELL, STUCK = EngineHealth(condition=Condition.WELL), EngineHealth(condition=Condition.STUCK)


def ago(seconds):
    return NOW - int(seconds * 1e9)


@pytest.mark.parametrize(
    ("pulse", "condition"),
    [
        (REST, Condition.WELL),
        (replace(REST, is_alive=False), Condition.DEAD),
        (replace(REST, busy_since_ns=ago(59), beat_ns=ago(59), step_ns=ago(59), has_work=True), Condition.WELL),
        (replace(REST, busy_since_ns=ago(61), beat_ns=ago(61), step_ns=ago(61), has_work=True), Condition.STUCK),
        (replace(REST, has_work=True, step_ns=ago(61 + IDLE_SECONDS)), Condition.STUCK),
        (replace(REST, step_ns=ago(9000)), Condition.WELL),
        (replace(REST, has_work=True, step_ns=ago(IDLE_SECONDS)), Condition.WELL),
        (replace(REST, beat_ns=ago(61 + IDLE_SECONDS)), Condition.STUCK),
    ],
    ids=["rest", "dead", "long-round", "stuck-round", "no-step", "idle", "just-woken", "silent"],
)
def test_a_pulse_tells_how_a_thread_is(pulse, condition):
    assert diagnose(pulse, NOW, LIMITS) is condition


def test_an_engine_is_restarted_so_many_times_within_the_window_and_again_once_that_has_passed():
    assert may_restart([], NOW, LIMITS)
    assert may_restart([ago(10)], NOW, LIMITS)
    assert not may_restart([ago(20), ago(10)], NOW, LIMITS)
    assert may_restart([ago(601), ago(10)], NOW, LIMITS)


@pytest.mark.parametrize(
    ("proof", "is_idle", "is_due"),
    [
        (Proof(is_proven=True, since_ns=ago(61)), True, True),
        (Proof(is_proven=True, since_ns=ago(59)), True, False),
        (Proof(is_proven=True, since_ns=ago(61)), False, False),
        (Proof(is_proven=False, since_ns=NOW), False, True),
        (Proof(is_proven=False, since_ns=ago(4), failures=1), True, False),
        (Proof(is_proven=False, since_ns=ago(6), failures=1), False, True),
    ],
)
def test_a_canary_is_due_when_an_idle_engine_was_quiet_for_long_and_when_there_is_doubt(proof, is_idle, is_due):
    assert is_canary_due(proof, NOW, LIMITS, is_idle=is_idle) is is_due
    assert not is_canary_due(proof, NOW, replace(LIMITS, canary_seconds=0), is_idle=is_idle)


def test_an_engine_is_broken_when_every_model_fails_again_and_again():
    failed, once = (Proof(is_proven=False, since_ns=NOW, failures=count) for count in (3, 1))
    assert is_engine_broken([failed, failed], LIMITS)
    assert not is_engine_broken([failed, once], LIMITS)
    assert not is_engine_broken([], LIMITS)


def test_a_model_serves_when_it_does_on_every_engine_and_the_server_when_any_does():
    doubted = EngineHealth(condition=Condition.WELL, unproven=frozenset({"a"}))
    assert serves_model("a", [WELL, WELL])
    assert not serves_model("a", [WELL, doubted])
    assert serves_model("b", [WELL, doubted])
    assert serves_any({"a", "b"}, [WELL, doubted])
    assert not serves_any({"a", "b"}, [WELL, STUCK])
    assert not serves_any(set(), [WELL])


def test_a_canary_that_finds_something_else_than_the_first_proves_nothing():
    assert is_as_before(0.501, 0.5)
    assert not is_as_before(0.52, 0.5)
    assert not is_as_before(float("nan"), 0.5)


class Watched:
    """A watchdog over one engine with fake graphs, and a gRPC server that tells its health."""

    def __init__(self, engine, graphs, stub, watchdog, lifecycle, given_up):
        self.engine, self.graphs, self.watchdog, self.lifecycle = engine, graphs, watchdog, lifecycle
        self.given_up = given_up
        self._stub = stub

    async def status(self, name=""):
        answer = await self._stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=60)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)

    async def until(self, status, name=""):
        async with asyncio.timeout(60):
            while True:
                if await self.status(name) == status:
                    return
                await asyncio.sleep(0.005)


class Canaries(FakeGraphs):
    """Fake graphs that take the real model's inputs: each is cut down to the rows that the fake knows."""

    def run(self, role, inputs):
        if "pixel_values" in inputs:
            inputs = {"rows": inputs["pixel_values"].flatten(1)[:, :40].reshape(-1, 5, 8) + 0.5}
        elif "token_ids" in inputs:
            rows = inputs["token_ids"].float()[:, :, None].expand(-1, -1, 8) / 100
            inputs = {"rows": rows}
        return super().run(role, inputs)


@pytest.fixture
async def watch(tiny_package):
    model, cleanups = LoadedModel(open_package(tiny_package)), []

    async def start(**limits):
        graphs = Canaries()
        engine = engine_of(graphs)
        engine.evaluator.add(model.digest, graphs)
        engine.start()
        server, board = grpc.aio.server(), HealthBoard()
        health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(board), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        lifecycle, given_up = Lifecycle(), asyncio.Event()
        bounds = WatchLimits(tick_seconds=0.01, **limits)
        watchdog = Watchdog(
            Fleet([engine]),
            Catalogue([model]),
            board,
            bounds,
            services=["a.Service"],
            lifecycle=lifecycle,
        )
        watchdog.look(time.monotonic_ns())
        watching = watchdog.watching(lambda reason: given_up.set())
        await watching.__aenter__()

        async def stop():
            await watching.__aexit__(None, None, None)
            await channel.close()
            await server.stop(None)
            graphs.gate.set()
            engine.close()

        cleanups.append(stop)
        return Watched(engine, graphs, health_pb2_grpc.HealthStub(channel), watchdog, lifecycle, given_up)

    yield start
    for stop in cleanups:
        await stop()


async def until(condition):
    async with asyncio.timeout(60):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


def kill(role):
    raise SystemExit


async def open_up(watched):
    watched.lifecycle.open()
    watched.watchdog.wake()
    await watched.until("SERVING")


async def test_nothing_serves_before_the_server_is_open_and_everything_then(watch):
    watched = await watch()
    names = ("", "a.Service", "m2ib.v1.Model/tiny", "m2ib.v1.Model/tiny:1")
    assert {await watched.status(name) for name in names} == {"NOT_SERVING"}
    await open_up(watched)
    assert {await watched.status(name) for name in names} == {"SERVING"}
    watched.lifecycle.drain()
    watched.watchdog.wake()
    await watched.until("NOT_SERVING", "m2ib.v1.Model/tiny")


async def test_a_killed_compute_thread_is_told_and_restarted_and_serves_again_once_a_canary_went_well(watch):
    watched = await watch()
    await open_up(watched)
    watched.graphs.on_call = kill
    (victim,) = submitted(watched.engine, job_of(1))
    await watched.until("NOT_SERVING")
    with pytest.raises(EngineFailed):
        victim.reply.result(timeout=SECONDS)
    watched.graphs.on_call = lambda role: None
    await watched.until("SERVING", "m2ib.v1.Model/tiny")
    (later,) = submitted(watched.engine, job_of(1))
    assert await asyncio.to_thread(later.reply.result, SECONDS)
    assert not watched.given_up.is_set()


async def test_a_compute_thread_that_dies_again_and_again_is_given_up(watch):
    watched = await watch(max_restarts=2)
    await open_up(watched)
    watched.graphs.on_call = kill  # the canary after each restart kills it again
    submitted(watched.engine, job_of(1))
    async with asyncio.timeout(60):
        await watched.given_up.wait()
    assert await watched.status() == "NOT_SERVING"


async def test_a_stuck_evaluation_is_told_and_ended_and_the_engine_goes_on(watch):
    watched = await watch(stuck_seconds=0.2, canary_seconds=0)
    await open_up(watched)

    def stuck(role):
        watched.graphs.on_call = lambda role: None
        while not watched.graphs.aborts:
            time.sleep(0.005)
        raise EvaluationAborted

    watched.graphs.on_call = stuck
    (victim,) = submitted(watched.engine, job_of(1))
    await watched.until("NOT_SERVING")
    with pytest.raises(EvaluationAborted):
        await asyncio.to_thread(victim.reply.result, SECONDS)
    await watched.until("SERVING")
    assert not watched.given_up.is_set()


async def test_an_evaluation_that_nothing_ends_is_given_up(watch):
    watched = await watch(stuck_seconds=0.2, abort_seconds=0.2, canary_seconds=0)
    await open_up(watched)
    watched.graphs.gate.clear()
    submitted(watched.engine, job_of(1))
    async with asyncio.timeout(60):
        await watched.given_up.wait()
    assert watched.graphs.aborts
    assert await watched.status() == "NOT_SERVING"


async def test_a_model_that_answers_no_canary_serves_not_and_then_serves_again(watch):
    watched = await watch(canary_seconds=0.05, canary_retry_seconds=0.05, max_canary_failures=1000)
    await open_up(watched)

    def fail(role):
        raise RuntimeError("a value that the log must not show: 41.5")

    watched.graphs.on_call = fail
    await watched.until("NOT_SERVING", "m2ib.v1.Model/tiny")
    watched.graphs.on_call = lambda role: None
    await watched.until("SERVING", "m2ib.v1.Model/tiny")
    assert watched.engine.pulse.is_alive


async def test_an_engine_whose_every_canary_fails_is_restarted(watch):
    watched = await watch(canary_seconds=0.05, canary_retry_seconds=0.05, max_canary_failures=2)
    await open_up(watched)
    first = watched.engine._thread

    def fail(role):
        raise RuntimeError

    watched.graphs.on_call = fail
    await until(lambda: watched.engine._thread is not first)
    watched.graphs.on_call = lambda role: None
    await watched.until("SERVING")


async def test_canaries_take_no_room_in_the_cache(watch):
    watched = await watch(canary_seconds=0.05)
    await open_up(watched)
    await until(lambda: len(watched.graphs.calls) >= 12)
    assert watched.engine.evaluator.counts.hits.total() == watched.engine.evaluator.counts.misses.total() == 0


async def test_a_call_that_is_cut_off_is_told_that_the_server_drains():
    lifecycle = Lifecycle()
    with pytest.raises(Loading), lifecycle.call():
        pass
    lifecycle.open()

    async def work():
        with lifecycle.call():
            await asyncio.Event().wait()

    ours, left = asyncio.create_task(work()), asyncio.create_task(work())
    await asyncio.sleep(0)
    lifecycle.drain()
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    assert not await lifecycle.until_idle(0.01)
    assert lifecycle.cut() == 1
    with pytest.raises(Draining):
        await ours
    assert await lifecycle.until_idle(0.01)
    with pytest.raises(Draining), lifecycle.call():
        pass
    lifecycle.open()
    assert lifecycle.phase is Phase.DRAINING


def test_who_asks_is_told_of_the_drain_once_it_begins_and_not_after_it_has_left():
    lifecycle, told = Lifecycle(Phase.OPEN), []
    with lifecycle.telling_of_drain(lambda: told.append("left")):
        pass
    with lifecycle.telling_of_drain(lambda: told.append("stayed")):
        assert told == []
        lifecycle.drain()
        assert told == ["stayed"]
    with lifecycle.telling_of_drain(lambda: told.append("late")):
        assert told == ["stayed", "late"]

"""Engines over fake graphs, and jobs for them."""

import time

import torch

from fakes.graphs import DIGEST, FakeGraphs, encoder_input
from m2ib_server.engine import UNOBSERVED, Caller, CostModel, Engine, Evaluator, FeatureCache, Job, Roster
from m2ib_server.methods import M2IBSettings, MaskShape, Side, attribution_so_far, explain, work
from m2ib_server.runtime import Device, DeviceKind, open_device
from m2ib_server.settings import EngineLimits

SECONDS = 10
SETTINGS = M2IBSettings(
    beta=0.1,
    text_beta=0.1,
    steps=5,
    samples=3,
    learning_rate=1.0,
    mask_shape=MaskShape.CHANNEL,
    text_mask_shape=MaskShape.CHANNEL,
    seed=7,
)
CPU = Device(kind=DeviceKind.CPU, torch_device=torch.device("cpu"), threads=1, providers=[])


def engine_of(graphs: FakeGraphs, *, observer=UNOBSERVED, **limits) -> Engine:
    """Make an engine, not started."""
    bounds, costs = EngineLimits(**limits), CostModel()
    cache = FeatureCache(bounds.cache_bytes)
    evaluator = Evaluator(max_rows=bounds.max_rows, cache=cache, costs=costs, observer=observer)
    evaluator.add(DIGEST, graphs)
    return Engine(Roster(bounds, costs), evaluator, CPU, observer)


def job_of(seed=1, *, settings=SETTINGS, tokens=5, **kwargs) -> Job:
    """Make a job that explains a pair that the seed decides."""
    pair = encoder_input(Side.IMAGE, seed), encoder_input(Side.TEXT, seed, tokens=tokens)
    method = explain(*pair, settings, tuple(Side))
    known = {"rows": settings.rows, "work": work(settings, tuple(Side)), "so_far": attribution_so_far}
    return Job(method, model=DIGEST, **(known | kwargs))


def submitted(engine: Engine, *jobs: Job, **kwargs) -> list[Caller]:
    """Submit jobs, each with a caller of its own."""
    callers = [Caller(**kwargs) for _ in jobs]
    for job, caller in zip(jobs, callers, strict=True):
        engine.submit(job, caller)
    return callers


def results(callers: list[Caller]) -> list:
    """Wait for every caller's answer."""
    return [caller.reply.result(timeout=SECONDS) for caller in callers]


def final_bits(attribution, side=Side.IMAGE):
    """Return a side's attribution."""
    return attribution.course[side][-1].bits


def endings(engine: Engine) -> dict:
    """Return how many callers ended how, those that none did left out."""
    return {ending: count for ending, count in engine.roster.census().endings.items() if count}


class EndingEngine:
    """An engine whose every job ends in one error, at once: refused where nobody would have been admitted."""

    def __init__(self, error: Exception, *, is_refusal: bool) -> None:
        self.device = open_device(DeviceKind.CPU, threads=1)
        self.evaluator = Evaluator(max_rows=10, cache=FeatureCache(0), costs=CostModel())
        self.error, self.is_refusal = error, is_refusal

    def submit(self, job: Job, caller: Caller) -> Job:
        if self.is_refusal:
            raise self.error
        caller.reply.set_exception(self.error)
        return job


class LeavingEngine:
    """An engine that ends at once, or hangs; it tells in which order it was asked to stop and waited for."""

    def __init__(self, name: str, order: list[str], *, hangs: bool = False) -> None:
        self.name, self.hangs = name, hangs
        self.waited = 0.0
        self._order = order

    def stop(self) -> None:
        self._order.append(f"stop {self.name}")

    def join(self, timeout_seconds: float | None = None) -> bool:
        assert timeout_seconds is not None, "a test that waits for ever tells nothing"
        self._order.append(f"join {self.name}")
        if self.hangs:
            self.waited += timeout_seconds
            time.sleep(timeout_seconds)
        return not self.hangs

    def close(self, timeout_seconds: float | None = None) -> bool:
        self.stop()
        return self.join(timeout_seconds)

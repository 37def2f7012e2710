"""Times explanations in the engine with nobody watching and with metrics, and the spans of a call beside them.

What watching adds to a step is too little to be seen in a step's time, so its parts are timed alone too. Run as
`PYTHONPATH=tests python bench/sight_cost.py`.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Mapping

from opentelemetry.sdk.trace import SpanProcessor
from prometheus_client import CollectorRegistry

from fakes.engines import engine_of, job_of, results, submitted
from fakes.graphs import FakeGraphs
from m2ib_server.api.call import Call, CallEnd
from m2ib_server.engine import Engine, Period
from m2ib_server.package import Role
from m2ib_server.sight.call_metrics import CallMetrics
from m2ib_server.sight.engine_metrics import DeviceHistograms, EngineHistograms
from m2ib_server.sight.tracing import Tracing

JOBS = 20  # in one turn of a contender
STAGES = ("prepare", "queue", "encode", "optimise_image", "optimise_text", "render")


def main() -> None:
    """Let both engines take turns, time the parts, and report ratios."""
    rounds = _rounds()
    observer = EngineHistograms(CollectorRegistry()).observer(0)
    engines = {"unobserved": engine_of(FakeGraphs()), "observed": engine_of(FakeGraphs(), observer=observer)}
    taken: dict[str, list[float]] = {name: [] for name in engines}
    for engine in engines.values():
        engine.start()
    for turn in range(-1, rounds):
        for name in list(engines)[:: 1 if turn % 2 else -1]:
            seconds = _timed(functools.partial(_explain, engines[name], turn))
            if turn >= 0:
                taken[name].append(seconds)
    for engine in engines.values():
        engine.close()
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    calls = engines["observed"].evaluator.counts.calls.total() / (JOBS * (rounds + 1))
    print(f"fake graphs, {calls:.1f} calls a job, {rounds} turns of {JOBS} jobs")
    print(f"observed / unobserved, medians: {medians['observed'] / medians['unobserved']:.3f}")
    for name, micros in _parts(observer).items():
        print(f"{name}: {micros:.1f} us")


def _rounds() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    return int(parser.parse_args().rounds)


def _explain(engine: Engine, turn: int) -> None:
    results(submitted(engine, *(job_of(turn * JOBS + seed + JOBS) for seed in range(JOBS))))


def _parts(observer: DeviceHistograms) -> Mapping[str, float]:
    calls, tracing = CallMetrics(CollectorRegistry()), Tracing(SpanProcessor())
    parts = {
        "metrics of one call of a graph": lambda: observer.called(Role.VISION_TAIL_GRAD, rows=10, seconds=0.05),
        "metrics of one round": lambda: observer.advanced(jobs=2, seconds=0.05),
        "metrics of one call's end and six stages": lambda: calls.ended(_call(), CallEnd(code="OK")),
        "spans of one call and six stages": lambda: _trace(tracing),
        "of either of which the call itself": _call,
    }
    return {name: statistics.median(_timed(part) for _ in range(5000)) * 1e6 for name, part in parts.items()}


def _call() -> Call:
    call = Call(service="m2ib.v1.AttributionService", method="Explain", deadline_ns=None)
    now_ns = time.monotonic_ns()
    call.stages = [Period(stage=stage, started_ns=now_ns, ended_ns=now_ns + 1000) for stage in STAGES]
    return call


def _trace(tracing: Tracing) -> None:
    call = _call()
    tracing.begun(call)
    tracing.ended(call, CallEnd(code="OK"))


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()

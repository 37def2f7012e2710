"""Tells of engines, models and what is held for requests: read when somebody asks, but for two histograms."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from m2ib_server.api import Desk
from m2ib_server.engine import Engine
from m2ib_server.package import Role

GRAPH_BY_ROLE = {role: role.name.lower() for role in Role}
ROWS = (1, 2, 5, 10, 15, 20, 30, 40, 80, 160)
STEP_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class EngineHistograms:
    """What of an engine cannot be read afterwards: each call of a graph and each round."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register the histograms."""
        options: Any = {"registry": registry}
        self._rows = Histogram(
            "m2ib_engine_call_rows",
            "Rows of one call of a graph, of all jobs together.",
            labelnames=("device", "graph"),
            buckets=ROWS,
            **options,
        )
        self._seconds = Histogram(
            "m2ib_engine_call_seconds",
            "Time of one call of a graph; of a gradient graph, a step of every job in it.",
            labelnames=("device", "graph"),
            buckets=STEP_SECONDS,
            **options,
        )
        self._round_seconds = Histogram(
            "m2ib_engine_round_seconds",
            "Time of one round: a turn of each job that has one.",
            labelnames=("device",),
            buckets=STEP_SECONDS,
            **options,
        )
        self._round_jobs = Histogram(
            "m2ib_engine_round_jobs",
            "Jobs that had a turn in one round.",
            labelnames=("device",),
            buckets=ROWS,
            **options,
        )

    def observer(self, device: int) -> "DeviceHistograms":
        """Return what watches the engine of a device, by its index."""
        name = str(device)
        return DeviceHistograms(
            rows={role: self._rows.labels(name, graph) for role, graph in GRAPH_BY_ROLE.items()},
            seconds={role: self._seconds.labels(name, graph) for role, graph in GRAPH_BY_ROLE.items()},
            round_seconds=self._round_seconds.labels(name),
            round_jobs=self._round_jobs.labels(name),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceHistograms:
    """The histograms of one device, looked up once: the engine's thread only adds to them."""

    rows: dict[Role, Any]
    seconds: dict[Role, Any]
    round_seconds: Any
    round_jobs: Any

    def called(self, role: Role, *, rows: int, seconds: float) -> None:
        """Note one call of a graph."""
        self.rows[role].observe(rows)
        self.seconds[role].observe(seconds)

    def advanced(self, *, jobs: int, seconds: float) -> None:
        """Note one round."""
        self.round_jobs.observe(jobs)
        self.round_seconds.observe(seconds)


class EngineCollector(Collector):
    """Reads the engines' own counts; what it reads is counted whether anybody asks or not."""

    def __init__(self, engines: Iterable[Engine]) -> None:
        """Read these engines, whose order is the devices'."""
        self._engines = engines

    def collect(self) -> Iterator[Metric]:
        """Read every engine once."""
        return iter(_Engines(self._engines).metrics())


class _Engines:
    """One reading."""

    def __init__(self, engines: Iterable[Engine]) -> None:
        self._engines = [(str(index), engine, engine.roster.census()) for index, engine in enumerate(engines)]

    def metrics(self) -> Iterator[Metric]:
        for name, meaning in (
            ("waiting", "Jobs that wait to start: the depth of the queue."),
            ("running", "Jobs under way."),
            ("callers", "Callers of the jobs that wait or are under way."),
        ):
            yield _gauge(
                f"m2ib_engine_{name}", meaning, [((device,), getattr(of, name)) for device, _, of in self._engines]
            )
        yield _counter(
            "m2ib_engine_callers_ended",
            "Callers by how their stake in a job ended.",
            ("device", "ending"),
            [((device, ending.value), of.endings[ending]) for device, _, of in self._engines for ending in of.endings],
        )
        yield _counter(
            "m2ib_engine_callers_shared",
            "Callers that joined a job under way instead of making a new one.",
            ("device",),
            [((device,), of.shared) for device, _, of in self._engines],
        )
        yield from self._health()
        yield from self._cache()

    def _health(self) -> Iterator[Metric]:
        pulses = [(device, engine.pulse) for device, engine, _ in self._engines]
        now_ns = time.monotonic_ns()
        yield _gauge(
            "m2ib_engine_up", "1 while the compute thread lives, else 0.", [((d,), p.is_alive) for d, p in pulses]
        )
        yield _gauge(
            "m2ib_engine_step_age_seconds",
            "Time since a job was last advanced; without jobs it stays at a few seconds.",
            [((d,), (now_ns - p.step_ns) / 1e9) for d, p in pulses],
        )
        yield _counter(
            "m2ib_engine_restarts",
            "Restarts after the compute thread had ended by a fault.",
            ("device",),
            [((device,), engine.restarts) for device, engine, _ in self._engines],
        )

    def _cache(self) -> Iterator[Metric]:
        for name, meaning in (("hits", "found kept"), ("misses", "computed")):
            yield _counter(
                f"m2ib_engine_cache_{name}",
                f"Outputs of heads and tails that were {meaning}.",
                ("device", "graph"),
                [
                    ((device, graph), getattr(engine.evaluator.counts, name)[role])
                    for device, engine, _ in self._engines
                    for role, graph in GRAPH_BY_ROLE.items()
                    if not role.name.endswith("GRAD")  # a gradient is never kept
                ],
            )
        caches = [(device, engine.evaluator.cache) for device, engine, _ in self._engines]
        yield _gauge(
            "m2ib_engine_cache_bytes", "Memory that kept outputs take.", [((d,), c.size_bytes) for d, c in caches]
        )
        yield _gauge(
            "m2ib_engine_cache_limit_bytes", "Memory that they may take.", [((d,), c.max_bytes) for d, c in caches]
        )
        yield _gauge("m2ib_engine_cache_entries", "Outputs that are kept.", [((d,), len(c)) for d, c in caches])


class DeskCollector(Collector):
    """Reads what is held for requests outside the engines, and which models there are."""

    def __init__(self, desk: Desk) -> None:
        """Read this desk."""
        self._desk = desk

    def collect(self) -> Iterator[Metric]:
        """Read the desk once; its numbers are its event loop's, each read in one piece."""
        intake, uploads, images = self._desk.intake, self._desk.uploads, self._desk.images
        for name, meaning, value in (
            ("intake_requests", "Requests under way, read, waiting or running.", intake.requests),
            ("intake_limit_requests", "Requests that may be under way.", intake.max_requests),
            ("intake_bytes", "Messages and decoded images of the requests under way.", intake.used_bytes),
            ("intake_limit_bytes", "Bytes that they may take.", intake.max_bytes),
            ("uploads", "Uploaded images that are kept.", len(uploads)),
            ("uploads_bytes", "Uploaded images, kept or on their way.", uploads.size_bytes),
            ("uploads_limit_bytes", "Bytes that they may take.", uploads.max_bytes),
            ("image_cache_bytes", "Decoded images kept for the next request on them.", images.kept_bytes),
            ("image_cache_limit_bytes", "Bytes that they may take.", images.max_kept_bytes),
        ):
            yield _single(f"m2ib_{name}", meaning, value)
        yield self._models()

    def _models(self) -> Metric:
        family = GaugeMetricFamily(
            "m2ib_model_bytes",
            "Files of a model that is loaded; its weights are held once for each device.",
            labels=("model", "version"),
        )
        for model in self._desk.catalogue:
            size = sum(packaged.size_bytes for packaged in model.manifest.files)
            family.add_metric((model.manifest.name, model.manifest.version), size)
        return family


def _single(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value=value)


def _gauge(name: str, meaning: str, values: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=("device",))
    for labels, value in values:
        family.add_metric(labels, value)
    return family


def _counter(
    name: str, meaning: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float]]
) -> Metric:
    family = CounterMetricFamily(name, meaning, labels=labels)
    for of, value in values:
        family.add_metric(of, value)
    return family

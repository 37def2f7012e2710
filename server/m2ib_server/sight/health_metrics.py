"""Tells what health tells: which services and models serve."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class HealthState(Protocol):
    """Knows what serves."""

    present: Mapping[str, bool]  # by the names under which health is asked for; any thread may read it


class HealthCollector(Collector):
    """Reads the health. Its names are the server's and those that the operator gave to models."""

    def __init__(self, health: HealthState) -> None:
        """Read this."""
        self._health = health

    def collect(self) -> Iterator[Metric]:
        """Read it once."""
        family = GaugeMetricFamily(
            "m2ib_serving",
            "1 for what serves, by the name under which health is asked for; empty for the whole server.",
            labels=("service",),
        )
        for name, serves in self._health.present.items():
            family.add_metric((name,), int(serves))
        yield family

"""Puts a server's metrics together: a registry of its own, what fills it, and the port that shows it."""

from collections.abc import Iterable
from typing import Any

import prometheus_client
from google.protobuf.descriptor import ServiceDescriptor
from prometheus_client import CollectorRegistry, Gauge, ProcessCollector

from m2ib_server import __version__
from m2ib_server.api import Desk
from m2ib_server.engine import Engine, EngineObserver
from m2ib_server.sight.audit_metrics import AuditCollector, AuditState
from m2ib_server.sight.call_metrics import CallMetrics
from m2ib_server.sight.engine_metrics import DeskCollector, EngineCollector, EngineHistograms
from m2ib_server.sight.exposition import MetricsServer
from m2ib_server.sight.health_metrics import HealthCollector, HealthState
from m2ib_server.sight.rpc_metrics import RpcMetrics


class Metrics:
    """The metrics of one server; where there are none, nothing of it is made and nothing watches."""

    def __init__(self, services: Iterable[ServiceDescriptor]) -> None:
        """Count the RPCs of `services` from zero; of any other service from its first call."""
        disable_created_metrics: Any = prometheus_client.disable_created_metrics
        disable_created_metrics()  # a series' time of birth beside each would double them all
        self.registry = CollectorRegistry(auto_describe=True)
        self.rpcs = RpcMetrics(self.registry, services)
        self.calls = CallMetrics(self.registry)
        self._histograms = EngineHistograms(self.registry)
        self._server = MetricsServer(self.registry)
        ProcessCollector(registry=self.registry)
        info = Gauge("m2ib_build_info", "Always 1.", labelnames=("version",), registry=self.registry)
        info.labels(__version__).set(1)

    def engine_observer(self, device: int) -> EngineObserver:
        """Return what watches the engine of a device, by its index."""
        return self._histograms.observer(device)

    def watch(self, engines: Iterable[Engine], desk: Desk, health: HealthState, audit_log: AuditState | None) -> None:
        """Tell of all these, of the log if there is one, whenever somebody asks."""
        self.registry.register(EngineCollector(engines))
        self.registry.register(DeskCollector(desk))
        self.registry.register(HealthCollector(health))
        self.registry.register(AuditCollector(audit_log))

    def start(self, listen: str) -> str:
        """Show the metrics on "host:port"; return it with the port that was taken.

        Raises:
            OSError: the address cannot be listened on.
        """
        return self._server.start(listen)

    def close(self) -> None:
        """Show them no more."""
        self._server.close()

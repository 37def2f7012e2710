"""Builds the rooms from the settings, serves until told to stop, drains."""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from m2ib_server import __version__
from m2ib_server.access.opening import Access
from m2ib_server.access.threshold import Threshold
from m2ib_server.apart import apart
from m2ib_server.api import CallLog, Desk, Lifecycle, Reception
from m2ib_server.api.call import CallObserver
from m2ib_server.engine import (
    UNOBSERVED,
    Catalogue,
    CostModel,
    Engine,
    EngineObserver,
    Evaluator,
    FeatureCache,
    Fleet,
    Roster,
)
from m2ib_server.oip import InferenceStatistics
from m2ib_server.repository import Loader, Repository, poll
from m2ib_server.runtime import Device, DeviceKind, open_devices
from m2ib_server.settings import ServerSettings
from m2ib_server.sight.audit_log import AuditLog, open_audit_log
from m2ib_server.sight.metrics import Metrics
from m2ib_server.telemetry import log_event
from m2ib_server.watch import ENGINE_GIVEN_UP, HealthBoard, Stop, Watchdog, drain
from m2ib_server.wire import EXPLAINING, GUARDED, Services, build_wire, counted_services

if TYPE_CHECKING:
    from m2ib_server.sight.tracing import Tracing

ENGINE_SECONDS = 5.0  # how long a compute thread may take to end; one that hangs in a runtime never does


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """What a server is made of.

    Attributes:
        catalogue: the loaded models.
        fleet: running.
        repository: where models come from and go to.
        metrics: what they count; None where nobody asked for it.
    """

    catalogue: Catalogue
    fleet: Fleet
    repository: Repository
    metrics: Metrics | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What is kept of calls.

    Attributes:
        audit_log: without whose record no call is answered; None where nobody asked for it.
        tracing: their spans; None where nobody asked for it.
        metrics: their counts; None where nobody asked for it.
        statistics: their counts, for the Open Inference Protocol.
    """

    audit_log: AuditLog | None
    tracing: "Tracing | None"
    metrics: Metrics | None
    statistics: InferenceStatistics

    @property
    def observers(self) -> list[CallObserver]:
        """What hears of every call. Tracing comes first: it gives the call the trace that the others name."""
        tracing: list[CallObserver] = [self.tracing] if self.tracing else []
        metrics: list[CallObserver] = [self.metrics.calls] if self.metrics else []
        return [*tracing, *metrics, CallLog(), self.statistics]

    async def close(self) -> None:
        """Write what waits and let go, last of all."""
        if self.audit_log is not None:
            self.audit_log.close()
        if self.tracing is not None:
            await apart(self.tracing.close, "m2ib-closing")
        if self.metrics is not None:
            self.metrics.close()


def build(settings: ServerSettings) -> Rooms:
    """Start an engine for each device; the repository has still to load the models.

    Raises:
        DeviceUnavailable: the device cannot be had.
    """
    devices = open_devices(
        DeviceKind(settings.device),
        threads=settings.threads,
        count=settings.devices,
        spin_microseconds=settings.spin_microseconds,
    )
    metrics = Metrics(counted_services()) if settings.sight.metrics_listen else None
    engines = [
        build_engine(device, settings, UNOBSERVED if metrics is None else metrics.engine_observer(index))
        for index, device in enumerate(devices)
    ]
    catalogue, fleet = Catalogue(), Fleet(engines)
    loader = Loader(fleet, DeviceKind(settings.device))
    repository = Repository(settings.models, catalogue, loader, settings.repository)
    fleet.start()
    return Rooms(catalogue=catalogue, fleet=fleet, repository=repository, metrics=metrics)


def build_engine(device: Device, settings: ServerSettings, observer: EngineObserver = UNOBSERVED) -> Engine:
    """Give a device an engine, not yet started and without a model."""
    costs = CostModel()
    evaluator = Evaluator(
        max_rows=settings.engine.max_rows,
        cache=FeatureCache(settings.engine.cache_bytes),
        costs=costs,
        observer=observer,
    )
    return Engine(Roster(settings.engine, costs), evaluator, device, observer)


async def serve(
    rooms: Rooms,
    settings: ServerSettings,
    access: Access,
    showing: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> bool:
    """Listen, load the models, serve until told to stop, drain.

    Until every model is loaded, and every graph has run once, calls are told to come back later. SIGTERM, SIGINT and,
    if so set, the end of standard input stop the server, and so does an engine that cannot be helped.

    Args:
        rooms: from `build`.
        settings: those that the rooms were built from.
        access: who may call, and how the wire is encrypted.
        showing: shows somebody that models are being loaded, while its context lasts.

    Returns:
        True after a stop that was asked for, False when an engine was given up.

    Raises:
        OSError: the address cannot be listened on.
        ServiceError: a model is not usable, or the audit log cannot be written.
    """
    books = _open_books(settings, rooms.metrics)
    lifecycle = Lifecycle()
    reception = Reception(access.gate, books.observers, lifecycle, recorder=books.audit_log)
    desk = Desk(rooms.catalogue, rooms.fleet, settings)
    services = Services(desk=desk, repository=rooms.repository, reception=reception, statistics=books.statistics)
    board, stop = HealthBoard(), Stop()
    threshold = Threshold(access.gate, reception, GUARDED)
    wire = build_wire(services, board, settings, [rooms.metrics.rpcs, threshold] if rooms.metrics else [threshold])
    watchdog = Watchdog(rooms.fleet, rooms.catalogue, board, settings.watch, services=EXPLAINING, lifecycle=lifecycle)
    rooms.catalogue.watch(watchdog.wake)
    with stop.on_signals(is_stdin_one=settings.exit_with_stdin):
        try:
            _show(rooms, desk, board, books, settings)
            address = await wire.start(settings, access.credentials)
            async with watchdog.watching(stop.give):
                reason = await _until_stopped(rooms, settings, address, lifecycle, watchdog, stop, showing)
            board.close()
            grace = 0.0 if reason == ENGINE_GIVEN_UP else settings.grace_seconds
            log_event("draining", reason=reason, grace_seconds=grace)
            await drain(wire.server, lifecycle, grace)
        finally:
            await wire.stop()
            await _end(rooms, desk)
            await books.close()
    log_event("stopped", reason=reason)
    return reason != ENGINE_GIVEN_UP


async def _until_stopped(
    rooms: Rooms,
    settings: ServerSettings,
    address: str,
    lifecycle: Lifecycle,
    watchdog: Watchdog,
    stop: Stop,
    showing: Callable[[], AbstractContextManager[object]],
) -> str:
    """Load the models, take calls from then on, and return the reason to stop once there is one.

    Raises:
        ServiceError: a model is not usable.
    """
    with showing():
        await stop.unless_given(rooms.repository.load_all)
    if stop.is_given:
        return await stop.reason()
    lifecycle.open()
    watchdog.look(time.monotonic_ns())
    log_event("ready", address=address, version=__version__, device=settings.device, threads=settings.threads)
    if settings.ready_file is not None:
        _write_ready(settings.ready_file, address)
    stop_polling = _start_polling(rooms.repository, settings.repository.poll_seconds)
    reason = await stop.reason()
    stop_polling()
    return reason


async def _end(rooms: Rooms, desk: Desk) -> None:
    """End the engines, and what works for them."""
    for engine in rooms.fleet:
        log_event("engine stopping", **engine.tally())
    await apart(lambda: rooms.fleet.close(ENGINE_SECONDS), "m2ib-closing")
    rooms.repository.close()
    desk.close()


def _open_books(settings: ServerSettings, metrics: Metrics | None) -> Books:
    """Open whatever the settings ask for.

    Raises:
        AuditUnusable: the audit log cannot be written.
    """
    return Books(
        audit_log=open_audit_log(settings.audit),
        tracing=_open_tracing(settings),
        metrics=metrics,
        statistics=InferenceStatistics(),
    )


def _open_tracing(settings: ServerSettings) -> "Tracing | None":
    """Trace, if asked to; else not even the SDK is loaded."""
    if settings.sight.otlp_endpoint is None:
        return None
    from m2ib_server.sight.tracing import open_tracing  # noqa: PLC0415 - the SDK is for those who trace

    return open_tracing(settings.sight.otlp_endpoint)


def _show(rooms: Rooms, desk: Desk, board: HealthBoard, books: Books, settings: ServerSettings) -> None:
    """Open the port of the metrics where there are any, and say so."""
    metrics = rooms.metrics
    if metrics is None:
        return
    assert settings.sight.metrics_listen is not None, "metrics are made where there is a port for them"
    metrics.watch(rooms.fleet, desk, board, books.audit_log)
    log_event("metrics ready", address=metrics.start(settings.sight.metrics_listen))


def _start_polling(repository: Repository, seconds: float) -> Callable[[], object]:
    """Look at the models' folder every so many seconds, never for 0; return what ends that."""
    return asyncio.create_task(poll(repository, seconds)).cancel if seconds else lambda: None


def _write_ready(path: Path, address: str) -> None:
    """Write the address so that whoever watches the file never sees half of it."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_text(address, encoding="ascii")
    partial.rename(path)

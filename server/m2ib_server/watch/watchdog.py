"""Looks at every engine again and again, tells health, and ends when an engine cannot be helped."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from m2ib_server.api import Lifecycle
from m2ib_server.engine import Catalogue, Fleet
from m2ib_server.errors import ModelUnknown
from m2ib_server.settings import WatchLimits
from m2ib_server.telemetry import log_event, origin_of
from m2ib_server.watch.board import HealthBoard, model_health
from m2ib_server.watch.policy import serves_any, serves_model
from m2ib_server.watch.ward import Ward

ENGINE_GIVEN_UP = "engine given up"  # the reason to stop that nobody asked for


class Watchdog:
    """Watches over the engines of a fleet. One event loop's alone, but for `wake`."""

    def __init__(
        self,
        fleet: Fleet,
        catalogue: Catalogue,
        board: HealthBoard,
        limits: WatchLimits,
        *,
        services: Sequence[str],
        lifecycle: Lifecycle,
    ) -> None:
        """Watch; made on the event loop.

        Args:
            fleet: the engines.
            catalogue: the models whose health is told.
            board: where health is shown.
            limits: when a thread counts as stuck, and what then.
            services: the full names of the services that serve when the server does.
            lifecycle: whether the server takes calls; while it does not, nothing serves, and nobody is looked at: what
                happens while models are loaded is the loading's, and may take long.
        """
        self._catalogue = catalogue
        self._board = board
        self._limits = limits
        self._services = ("", *services)
        self._lifecycle = lifecycle
        self._wards = [Ward(engine, limits) for engine in fleet]
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()

    @asynccontextmanager
    async def watching(self, give_up: Callable[[str], None]) -> AsyncIterator[None]:
        """Watch while the body lasts; tell `give_up` why once an engine, or the watch itself, cannot be helped."""
        run = asyncio.create_task(self.run())

        def ended(run: asyncio.Task[None]) -> None:
            if run.cancelled():
                return
            if (error := run.exception()) is not None:
                fields = {"error_type": type(error).__name__, "origin": origin_of(error)}
                log_event("watch ended", level=logging.CRITICAL, **fields)
            give_up(ENGINE_GIVEN_UP)

        run.add_done_callback(ended)
        try:
            yield
        finally:
            run.cancel()
            await asyncio.wait([run])

    async def run(self) -> None:
        """Watch until an engine has to be given up."""
        while not any(ward.is_given_up for ward in self._wards):
            self.look(time.monotonic_ns())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limits.tick_seconds):
                    await self._woken.wait()
            self._woken.clear()

    def wake(self) -> None:
        """Look at once: something has changed. Any thread may call this, also after the loop has ended."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._woken.set)

    def look(self, now_ns: int) -> None:
        """Look at every engine once and show what serves."""
        models = list(self._catalogue)
        if self._lifecycle.is_open:
            for ward in self._wards:
                ward.look(now_ns, models)
        self._board.show(self._serving())

    def _serving(self) -> dict[str, bool]:
        engines = [ward.health for ward in self._wards]
        digest_of = {f"{model.manifest.name}:{model.manifest.version}": model.digest for model in self._catalogue}
        for name in self._catalogue.names():
            digest_of[name] = self._digest(name)
        is_open = self._lifecycle.is_open
        is_any = is_open and serves_any(set(digest_of.values()) - {""}, engines)
        models = {
            model_health(name): bool(digest) and is_open and serves_model(digest, engines)
            for name, digest in digest_of.items()
        }
        return dict.fromkeys(self._services, is_any) | models

    def _digest(self, name: str) -> str:
        """Return the digest of what a bare name leads to; "" where it leads nowhere."""
        try:
            return self._catalogue.find(name).digest
        except ModelUnknown:
            return ""

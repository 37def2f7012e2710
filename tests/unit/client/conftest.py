"""Serves the public fake to the client's tests, and gives them either shell in the same, synchronous form."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from typing import Any

import numpy as np
import pytest

from m2ib_client import AsyncClient, Client
from m2ib_client.testing import FakeService, serve_fake

ACCESS_VARIABLES = ("M2IB_TLS", "M2IB_TLS_CA", "M2IB_TLS_SERVER_NAME", "M2IB_CLIENT_CERTIFICATE", "M2IB_CLIENT_KEY")
ACCESS_VARIABLES += ("M2IB_TOKEN", "M2IB_TOKEN_FILE")


class AsyncShell:
    """Drives an `AsyncClient` on a loop in a thread of its own, so that one test serves both shells."""

    def __init__(self, loop: asyncio.AbstractEventLoop, client: AsyncClient) -> None:
        self.loop = loop
        self.client = client

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            return self.run(getattr(self.client, name)(*args, **kwargs))

        return call

    def explain_stream(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        return self.iterated(self.client.explain_stream(*args, **kwargs))

    def explain_many(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        return self.iterated(self.client.explain_many(*args, **kwargs))

    def iterated(self, events: AsyncGenerator[Any, None]) -> Iterator[Any]:
        try:
            while (event := self.run(next_or_none(events))) is not None:
                yield event
        finally:
            self.run(events.aclose())


async def next_or_none(events: AsyncGenerator[Any, None]) -> Any:
    return await anext(events, None)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("M2IB_SERVER", "M2IB_MAX_MESSAGE_MEBIBYTES", *ACCESS_VARIABLES, "NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def fake() -> Iterator[FakeService]:
    with serve_fake() as service:
        yield service


@pytest.fixture
def slow_fake() -> Iterator[FakeService]:
    with serve_fake(FakeService(step_seconds=0.05)) as service:
        yield service


@pytest.fixture(params=["sync", "async"])
def connect(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Return a function that connects the shell under test to a service."""
    shells: list[Any] = []
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def connect_to(service: FakeService, **options: Any) -> Any:
        if request.param == "sync":
            shells.append(Client(service.address, **options))
        else:
            shells.append(AsyncShell(loop, AsyncClient(service.address, **options)))
        return shells[-1]

    yield connect_to
    for shell in shells:
        shell.close()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.fixture
def image() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(7).integers(0, 255, (30, 40), dtype=np.uint8)

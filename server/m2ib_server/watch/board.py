"""Owns what serves and what does not, by the names under which grpc.health.v1 is asked, and who waits for a change."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from grpc_health.v1 import health_pb2

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def model_health(name: str) -> str:
    """Return the name under which a model's health is asked for; `name` is the model's, or `name:version`."""
    return f"m2ib.v1.Model/{name}"


class HealthBoard:
    """The health by name; "" is the whole server. Nothing serves before it is shown to. One event loop's alone.

    Showing waits for nobody: whoever watches is woken and reads what is shown by then.
    """

    def __init__(self) -> None:
        """Show that nothing serves."""
        self._shown: dict[str, bool] = {"": False}
        self.present: Mapping[str, bool] = {"": False}  # of the names there are now; any thread may read it
        self._watchers: dict[asyncio.Event, str] = {}
        self._is_closed = False

    def show(self, serving: Mapping[str, bool]) -> None:
        """Show which names serve; those shown before and missing now do not."""
        if not self._is_closed:
            self.present = dict(serving)
            self._turn({**dict.fromkeys(self._shown, False), **serving})

    def close(self) -> None:
        """Show from now on that nothing serves."""
        self._is_closed = True
        self.present = dict.fromkeys(self.present, False)
        self._turn(dict.fromkeys(self._shown, False))

    def is_serving(self, model: str = "") -> bool:
        """Tell whether a model serves, by its name or `name:version`, or, without a name, the whole server."""
        return self._shown.get(model_health(model) if model else "", False)

    def status(self, name: str) -> health_pb2.HealthCheckResponse.ServingStatus.ValueType:
        """Return what is shown of a name; SERVICE_UNKNOWN where nothing ever was."""
        serves = self._shown.get(name)
        if serves is None:
            return SERVICE_UNKNOWN
        return SERVING if serves else NOT_SERVING

    @property
    def watchers(self) -> int:
        """How many wait for a change."""
        return len(self._watchers)

    @contextmanager
    def watched(self, name: str) -> Iterator[asyncio.Event]:
        """While the body lasts, set the event whenever something else is shown of a name."""
        changed = asyncio.Event()
        self._watchers[changed] = name
        try:
            yield changed
        finally:
            del self._watchers[changed]

    def _turn(self, shown: dict[str, bool]) -> None:
        before, self._shown = self._shown, shown
        for changed, name in self._watchers.items():
            if before.get(name) is not shown.get(name):
                changed.set()

"""Shows what serves: grpc.health.v1 for whoever asks over the wire, and for other services of this server."""

from collections.abc import Mapping

from grpc_health.v1 import health, health_pb2

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


MODEL_HEALTH = "m2ib.v1.Model/{name}"  # where a model's health is asked for; the name may be `name:version` as well


def model_health(name: str) -> str:
    """Return the name under which a model's health is asked for; `name` is the model's, or `name:version`."""
    return MODEL_HEALTH.format(name=name)


class HealthBoard:
    """The health by name. Nothing serves before it is shown to. One event loop's alone."""

    def __init__(self, status: health.aio.HealthServicer) -> None:
        """Show through a health service."""
        self._status = status
        self._shown: dict[str, bool] = {}

    async def show(self, serving: Mapping[str, bool]) -> None:
        """Show which names serve; those shown before and missing now do not."""
        for name in self._shown.keys() - serving.keys():
            del self._shown[name]
            await self._status.set(name, NOT_SERVING)
        for name, serves in serving.items():
            if self._shown.get(name) is not serves:
                self._shown[name] = serves
                await self._status.set(name, SERVING if serves else NOT_SERVING)

    def is_serving(self, name: str = "") -> bool:
        """Tell whether a name serves: "" is the whole server, `model_health` names a model."""
        return self._shown.get(name, False)

    async def close(self) -> None:
        """Show from now on that nothing serves."""
        self._shown = dict.fromkeys(self._shown, False)
        await self._status.enter_graceful_shutdown()

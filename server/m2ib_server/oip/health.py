"""Says in this protocol's words what grpc.health.v1 says, so that the two never differ."""

from typing import Protocol

import grpc
from grpc_health.v1 import health, health_pb2


class Health(Protocol):
    """Knows what grpc.health.v1 says of the server and of its models."""

    async def is_serving(self, model: str = "") -> bool:
        """Return whether a model serves, by its name or `name:version`, or, without a name, the whole server."""
        ...


class MirroredHealth:
    """The health that a servicer of grpc.health.v1 tells."""

    def __init__(self, status: health.aio.HealthServicer, model_service: str) -> None:
        """Mirror `status`; `model_service` holds `{name}` and becomes the service that stands for a model."""
        self._status = status
        self._model_service = model_service

    async def is_serving(self, model: str = "") -> bool:
        """Return whether a model serves, by its name or `name:version`, or, without a name, the whole server."""
        service = self._model_service.format(name=model) if model else ""
        try:
            check = await self._status.Check(health_pb2.HealthCheckRequest(service=service), self)
        except LookupError:
            return False
        return bool(check.status == health_pb2.HealthCheckResponse.SERVING)

    async def abort(self, code: grpc.StatusCode) -> None:
        """Take the place of a call's context: nothing is known of that service.

        Raises:
            LookupError: always.
        """
        raise LookupError(code.name)

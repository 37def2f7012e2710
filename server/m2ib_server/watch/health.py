"""Answers grpc.health.v1 from the board. Whoever asks, or watches and reads nothing, holds up nobody."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from m2ib_server.watch.board import SERVICE_UNKNOWN, HealthBoard

MAX_NAME_CHARACTERS = 256  # a model's name and version have 64 each
MAX_WATCHERS = 4096  # nobody has to say who it is to watch


class HealthServicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # it ships no types
    """Implements grpc.health.v1.Health, for everybody and in every phase of the server. One event loop's alone.

    grpcio's own for asyncio writes to watchers under a lock that showing needs as well, so that one who reads nothing
    stops it, and forgets all watchers of a name when one of them leaves (grpcio-health-checking 1.81).
    """

    def __init__(self, board: HealthBoard) -> None:
        """Tell what the board shows."""
        self._board = board

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> health_pb2.HealthCheckResponse:
        """Tell what is shown of a name."""
        status = self._board.status(request.service)
        if status == SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Tell what is shown of a name, and tell it again when that changes; a slow reader is told the latest."""
        if len(request.service) > MAX_NAME_CHARACTERS:
            allowed = f"at most {MAX_NAME_CHARACTERS} characters"
            said = f"service: seen {len(request.service)} characters; allowed: {allowed}"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, said)
        if self._board.watchers >= MAX_WATCHERS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"health has {MAX_WATCHERS} watchers already")
        name, told = request.service, None
        with self._board.watched(name) as changed:
            while True:
                changed.clear()
                status = self._board.status(name)
                if status != told:
                    told = status
                    yield health_pb2.HealthCheckResponse(status=status)
                await changed.wait()

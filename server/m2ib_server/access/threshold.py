"""Refuses strangers before their messages are read: gRPC would take in a whole one before it calls a unary method."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

import grpc

from m2ib_server.access.doors import Receiving
from m2ib_server.errors import ServiceError

Metadata = Iterable[tuple[str, str | bytes]]


class Judging(Protocol):
    """What admits callers."""

    def judge(self, metadata: Metadata) -> ServiceError | None:
        """Return why whoever sends this is refused, whatever else is known of it; None where that is open."""
        ...


class Threshold(grpc.aio.ServerInterceptor):
    """Has strangers refused by the reception, which records it like any call, with their message still unread.

    Requests that are streams need none of this: their messages are read once the caller is admitted.
    """

    def __init__(self, gate: Judging, reception: Receiving, scopes: Mapping[str, str]) -> None:
        """Stand before the services named, each with its scope; others are open to anybody."""
        self._gate = gate
        self._reception = reception
        self._scopes = scopes

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """Return the call's handler; for a stranger one that takes a stream, of which it reads nothing."""
        handler = await continuation(details)
        service, _, method = details.method.removeprefix("/").partition("/")
        scope = self._scopes.get(service)
        if handler is None or scope is None or handler.request_streaming:
            return handler
        fault = self._gate.judge(details.invocation_metadata or ())
        if fault is None:
            return handler

        async def refuse(wires: Any, context: Any) -> None:
            async with self._reception.receive(context, service=service, method=method, scope=scope):
                raise fault  # should the gate have learnt better meanwhile: no message was read that could be answered

        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(refuse)
        return grpc.stream_unary_rpc_method_handler(refuse)

"""Puts the gate before services that are not ours: reflection and channelz, which tell of the server and its peers."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

import grpc

from m2ib_server.access.identity import ADMIN, EXPLAIN

REFLECTION = "grpc.reflection.v1alpha.ServerReflection"
CHANNELZ = "grpc.channelz.v1.Channelz"
SCOPES = {REFLECTION: EXPLAIN, CHANNELZ: ADMIN}


class Receiving(Protocol):
    """What receives calls of our own services."""

    def receive(self, context: Any, *, service: str, method: str, scope: str) -> AbstractAsyncContextManager[object]:
        """Receive one; who may not pass ends it with a status."""
        ...


class Doors(grpc.aio.ServerInterceptor):
    """Lets nobody into these services whom the gate does not admit; others have their own way to it, or are open."""

    def __init__(self, reception: Receiving, scopes: Mapping[str, str] = SCOPES) -> None:
        """Guard the services named, each by its scope."""
        self._reception = reception
        self._scopes = scopes

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """Return the call's handler, behind the door if its service has one."""
        handler = await continuation(details)
        service, _, method = details.method.removeprefix("/").partition("/")
        scope = self._scopes.get(service)
        if handler is None or scope is None:
            return handler

        async def admit(context: Any) -> None:
            async with self._reception.receive(context, service=service, method=method, scope=scope):
                pass

        return _behind(admit, handler)


def _behind(admit: Callable[[Any], Awaitable[None]], handler: Any) -> Any:
    """Return the handler with the door before it; the services guarded have no other kinds of call."""
    if handler.unary_unary is not None:
        return handler._replace(unary_unary=_answered_behind(admit, handler.unary_unary))
    if handler.stream_stream is not None:
        return handler._replace(stream_stream=_streamed_behind(admit, handler.stream_stream))
    raise AssertionError("a kind of call without a door")


def _answered_behind(admit: Callable[[Any], Awaitable[None]], inner: Callable[..., Any]) -> Callable[..., Any]:
    async def answer(wire: Any, context: Any) -> Any:
        await admit(context)
        return await inner(wire, context)

    return answer


def _streamed_behind(admit: Callable[[Any], Awaitable[None]], inner: Callable[..., Any]) -> Callable[..., Any]:
    async def stream(wires: Any, context: Any) -> AsyncIterator[Any]:
        await admit(context)
        async for message in inner(wires, context):
            yield message

    return stream

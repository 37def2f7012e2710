"""Parses requests: bytes that are no message of the method's kind are refused like any other fault."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from m2ib_server.api.status import rich_status
from m2ib_server.errors import MessageMalformed

UNPARSABLE = object()  # what a method gets in place of a request that did not parse

_BEHAVIOURS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class Parsing(grpc.aio.ServerInterceptor):
    """Stands before every method; without it gRPC answers UNKNOWN, with a text of protobuf's, and logs a traceback.

    A method of ours gets UNPARSABLE and refuses it where the call is observed; for methods of libraries this does both.
    """

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Return the method's handler with a parser that does not raise, except amid a stream."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler
        parse = _strict if handler.request_streaming else _lenient
        changes: dict[str, Any] = {"request_deserializer": parse(handler.request_deserializer)}
        (kind,) = (kind for kind in _BEHAVIOURS if getattr(handler, kind) is not None)
        behaviour = getattr(handler, kind)
        if not getattr(behaviour, "refuses_unparsable", False):
            changes[kind] = _refusing(behaviour)
        return handler._replace(**changes)


def malformed() -> MessageMalformed:
    """Return the fault of bytes that did not parse."""
    return MessageMalformed("request", seen="bytes that do not parse", allowed="a message of the method's kind")


def _lenient(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def parsed(raw: bytes) -> Any:
        try:
            return parse(raw)
        except DecodeError:
            return UNPARSABLE

    return parsed


def _strict(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def parsed(raw: bytes) -> Any:
        try:
            return parse(raw)
        except DecodeError:
            raise malformed() from None

    return parsed


def _refusing(behaviour: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Wrap a library's method, which knows neither of UNPARSABLE nor of our faults."""
    if not inspect.isasyncgenfunction(behaviour):

        async def answer(wire: Any, context: Any) -> Any:
            if wire is UNPARSABLE:
                await _refuse(context)
            return await behaviour(wire, context)

        return answer

    async def answers(wire: Any, context: Any) -> Any:
        try:
            if wire is UNPARSABLE:
                raise malformed()
            async for message in behaviour(wire, context):
                yield message
        except MessageMalformed:
            await _refuse(context)

    return answers


async def _refuse(context: Any) -> None:
    status = rpc_status.to_status(rich_status(malformed(), request_id=""))
    await context.abort(status.code, status.details, trailing_metadata=status.trailing_metadata)

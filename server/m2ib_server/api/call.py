"""Surrounds every call: gives it an id, turns faults into statuses, writes one line of log. Knows no service."""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, TypeVar

from google.rpc import status_pb2
from grpc_status import rpc_status

from m2ib_server.api.status import rich_status, unknown_status
from m2ib_server.errors import Code, ServiceError
from m2ib_server.telemetry import log_event, origin_of

REQUEST_ID_KEY = "m2ib-request-id"

Servicer = TypeVar("Servicer")
Answer = TypeVar("Answer")


@dataclass(slots=True, kw_only=True)
class Call:
    """One call under way.

    Attributes:
        method: the RPC's name.
        request_id: unique; the client gets it as trailing metadata.
        deadline_ns: on the monotonic clock, or None.
        model: the name of the model, once known.
    """

    method: str
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    deadline_ns: int | None
    model: str = ""
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Seconds since the call began."""
        return time.monotonic() - self.started


def answered(handler: Callable[[Servicer, Any, Call], Awaitable[Answer]]) -> Callable[..., Awaitable[Answer]]:
    """Turn a method that takes a request and a call into a unary gRPC handler."""

    @wraps(handler)
    async def handle(servicer: Servicer, wire: Any, context: Any) -> Answer:
        async with _answering(context, handler.__name__) as call:
            return await handler(servicer, wire, call)
        raise AssertionError("whatever the body raises ends the call")

    return handle


def streamed(
    handler: Callable[[Servicer, Any, Call], AsyncGenerator[Answer]],
) -> Callable[..., AsyncIterator[Answer]]:
    """Turn a method that takes a request and a call into a server-streaming gRPC handler."""

    @wraps(handler)
    async def handle(servicer: Servicer, wire: Any, context: Any) -> AsyncIterator[Answer]:
        async with (
            _answering(context, handler.__name__) as call,
            aclosing(handler(servicer, wire, call)) as answers,
        ):
            async for message in answers:
                yield message

    return handle


@asynccontextmanager
async def _answering(context: Any, method: str) -> AsyncIterator[Call]:
    """Run a call's body; whatever it raises becomes one status and one line of log."""
    remaining = context.time_remaining()
    deadline_ns = None if remaining is None else time.monotonic_ns() + int(remaining * 1e9)
    call = Call(method=method, deadline_ns=deadline_ns)
    context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
    try:
        with logged(call):
            yield call
    except Exception as error:
        await _abort(context, status_of(error, call), call)


@contextmanager
def logged(call: Call) -> Iterator[None]:
    """Write one line of log for whatever comes of the body."""
    try:
        yield
    except ServiceError as error:
        level = logging.ERROR if error.code is Code.INTERNAL else logging.INFO
        _log(call, error.code.name, level, reason=error.reason, **_trace(error.__cause__ or error))
        raise
    except (asyncio.CancelledError, GeneratorExit):  # the caller has left; a stream's reader leaves at a yield
        _log(call, "CANCELLED", logging.INFO)
        raise
    except Exception as error:
        _log(call, "INTERNAL", logging.ERROR, **_trace(error))
        raise
    else:
        _log(call, "OK", logging.INFO)


def status_of(error: Exception, call: Call) -> status_pb2.Status:
    """Return the status of a fault, foreseen or not."""
    if isinstance(error, ServiceError):
        return rich_status(error, call.request_id)
    return unknown_status(call.request_id)


def _trace(error: BaseException) -> dict[str, str]:
    """Tell where an error came from without a word of its own text, which may hold a caller's values."""
    return {"error_type": type(error).__name__, "origin": origin_of(error)}


async def _abort(context: Any, rich: status_pb2.Status, call: Call) -> None:
    """End the call; the rich status replaces the trailing metadata, so the request's id is put beside it again."""
    status = rpc_status.to_status(rich)
    metadata = (*status.trailing_metadata, (REQUEST_ID_KEY, call.request_id))
    await context.abort(status.code, status.details, trailing_metadata=metadata)


def _log(call: Call, code: str, level: int, **fields: str) -> None:
    log_event(
        "call ended",
        level=level,
        request_id=call.request_id,
        method=call.method,
        model=call.model,
        code=code,
        seconds=round(call.seconds, 4),
        **fields,
    )

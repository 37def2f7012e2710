"""Receives every call: finds out who calls, gives it an id, tells the observers, turns faults into statuses."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, Generic, Protocol, TypeVar

import grpc
from google.rpc import status_pb2
from grpc_status import rpc_status

from m2ib_server.api.call import OK, Call, CallEnd, CallObserver, CallRecorder, trace_context_of
from m2ib_server.api.lifecycle import Lifecycle, Phase
from m2ib_server.api.parsing import UNPARSABLE, malformed
from m2ib_server.api.status import PUSHBACK_KEY, answer_to, pushback, rich_status, unknown_status
from m2ib_server.errors import DeadlineExpired, Draining, ServiceError
from m2ib_server.telemetry import log_event, origin_of

REQUEST_ID_KEY = "m2ib-request-id"
FLAG_KEYS = ("triton_grpc_error",)  # headers by which protocols switch something on

Answer = TypeVar("Answer")


class Gate(Protocol):
    """Decides who may call."""

    def admit(self, context: Any, scope: str) -> str:
        """Return the caller's name, "" for an anonymous one that may call nevertheless.

        Raises:
            ServiceError: the caller is not who it says, or may not do what needs `scope`.
        """
        ...


class OpenGate:
    """Lets everybody in, as nobody in particular."""

    def admit(self, context: Any, scope: str) -> str:
        """Return no name."""
        return ""


class Reception:
    """What surrounds every call of every service."""

    def __init__(
        self,
        gate: Gate,
        observers: Sequence[CallObserver],
        lifecycle: Lifecycle | None = None,
        *,
        recorder: CallRecorder | None = None,
    ) -> None:
        """Receive who passes the gate while the server takes calls, always if not said; tell recorder and observers."""
        self.lifecycle = lifecycle or Lifecycle(Phase.OPEN)
        self._gate = gate
        self._observers = tuple(observers)
        self._recorder = recorder

    @asynccontextmanager
    async def receive(
        self, context: Any, *, service: str, method: str, scope: str, in_every_phase: bool = False
    ) -> AsyncIterator[Call]:
        """Run a call's body, while the server takes calls or in every phase; whatever it raises becomes one status."""
        remaining = context.time_remaining()
        deadline_ns = None if remaining is None else time.monotonic_ns() + int(remaining * 1e9)
        metadata = _text_metadata(context)
        call = Call(
            service=service,
            method=method,
            deadline_ns=deadline_ns,
            trace_context=trace_context_of(metadata),
            flags=frozenset(key for key in FLAG_KEYS if metadata.get(key) == "true"),
        )
        context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
        try:
            with ExitStack() as stay:  # a call is under way until its end is recorded
                async with self.observed(call):
                    call.readmit = partial(self._gate.admit, context, scope)
                    call.caller = self._gate.admit(context, scope)
                    if not in_every_phase:
                        call.was_cut = stay.enter_context(self.lifecycle.call())
                    yield call
        except Exception as error:
            await _abort(context, error, call)

    @asynccontextmanager
    async def observed(self, call: Call) -> AsyncIterator[None]:
        """Tell of a call's begin and end, whatever comes of the body: of the end the recorder first.

        The observers then hear how the call ends for its caller, with the recorder's refusal if there was one.
        """
        begun: list[CallObserver] = []
        with _told_of_the_end(begun, call):
            async with nullcontext() if self._recorder is None else _recorded(self._recorder, call):
                for observer in self._observers:
                    begun.append(observer)
                    observer.begun(call)
                if self._recorder is not None:
                    self._recorder.begun(call)
                yield


class Service(Protocol):
    """A servicer whose methods are `answered` or `streamed`."""

    name: str  # the service's full name
    scope: str  # what its callers must be allowed to do
    reception: Reception


Servicer = TypeVar("Servicer", bound=Service)


@dataclass(frozen=True, slots=True)
class Last(Generic[Answer]):
    """A stream's last message, when it is what the caller asked for: sent only once the call's end is noted."""

    message: Answer


def answered(handler: Callable[[Servicer, Any, Call], Awaitable[Answer]]) -> Callable[..., Awaitable[Answer]]:
    """Turn a method that takes a request and a call into a unary gRPC handler."""
    return _answered(handler, in_every_phase=False)


def answered_in_every_phase(
    handler: Callable[[Servicer, Any, Call], Awaitable[Answer]],
) -> Callable[..., Awaitable[Answer]]:
    """Do the same for a method that asks for health: it is answered while the server loads or drains, too."""
    return _answered(handler, in_every_phase=True)


def _answered(
    handler: Callable[[Servicer, Any, Call], Awaitable[Answer]], *, in_every_phase: bool
) -> Callable[..., Awaitable[Answer]]:
    @wraps(handler)
    async def handle(servicer: Servicer, wire: Any, context: Any) -> Answer:
        async with _received(servicer, context, handler.__name__, in_every_phase=in_every_phase) as call:
            return await handler(servicer, _parsed(wire), call)
        raise AssertionError("whatever the body raises ends the call")

    handle.refuses_unparsable = True  # type: ignore[attr-defined]
    return handle


def streamed(
    handler: Callable[[Servicer, Any, Call], AsyncGenerator[Answer | Last[Answer]]],
) -> Callable[..., AsyncIterator[Answer]]:
    """Turn a method that takes a request and a call into a server-streaming gRPC handler."""

    @wraps(handler)
    async def handle(servicer: Servicer, wire: Any, context: Any) -> AsyncIterator[Answer]:
        async with (
            _received(servicer, context, handler.__name__) as call,
            aclosing(handler(servicer, _parsed(wire), call)) as answers,
        ):
            async for message in answers:
                if isinstance(message, Last):
                    last = message
                    break
                yield message
            else:
                return
        yield last.message

    handle.refuses_unparsable = True  # type: ignore[attr-defined]
    return handle


def status_of(error: Exception, call: Call) -> status_pb2.Status:
    """Return the status of a fault, foreseen or not."""
    if isinstance(error, ServiceError):
        return rich_status(error, call.request_id)
    return unknown_status(call.request_id)


def end_of(error: BaseException, call: Call) -> CallEnd:
    """Return how a call ends that raised."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit):  # of a stream that was left at a yield the second
        if call.was_cut():
            error = Draining()
        elif call.is_expired:  # gRPC tells of that as of a caller that has left
            error = DeadlineExpired()
        else:
            return CallEnd(code=grpc.StatusCode.CANCELLED.name)
    if isinstance(error, ServiceError):
        return CallEnd(code=answer_to(error).status.name, reason=error.reason, error=error)
    return CallEnd(code=grpc.StatusCode.INTERNAL.name, error=error)


def _received(servicer: Service, context: Any, method: str, *, in_every_phase: bool = False) -> Any:
    return servicer.reception.receive(
        context, service=servicer.name, method=method, scope=servicer.scope, in_every_phase=in_every_phase
    )


def _parsed(wire: Any) -> Any:
    if wire is UNPARSABLE:
        raise malformed()
    return wire


@asynccontextmanager
async def _recorded(recorder: CallRecorder, call: Call) -> AsyncIterator[None]:
    """Have the body's end recorded, and wait for that unless the caller has left; what cannot be recorded raises."""
    end = CallEnd(code=OK)
    try:
        yield
    except BaseException as error:
        end = end_of(error, call)
        raise
    finally:
        noted = recorder.ended(call, end)
        if noted is not None and end.code != grpc.StatusCode.CANCELLED.name:
            await noted


@contextmanager
def _told_of_the_end(observers: Sequence[CallObserver], call: Call) -> Iterator[None]:
    """Tell the observers how the body ended."""
    end = CallEnd(code=OK)
    try:
        yield
    except BaseException as error:
        end = end_of(error, call)
        raise
    finally:
        for observer in observers:
            _tell(observer, call, end)


def _tell(observer: CallObserver, call: Call, end: CallEnd) -> None:
    """Tell one observer. Should it fail, the log says so; the call's end stays, and the others hear of it."""
    try:
        observer.ended(call, end)
    except Exception as error:
        fields = {"error_type": type(error).__name__, "origin": origin_of(error)}
        log_event("observer failed", level=logging.ERROR, request_id=call.request_id, **fields)


def _text_metadata(context: Any) -> Mapping[str, str]:
    return {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


async def _abort(context: Any, error: Exception, call: Call) -> None:
    """End the call; the rich status replaces the trailing metadata, so the request's id is put beside it again."""
    status = rpc_status.to_status(status_of(error, call))
    metadata = (*status.trailing_metadata, (REQUEST_ID_KEY, call.request_id))
    if (pause := pushback(error, context.time_remaining())) is not None:
        metadata += ((PUSHBACK_KEY, pause),)
    await context.abort(status.code, status.details, trailing_metadata=metadata)

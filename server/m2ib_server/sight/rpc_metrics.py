"""Counts and times every RPC of every service under go-grpc-middleware's names. Reads no message and no metadata."""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from prometheus_client import CollectorRegistry, Counter, Histogram

METHOD_LABELS = ("grpc_type", "grpc_service", "grpc_method")
CALL_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
TYPE_BY_STREAMING = {
    (False, False): "unary",
    (True, False): "client_stream",
    (False, True): "server_stream",
    (True, True): "bidi_stream",
}
GO_NAME = {
    grpc.StatusCode.OK: "OK",
    grpc.StatusCode.CANCELLED: "Canceled",
    grpc.StatusCode.UNKNOWN: "Unknown",
    grpc.StatusCode.INVALID_ARGUMENT: "InvalidArgument",
    grpc.StatusCode.DEADLINE_EXCEEDED: "DeadlineExceeded",
    grpc.StatusCode.NOT_FOUND: "NotFound",
    grpc.StatusCode.ALREADY_EXISTS: "AlreadyExists",
    grpc.StatusCode.PERMISSION_DENIED: "PermissionDenied",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "ResourceExhausted",
    grpc.StatusCode.FAILED_PRECONDITION: "FailedPrecondition",
    grpc.StatusCode.ABORTED: "Aborted",
    grpc.StatusCode.OUT_OF_RANGE: "OutOfRange",
    grpc.StatusCode.UNIMPLEMENTED: "Unimplemented",
    grpc.StatusCode.INTERNAL: "Internal",
    grpc.StatusCode.UNAVAILABLE: "Unavailable",
    grpc.StatusCode.DATA_LOSS: "DataLoss",
    grpc.StatusCode.UNAUTHENTICATED: "Unauthenticated",
}  # what Go's codes.Code prints, and with it every dashboard that was made for go-grpc-middleware

_BEHAVIOURS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")

Behaviour = Callable[[Any, Any], Any]


class MethodMetrics:
    """The series of one method, looked up once: the path of a call only adds to them."""

    def __init__(self, started: Any, received: Any, sent: Any, seconds: Any, handled: Callable[[str], Any]) -> None:
        """Take the method's own series; `handled` returns that of a code's name."""
        self.started, self.received, self.sent, self.seconds = started, received, sent, seconds
        self._handled = {name: handled(name) for name in GO_NAME.values()}

    @contextmanager
    def handling(self, context: Any) -> Iterator[None]:
        """Count a call's begin and its end, whatever the body ends in."""
        self.started.inc()
        began = time.perf_counter()
        name = "Unknown"
        try:
            yield
            name = _name_set(context)
        except BaseException as error:
            name = _name_of(error, context)
            raise
        finally:
            self._handled[name].inc()
            self.seconds.observe(time.perf_counter() - began)


class RpcMetrics(grpc.aio.ServerInterceptor):
    """Wraps the handler of every method that the server has; what it has not makes no series."""

    def __init__(self, registry: CollectorRegistry, services: Iterable[ServiceDescriptor] = ()) -> None:
        """Count in `registry`, from zero for every method of `services` and from its first call for any other."""
        options: Any = {"registry": registry}
        self._started = Counter(
            "grpc_server_started_total", "RPCs started on the server.", labelnames=METHOD_LABELS, **options
        )
        self._handled = Counter(
            "grpc_server_handled_total",
            "RPCs completed on the server, whatever they ended in.",
            labelnames=(*METHOD_LABELS, "grpc_code"),
            **options,
        )
        self._received = Counter(
            "grpc_server_msg_received_total",
            "Stream messages received by the server; a unary request is one.",
            labelnames=METHOD_LABELS,
            **options,
        )
        self._sent = Counter(
            "grpc_server_msg_sent_total",
            "Stream messages sent by the server; a unary answer is one.",
            labelnames=METHOD_LABELS,
            **options,
        )
        self._seconds = Histogram(
            "grpc_server_handling_seconds",
            "Response latency in seconds of RPCs that the server handled.",
            labelnames=METHOD_LABELS,
            buckets=CALL_SECONDS,
            **options,
        )
        self._by_path: dict[str, MethodMetrics] = {}
        for service in services:
            for method in service.methods:
                kind = TYPE_BY_STREAMING[method.client_streaming, method.server_streaming]
                self._by_path[f"/{service.full_name}/{method.name}"] = self._series(
                    kind, service.full_name, method.name
                )

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """Return the method's handler, wrapped; None, which gRPC answers with UNIMPLEMENTED, stays None."""
        handler = await continuation(details)
        if handler is None:
            return None
        path = details.method
        if (series := self._by_path.get(path)) is None:
            kind = TYPE_BY_STREAMING[handler.request_streaming, handler.response_streaming]
            service, _, method = path.lstrip("/").rpartition("/")
            series = self._by_path[path] = self._series(kind, service, method)
        return _wrapped(handler, series)

    def _series(self, kind: str, service: str, method: str) -> MethodMetrics:
        labels = kind, service, method
        return MethodMetrics(
            self._started.labels(*labels),
            self._received.labels(*labels),
            self._sent.labels(*labels),
            self._seconds.labels(*labels),
            lambda name: self._handled.labels(*labels, name),
        )


def _wrapped(handler: Any, series: MethodMetrics) -> Any:
    (kind,) = (kind for kind in _BEHAVIOURS if getattr(handler, kind) is not None)
    behaviour = getattr(handler, kind)
    wrap = _answering
    if handler.response_streaming:
        wrap = _yielding if inspect.isasyncgenfunction(behaviour) else _writing
    return handler._replace(**{kind: wrap(behaviour, series, is_stream=handler.request_streaming)})


class _CountedContext:
    """A call's context, for a handler that reads or writes its stream through it, as that of health's Watch does."""

    def __init__(self, context: Any, series: MethodMetrics) -> None:
        self._context = context
        self._series = series

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def read(self) -> Any:
        message = await self._context.read()
        if message is not grpc.aio.EOF:
            self._series.received.inc()
        return message

    async def write(self, message: Any) -> None:
        await self._context.write(message)
        self._series.sent.inc()


def _answering(behaviour: Behaviour, series: MethodMetrics, *, is_stream: bool) -> Behaviour:
    async def answer(request: Any, context: Any) -> Any:
        with series.handling(context):
            response = await behaviour(_received(request, series, is_stream=is_stream), context)
            series.sent.inc()
            return response

    return answer


def _yielding(behaviour: Behaviour, series: MethodMetrics, *, is_stream: bool) -> Behaviour:
    async def answers(request: Any, context: Any) -> AsyncIterator[Any]:
        with series.handling(context):
            requests = _received(request, series, is_stream=is_stream)
            async with aclosing(behaviour(requests, context)) as responses:
                async for response in responses:
                    yield response
                    series.sent.inc()

    return answers


def _writing(behaviour: Behaviour, series: MethodMetrics, *, is_stream: bool) -> Behaviour:
    async def write(request: Any, context: Any) -> None:
        with series.handling(context):
            await behaviour(_received(request, series, is_stream=is_stream), _CountedContext(context, series))

    return write


def _received(request: Any, series: MethodMetrics, *, is_stream: bool) -> Any:
    """Count a request, or each message of a stream of them as it is read."""
    if is_stream:
        return _counted(request, series)
    series.received.inc()
    return request


async def _counted(requests: AsyncIterator[Any], series: MethodMetrics) -> AsyncIterator[Any]:
    async for request in requests:
        series.received.inc()
        yield request


def _name_of(error: BaseException, context: Any) -> str:
    """Return the code that the client gets, or would get were it still there."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit):  # the client has left, or its time is over
        remaining = context.time_remaining()
        is_over = remaining is not None and remaining <= 0
        return GO_NAME[grpc.StatusCode.DEADLINE_EXCEEDED if is_over else grpc.StatusCode.CANCELLED]
    if isinstance(error, grpc.aio.AbortError):
        return _name_set(context)
    return GO_NAME[grpc.StatusCode.UNKNOWN]


def _name_set(context: Any) -> str:
    """Return the code that the handler set; none means OK."""
    return GO_NAME[context.code() or grpc.StatusCode.OK]

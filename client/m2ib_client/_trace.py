"""Tells the server which trace a call belongs to, where the program traces with OpenTelemetry.

Nothing is imported for it: a span can only be current where the program has imported OpenTelemetry itself. The header
is added as any other and no interceptor stands in the call's way, so cancelling is what it was.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar, cast

Metadata: TypeAlias = tuple[tuple[str, str], ...]
Channel = TypeVar("Channel")


def trace_headers() -> Metadata:
    """Return the W3C headers `traceparent` and `tracestate` of the span that is current here; none where none is."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return ()
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return ()
    traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
    state = context.trace_state.to_header()
    return (("traceparent", traceparent), *((("tracestate", state),) if state else ()))


def traced(channel: Channel) -> Channel:
    """Return a channel, of either kind, whose calls carry the trace's headers: what a stub asks of it and no more."""
    return cast(Channel, _TracedChannel(channel))


class _TracedChannel:
    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def unary_unary(self, *args: Any, **options: Any) -> Callable[..., Any]:
        return _with_headers(self._channel.unary_unary(*args, **options))

    def unary_stream(self, *args: Any, **options: Any) -> Callable[..., Any]:
        return _with_headers(self._channel.unary_stream(*args, **options))

    def stream_unary(self, *args: Any, **options: Any) -> Callable[..., Any]:
        return _with_headers(self._channel.stream_unary(*args, **options))

    def stream_stream(self, *args: Any, **options: Any) -> Callable[..., Any]:
        return _with_headers(self._channel.stream_stream(*args, **options))


def _with_headers(call: Callable[..., Any]) -> Callable[..., Any]:
    def begin(request: Any, *, metadata: Sequence[tuple[str, str | bytes]] | None = None, **options: Any) -> Any:
        return call(request, metadata=(*(metadata or ()), *trace_headers()), **options)

    return begin

"""Turns calls and their stages into OpenTelemetry spans. A span holds what is on its allow-list and nothing else.

Imported where there is a collector to send spans to, and nowhere else: the SDK takes a while to load.
"""

import threading
import uuid
from collections.abc import Mapping
from typing import Any, cast

import grpc
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from m2ib_server import __version__
from m2ib_server.api.call import Call, CallEnd

SERVICE = "m2ib-server"
EXPORT_SECONDS = 5  # for one batch of spans, with all its tries
FLUSH_SECONDS = 5.0  # for everything that is left at the end
ATTRIBUTES = frozenset(
    {
        "rpc.system",
        "rpc.service",
        "rpc.method",
        "rpc.grpc.status_code",
        "m2ib.code",
        "m2ib.model",
        "m2ib.reason",
        "m2ib.request_id",
        "m2ib.rows",
        "m2ib.stage",
        "m2ib.steps",
        "m2ib.version",
    }
)
NUMBER_BY_NAME = {code.name: code.value[0] for code in grpc.StatusCode}
# Of a server's spans the conventions count these as its errors; the others are the caller's.
ERRORS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})


class Tracing:
    """The observer that traces. A call begins its span; what it did is told when it ends."""

    def __init__(self, processor: SpanProcessor, *, flush_seconds: float = FLUSH_SECONDS) -> None:
        """Hand every span that ends to `processor`; at the end it has `flush_seconds` to send what is left."""
        self._flush_seconds = flush_seconds
        resource = Resource.create(
            {SERVICE_NAME: SERVICE, SERVICE_VERSION: __version__, SERVICE_INSTANCE_ID: str(uuid.uuid4())}
        )
        self._provider = TracerProvider(sampler=ParentBased(ALWAYS_ON), resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("m2ib_server", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._spans: dict[str, Span] = {}

    def begun(self, call: Call) -> None:
        """Begin a span below the caller's; from here on the call's trace context is that of the span."""
        parent = self._propagator.extract({"traceparent": call.trace_context.get("traceparent", "")})
        span = self._tracer.start_span(
            f"{call.service}/{call.method}",
            context=parent,
            kind=SpanKind.SERVER,
            attributes=_allowed(
                {
                    "rpc.system": "grpc",
                    "rpc.service": call.service,
                    "rpc.method": call.method,
                    "m2ib.request_id": call.request_id,
                }
            ),
            start_time=call.started_ns,
        )
        self._spans[call.request_id] = span
        if span.get_span_context().is_valid:
            headers: dict[str, str] = {}
            self._propagator.inject(headers, set_span_in_context(span))
            call.trace_context = {"traceparent": headers["traceparent"]}

    def ended(self, call: Call, end: CallEnd) -> None:
        """Add the stages that there were, and end the span."""
        span = self._spans.pop(call.request_id)
        wall_ns = call.started_ns - int(call.started * 1e9)  # of the monotonic clock's zero
        within = set_span_in_context(span)
        for period in list(call.stages):
            stage = self._tracer.start_span(
                period.stage,
                context=within,
                attributes=_allowed({"m2ib.stage": period.stage}),
                start_time=wall_ns + period.started_ns,
            )
            stage.end(wall_ns + period.ended_ns)
        span.set_attributes(_allowed(_told(call, end)))
        if end.code in ERRORS:
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    def close(self) -> None:
        """Send what is left, for a few seconds at most: a collector that does not answer holds up no exit."""
        sending = threading.Thread(target=self._provider.shutdown, name="m2ib-spans", daemon=True)
        sending.start()
        sending.join(self._flush_seconds)


def open_tracing(endpoint: str, *, flush_seconds: float = FLUSH_SECONDS) -> Tracing:
    """Trace to a collector at "http://host:port", in plaintext, or "https://host:port".

    The collector may come later or never: spans that nobody takes are dropped, and no call waits for one that is sent.
    """
    exporter = OTLPSpanExporter(
        endpoint=endpoint,
        insecure=endpoint.startswith("http://"),
        timeout=EXPORT_SECONDS,
        channel_options=cast(Any, (("grpc.enable_http_proxy", 0),)),  # their annotation knows of texts only
    )
    return Tracing(BatchSpanProcessor(exporter), flush_seconds=flush_seconds)


def _told(call: Call, end: CallEnd) -> Mapping[str, str | int]:
    told: dict[str, str | int] = {
        "m2ib.code": end.code,
        "rpc.grpc.status_code": NUMBER_BY_NAME[end.code],
        "m2ib.model": call.model,
        "m2ib.version": call.version,
        "m2ib.reason": end.reason,
    }
    if call.settings is not None:
        told |= {"m2ib.steps": call.settings.steps, "m2ib.rows": call.settings.samples * max(1, call.settings.repeats)}
    return {name: value for name, value in told.items() if value != ""}


def _allowed(attributes: Mapping[str, str | int]) -> Mapping[str, str | int]:
    """Return the attributes.

    Raises:
        ValueError: one is not on the allow-list.
    """
    if unknown := attributes.keys() - ATTRIBUTES:
        raise ValueError(f"not on the spans' allow-list: {', '.join(sorted(unknown))}")
    return attributes

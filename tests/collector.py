"""An OpenTelemetry collector of this process: takes spans over OTLP as a real one does, and keeps them."""

import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

SECONDS = 60


def new_traceparent() -> tuple[str, str, str]:
    """Return the header of a caller's span, and the trace's and the span's ids in hexadecimal digits."""
    trace_id, span_id = os.urandom(16).hex(), os.urandom(8).hex()
    return f"00-{trace_id}-{span_id}-01", trace_id, span_id


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """What was exported, span by span."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.requests: list[Any] = []

    def Export(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    @property
    def flags(self) -> tuple[str, str]:
        """The flags of a server that sends its spans here."""
        return "--otlp-endpoint", self.endpoint

    @property
    def spans(self) -> list[Any]:
        return [
            span
            for request in list(self.requests)
            for of_resource in request.resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]

    @property
    def resources(self) -> list[dict[str, Any]]:
        return [attributes_of(each.resource) for request in self.requests for each in request.resource_spans]

    def wait_for(self, trace_id: str, count: int) -> list[Any]:
        """Wait until a trace has so many spans, and return them."""
        deadline = time.monotonic() + SECONDS
        while len(found := self.of_trace(trace_id)) < count:
            assert time.monotonic() < deadline, f"{len(found)} spans"
            time.sleep(0.05)
        return found

    def of_trace(self, trace_id: str) -> list[Any]:
        return [span for span in self.spans if span.trace_id.hex() == trace_id]

    def text(self) -> str:
        """Return everything that was sent, to look for what must not be there."""
        return " ".join(str(request) + request.SerializeToString().decode("latin-1") for request in self.requests)


def attributes_of(thing: Any) -> dict[str, Any]:
    """Return the attributes of a span or a resource."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in thing.attributes}


@contextmanager
def collector() -> Iterator[Collector]:
    """Run a collector on loopback."""
    kept = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(kept, server)
    kept.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield kept
    finally:
        server.stop(None).wait()


@contextmanager
def silent_collector() -> Iterator[str]:
    """Listen where a collector would, and never say a word; yields the endpoint."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"

"""Checks that a call made within a span says so, of every kind and by either shell, and that no other call does."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from m2ib_client._trace import trace_headers
from m2ib_client.testing import FakeService

TRACE_ID, SPAN_ID = 0x1234567890ABCDEF1234567890ABCDEF, 0x1234567890ABCDEF
TRACEPARENT = "00-1234567890abcdef1234567890abcdef-1234567890abcdef-01"


@pytest.fixture
def _span() -> Iterator[None]:
    """A span of the program's that is current."""
    state = TraceState([("vendor", "value")])
    current = SpanContext(TRACE_ID, SPAN_ID, is_remote=False, trace_flags=TraceFlags(1), trace_state=state)
    token = contexts.attach(trace.set_span_in_context(NonRecordingSpan(current)))
    yield
    contexts.detach(token)


CALLS = {
    "explain": lambda client, image: client.explain(image, "a cat"),
    "explain_stream": lambda client, image: list(client.explain_stream(image, "a cat")),
    "explain_many": lambda client, image: list(client.explain_many([(image, "a cat")])),
    "score": lambda client, image: client.score(image, "a cat"),
    "upload": lambda client, image: client.upload(image),
    "models": lambda client, image: client.models(),
    "model": lambda client, image: client.model(),
}


@pytest.mark.usefixtures("_span")
@pytest.mark.parametrize("name", CALLS)
def test_a_call_within_a_span_carries_its_context(fake: FakeService, connect: Any, image: Any, name: str) -> None:
    CALLS[name](connect(fake), image)
    assert fake.calls
    for call in fake.calls:
        assert call.metadata["traceparent"] == TRACEPARENT
        assert call.metadata["tracestate"] == "vendor=value"


@pytest.mark.usefixtures("_span")
def test_the_header_of_an_image_stays_beside_the_traces(fake: FakeService, connect: Any, image: Any) -> None:
    connect(fake).explain(image, "a cat")
    assert {"x-affinity", "traceparent"} <= fake.calls[0].metadata.keys()


def test_a_call_outside_a_span_carries_none(fake: FakeService, connect: Any, image: Any) -> None:
    connect(fake).explain(image, "a cat")
    assert "traceparent" not in fake.calls[0].metadata
    assert trace_headers() == ()


def test_a_program_that_does_not_trace_is_not_made_to_import_it() -> None:
    program = (
        "import sys; from m2ib_client import Client; from m2ib_client._trace import trace_headers; "
        "assert trace_headers() == (); print([name for name in sys.modules if 'opentelemetry' in name])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

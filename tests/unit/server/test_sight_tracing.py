import subprocess
import sys
import threading

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from collector import new_traceparent, silent_collector
from m2ib_server.api.call import Call, CallEnd, trace_context_of
from m2ib_server.engine import Period
from m2ib_server.sight.tracing import ATTRIBUTES, NUMBER_BY_NAME, Tracing, _allowed, open_tracing

CANARY = "Zebrafinch"


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter):
    tracing = Tracing(SimpleSpanProcessor(exporter))
    yield tracing
    tracing.close()


def call_of(traceparent=""):
    return Call(
        service="made.up.v1.Service",
        method="Explain",
        deadline_ns=None,
        trace_context=trace_context_of({"traceparent": traceparent}),
    )


FINE = CallEnd(code="OK")


def traced(tracing, call, end=FINE):
    tracing.begun(call)
    tracing.ended(call, end)


def test_a_call_without_a_context_begins_a_trace_which_its_log_line_names(tracing, exporter):
    call = call_of()
    traced(tracing, call)
    (span,) = exporter.get_finished_spans()
    assert span.parent is None
    assert call.trace_id == f"{span.context.trace_id:032x}"


def test_a_call_within_a_traced_one_hangs_below_its_span(tracing, exporter):
    traceparent, trace_id, _ = new_traceparent()
    outer = call_of(traceparent)
    tracing.begun(outer)
    inner = call_of(outer.trace_context["traceparent"])
    traced(tracing, inner)
    tracing.ended(outer, CallEnd(code="OK"))
    inner_span, outer_span = exporter.get_finished_spans()
    assert inner_span.parent.span_id == outer_span.context.span_id
    assert {inner.trace_id, outer.trace_id} == {trace_id}


def test_stages_become_spans_at_their_own_times(tracing, exporter):
    call = call_of()
    tracing.begun(call)
    zero = int(call.started * 1e9)
    call.stages = [Period(stage="queue", started_ns=zero + 5_000_000, ended_ns=zero + 9_000_000)]
    tracing.ended(call, CallEnd(code="OK"))
    stage, span = exporter.get_finished_spans()
    assert stage.parent.span_id == span.context.span_id
    assert stage.start_time - span.start_time == pytest.approx(5_000_000, abs=1000)
    assert stage.end_time - span.start_time == pytest.approx(9_000_000, abs=1000)


def test_a_caller_that_does_not_sample_is_not_traced_but_its_trace_is_named(tracing, exporter):
    traceparent, trace_id, _ = new_traceparent()
    call = call_of(traceparent.removesuffix("01") + "00")
    traced(tracing, call)
    assert exporter.get_finished_spans() == ()
    assert call.trace_id == trace_id


@pytest.mark.parametrize(("code", "is_error"), [("INTERNAL", True), ("INVALID_ARGUMENT", False), ("CANCELLED", False)])
def test_a_fault_of_the_servers_is_an_error_without_a_word_of_what_was_raised(tracing, exporter, code, is_error):
    traced(tracing, call_of(), CallEnd(code=code, reason="X", error=ValueError(CANARY)))
    (span,) = exporter.get_finished_spans()
    assert (span.status.status_code.name == "ERROR") is is_error
    assert CANARY not in span.to_json()


def test_an_attribute_that_is_not_allowed_is_a_fault_of_ours():
    assert "m2ib.text" not in ATTRIBUTES
    with pytest.raises(ValueError, match=r"m2ib\.text"):
        _allowed({"m2ib.text": CANARY})


def test_every_status_has_a_number():
    assert NUMBER_BY_NAME["OK"] == 0
    assert NUMBER_BY_NAME["UNAUTHENTICATED"] == 16
    assert len(NUMBER_BY_NAME) == 17


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        CANARY,
        f"00-{'0' * 32}-{'2' * 16}-01",
        f"00-{'1' * 32}-{'0' * 16}-01",
        f"ff-{'1' * 32}-{'2' * 16}-01",
        f"00-{'1' * 32}-{'2' * 16}-01-{CANARY}",
        f"00-{'A' * 32}-{'2' * 16}-01",
    ],
)
def test_a_malformed_context_is_none(traceparent):
    assert trace_context_of({"traceparent": traceparent, "tracestate": CANARY}) == {}
    assert call_of(traceparent).trace_id == ""


@pytest.mark.parametrize("is_silent", [False, True], ids=["refusing", "silent"])
def test_a_collector_that_takes_nothing_holds_up_neither_calls_nor_the_end(is_silent):
    with silent_collector() as silent:
        tracing = open_tracing(silent if is_silent else "http://127.0.0.1:1", flush_seconds=0.2)
        for _ in range(10):
            traced(tracing, call_of())
        closing = threading.Thread(target=tracing.close)
        closing.start()
        closing.join(60)
        assert not closing.is_alive()
    for sending in threading.enumerate():  # the exporter's tries go on behind: no test after this one is to notice
        if sending.name == "m2ib-spans":
            sending.join(60)


def test_without_a_collector_the_sdk_is_not_even_imported():
    program = "import m2ib_server.bootstrap, sys; print([name for name in sys.modules if 'opentelemetry' in name])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"

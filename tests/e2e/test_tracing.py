"""Spans of the real server, sent to a collector of this process."""

import itertools

import grpc
import pytest

from collector import attributes_of, collector, new_traceparent, silent_collector
from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import attribution_pb2_grpc, settings_pb2
from m2ib_server.sight.tracing import ATTRIBUTES
from serving import running_server
from wire import explain_request, png

SECONDS = 60
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50"}  # ms between two batches of spans; the SDK's own variable
CANARY = "Zebrafinch"
QUICK = settings_pb2.Settings(steps=2, samples=3)
STAGES = ["prepare", "queue", "encode", "optimise_image", "optimise_text", "render"]
ERROR = 2  # of opentelemetry.proto.trace.v1.Status


@pytest.fixture(scope="module")
def traced(tiny_package, tmp_path_factory):
    """A server that traces, whose collector the test asks once the server has stopped and flushed."""
    with (
        collector() as kept,
        running_server(tiny_package, tmp_path_factory.mktemp("traced"), *kept.flags, **SOON) as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        yield kept, running, attribution_pb2_grpc.AttributionServiceStub(channel)


def root_of(spans):
    (root,) = [span for span in spans if "/" in span.name]
    return root


def test_a_call_is_a_span_below_the_callers_with_a_span_for_each_stage(traced):
    kept, running, stub = traced
    traceparent, trace_id, caller_span = new_traceparent()
    _, call = stub.Explain.with_call(
        explain_request(settings=QUICK, text=CANARY),
        timeout=SECONDS,
        metadata=(("traceparent", traceparent), ("tracestate", f"vendor={CANARY}")),
    )
    spans = kept.wait_for(trace_id, 1 + len(STAGES))
    root = root_of(spans)
    assert root.name == "m2ib.v1.AttributionService/Explain"
    assert root.parent_span_id.hex() == caller_span
    attributes = attributes_of(root)
    assert attributes["m2ib.code"] == "OK"
    assert (attributes["m2ib.model"], attributes["m2ib.steps"], attributes["m2ib.rows"]) == ("tiny", 2, 3)
    assert attributes["m2ib.request_id"] == dict(call.trailing_metadata())["m2ib-request-id"]
    stages = sorted((span for span in spans if span is not root), key=lambda span: span.start_time_unix_nano)
    assert [span.name for span in stages] == STAGES
    assert {span.parent_span_id for span in stages} == {root.span_id}
    for earlier, later in itertools.pairwise(stages):
        assert earlier.start_time_unix_nano <= earlier.end_time_unix_nano <= later.start_time_unix_nano + 1000
    assert root.start_time_unix_nano <= stages[0].start_time_unix_nano
    assert stages[-1].end_time_unix_nano <= root.end_time_unix_nano
    assert {"service.name": "m2ib-server"}.items() <= kept.resources[0].items()
    (line,) = [line for line in running.events("call ended") if line.get("trace_id") == trace_id]
    assert line["request_id"] == attributes["m2ib.request_id"]


def test_a_batchs_pairs_are_spans_below_the_batchs(traced):
    kept, _, stub = traced
    traceparent, trace_id, caller_span = new_traceparent()
    requests = [pb.ExplainBatchRequest(id=CANARY, request=explain_request(settings=QUICK, text=f"{CANARY} {index}"))
                for index in range(2)]  # fmt: skip
    metadata = (("traceparent", traceparent),)
    assert len(list(stub.ExplainBatch(iter(requests), timeout=SECONDS, metadata=metadata))) == 2
    spans = kept.wait_for(trace_id, 1 + 2 * (1 + len(STAGES)))
    (batch,) = [span for span in spans if span.name.endswith("/ExplainBatch")]
    pairs = [span for span in spans if span.name.endswith("/ExplainBatch.pair")]
    assert batch.parent_span_id.hex() == caller_span
    assert [pair.parent_span_id for pair in pairs] == [batch.span_id] * 2


def test_a_refused_call_says_why_in_stable_words_and_is_no_error_of_the_servers(traced):
    kept, _, stub = traced
    traceparent, trace_id, _ = new_traceparent()
    with pytest.raises(grpc.RpcError):
        stub.Explain(explain_request(text=" "), timeout=SECONDS, metadata=(("traceparent", traceparent),))
    root = root_of(kept.wait_for(trace_id, 2))
    assert attributes_of(root)["m2ib.reason"] == "TEXT_EMPTY"
    assert attributes_of(root)["m2ib.code"] == "INVALID_ARGUMENT"
    assert root.status.code != ERROR
    assert not root.events


def test_a_score_has_its_stages_too(traced):
    kept, _, stub = traced
    traceparent, trace_id, _ = new_traceparent()
    request = pb.ScoreRequest(images=[pb.Image(encoded=png(seed=9))], texts=[CANARY])
    stub.Score(request, timeout=SECONDS, metadata=(("traceparent", traceparent),))
    spans = kept.wait_for(trace_id, 4)
    assert {span.name for span in spans} == {"m2ib.v1.AttributionService/Score", "prepare", "queue", "encode"}


def test_what_is_left_is_sent_at_the_end_and_nothing_of_a_caller_ever(traced):
    """The last of this file: it stops the server."""
    kept, running, stub = traced
    with pytest.raises(grpc.RpcError):
        stub.Explain(explain_request(model=CANARY), timeout=SECONDS, metadata=(("traceparent", CANARY),))
    stub.ListModels(pb.ListModelsRequest(), timeout=SECONDS)
    assert running.stop() == 0
    assert [span for span in kept.spans if span.name.endswith("/ListModels")]
    assert CANARY.lower() not in kept.text().lower()
    assert CANARY.lower() not in running.log().lower()
    for span in kept.spans:
        assert attributes_of(span).keys() <= ATTRIBUTES
        assert not span.trace_state


@pytest.mark.slow  # waits for the collector as long as the server does; test_sight_tracing.py has it in short
@pytest.mark.parametrize("is_silent", [False, True], ids=["refusing", "silent"])
def test_a_collector_that_takes_nothing_costs_no_call_and_no_exit(tiny_package, tmp_path, is_silent):
    with silent_collector() as silent:
        endpoint = silent if is_silent else "http://127.0.0.1:1"
        with (
            running_server(tiny_package, tmp_path, "--otlp-endpoint", endpoint) as running,
            grpc.insecure_channel(running.address) as channel,
        ):
            stub = attribution_pb2_grpc.AttributionServiceStub(channel)
            for _ in range(3):
                stub.Explain(explain_request(settings=QUICK), timeout=SECONDS)
            assert running.stop() == 0  # within STOP_SECONDS
            assert len(running.events("call ended")) == 3
            assert endpoint.removeprefix("http://") not in running.log()  # what the exporter says is not repeated

"""What a scrape of the real server tells of real calls. The server is shared, so counts are compared, not stated."""

import time

import grpc
import numpy as np
import pytest

from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import settings_pb2
from scrape import scrape
from wire import explain_request, png

SECONDS = 60
QUICK = settings_pb2.Settings(steps=2, samples=3)
EXPLAIN = {"grpc_service": "m2ib.v1.AttributionService", "grpc_method": "Explain", "grpc_type": "unary"}


def new_image():
    return pb.Image(encoded=png(seed=int(np.random.default_rng().integers(1 << 30))))


def test_a_call_is_seen_by_rpc_engine_and_stage(server, stub):
    before = scrape(server)
    stub.Explain(explain_request(image=new_image(), settings=QUICK), timeout=SECONDS)
    after = scrape(server)

    def more(name, **labels):
        return after.value(name, **labels) - (before.value(name, **labels) if name in before.names else 0)

    assert more("grpc_server_started_total", **EXPLAIN) == 1
    assert more("grpc_server_handled_total", grpc_code="OK", **EXPLAIN) == 1
    assert more("grpc_server_handling_seconds_count", **EXPLAIN) == 1
    assert more("m2ib_engine_callers_ended_total", ending="answered") == 1
    for graph in ("vision_tail_grad", "text_tail_grad"):
        assert more("m2ib_engine_call_rows_sum", graph=graph) == 2 * 3  # steps x samples
        assert more("m2ib_engine_call_rows_count", graph=graph) == 2
        assert more("m2ib_engine_call_seconds_sum", graph=graph) > 0
    assert more("m2ib_engine_cache_misses_total", graph="vision_head") == 1
    assert more("m2ib_engine_cache_bytes") > 0
    assert more("m2ib_engine_round_seconds_count") >= 4
    for stage in ("prepare", "queue", "encode", "optimise_image", "optimise_text", "render"):
        assert after.value("m2ib_stage_seconds_count", stage=stage) >= 1


def test_health_is_seen_for_the_server_its_services_and_each_version(server):
    seen = scrape(server)
    for service in ("", "m2ib.v1.AttributionService", "m2ib.v1.Model/tiny", "m2ib.v1.Model/tiny:1"):
        assert seen.value("m2ib_serving", service=service) == 1


def test_a_refusal_is_counted_by_its_code_and_reason(server, stub):
    with pytest.raises(grpc.RpcError):
        stub.Explain(explain_request(text=" "), timeout=SECONDS)
    seen = scrape(server)
    assert seen.value("grpc_server_handled_total", grpc_code="InvalidArgument", **EXPLAIN) >= 1
    ended = {"method": "Explain", "code": "INVALID_ARGUMENT", "reason": "TEXT_EMPTY"}
    assert seen.value("m2ib_calls_ended_total", **ended) >= 1


def test_a_batchs_pairs_are_counted_one_by_one(server, stub):
    requests = [
        pb.ExplainBatchRequest(id=str(index), request=explain_request(settings=QUICK, text=text))
        for index, text in enumerate(("a cat", " "))
    ]
    assert len(list(stub.ExplainBatch(iter(requests), timeout=SECONDS))) == 2
    seen = scrape(server)
    assert seen.value("m2ib_calls_ended_total", method="ExplainBatch.pair", code="OK") >= 1
    assert seen.value("m2ib_calls_ended_total", method="ExplainBatch.pair", code="INVALID_ARGUMENT") >= 1
    assert seen.value("grpc_server_msg_sent_total", grpc_method="ExplainBatch") >= 2


def test_what_is_held_and_loaded_is_told_with_its_limits(server, stub):
    seen = scrape(server)
    assert seen.value("m2ib_intake_requests") >= 0
    assert seen.value("m2ib_intake_limit_bytes") > seen.value("m2ib_intake_bytes")
    assert seen.value("m2ib_uploads_limit_bytes") > 0
    assert seen.value("m2ib_engine_cache_limit_bytes") >= seen.value("m2ib_engine_cache_bytes")
    assert seen.value("m2ib_engine_waiting") >= 0
    assert seen.value("process_resident_memory_bytes") > seen.value("m2ib_model_bytes", model="tiny") > 0


def test_a_method_that_does_not_exist_makes_no_series(server, channel):
    with pytest.raises(grpc.RpcError):
        channel.unary_unary("/m2ib.v1.AttributionService/Zebrafinch")(b"", timeout=SECONDS)
    with pytest.raises(grpc.RpcError):
        channel.unary_unary("/zebrafinch.v1.Service/Explain")(b"", timeout=SECONDS)
    assert "zebrafinch" not in scrape(server).text.lower()


def test_health_and_reflection_are_counted_too(server, channel):
    health = channel.unary_unary("/grpc.health.v1.Health/Check")
    assert health(b"", timeout=SECONDS) == b"\x08\x01"  # SERVING
    assert scrape(server).value("grpc_server_handled_total", grpc_method="Check", grpc_code="OK") >= 1


def test_a_health_watch_is_counted_while_it_lasts_and_when_it_ends(server, channel):
    before = scrape(server).value("grpc_server_handled_total", grpc_method="Watch", grpc_code="Canceled")
    watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=SECONDS)
    assert next(watch) == b"\x08\x01"
    assert scrape(server).value("grpc_server_msg_sent_total", grpc_method="Watch") >= 1
    watch.cancel()
    deadline = time.monotonic() + SECONDS
    while scrape(server).value("grpc_server_handled_total", grpc_method="Watch", grpc_code="Canceled") == before:
        assert time.monotonic() < deadline
        time.sleep(0.05)

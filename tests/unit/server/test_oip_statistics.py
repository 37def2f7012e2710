from google.protobuf.duration_pb2 import Duration

from m2ib.v1 import attribution_pb2 as pb
from m2ib_server.api.call import OK, Call, CallEnd
from m2ib_server.oip import InferenceStatistics

TIMINGS = {
    "prepare": 1,
    "queue": 2,
    "encode": 3,
    "optimise_image": 4,
    "optimise_text": 5,
    "render": 6,
    "total": 30,
}


def call(method="ModelInfer", **changes):
    timings = pb.Timings(**{name: Duration(nanos=nanos) for name, nanos in TIMINGS.items()})
    known = {"model": "tiny", "version": "1", "timings": timings}
    return Call(**{"service": "", "method": method, "deadline_ns": None, **known, **changes})


def ended(statistics, call, code=OK):
    statistics.begun(call)
    statistics.ended(call, CallEnd(code=code))


def test_nothing_is_known_before_the_first_explanation():
    wire = InferenceStatistics().write("tiny", "1")
    assert (wire.name, wire.version, wire.inference_count, wire.last_inference) == ("tiny", "1", 0, 0)
    assert not wire.batch_stats


def test_explanations_count_through_whichever_service_they_come():
    statistics = InferenceStatistics(now_ns=lambda: 7_000_000)
    for method in ("Explain", "ExplainStream", "ExplainBatch.pair", "ModelInfer", "ModelStreamInfer.request"):
        ended(statistics, call(method))
    ended(statistics, call(shared=True))
    wire = statistics.write("tiny", "1")
    spent = wire.inference_stats
    assert (wire.inference_count, wire.execution_count, wire.last_inference) == (6, 5, 7)
    assert (spent.success.count, spent.fail.count) == (6, 0)
    assert spent.success.ns > 0
    assert [(each.count, each.ns) for each in (spent.queue, spent.compute_input)] == [(6, 12), (6, 6)]
    assert [(each.count, each.ns) for each in (spent.compute_infer, spent.compute_output)] == [(6, 72), (6, 36)]
    (batch,) = wire.batch_stats
    assert (batch.batch_size, batch.compute_infer) == (1, spent.compute_infer)


def test_what_fails_or_is_cancelled_counts_as_failed():
    statistics = InferenceStatistics()
    for code in ("INVALID_ARGUMENT", "CANCELLED", "DEADLINE_EXCEEDED"):
        ended(statistics, call(timings=None), code)
    wire = statistics.write("tiny", "1")
    assert (wire.inference_stats.fail.count, wire.inference_count) == (3, 0)


def test_other_calls_and_calls_without_a_model_do_not_count():
    statistics = InferenceStatistics()
    for other in ("ServerReady", "Score", "UploadImage", "ExplainBatch", "ModelStreamInfer"):
        ended(statistics, call(other))
    ended(statistics, call(model="", version="", timings=None), "NOT_FOUND")
    assert statistics.write("tiny", "1").inference_stats.success.count == 0
    assert statistics.write("", "").inference_stats.fail.count == 0


def test_versions_count_apart():
    statistics = InferenceStatistics()
    ended(statistics, call(version="2"))
    assert statistics.write("tiny", "1").inference_count == 0
    assert statistics.write("tiny", "2").inference_count == 1

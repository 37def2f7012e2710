"""The real server under many requests: batches, uploaded images, shared computations, deadlines, several devices."""

import hashlib
import time

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import attribution_pb2_grpc, settings_pb2
from serving import running_server
from wire import explain_request, png

SECONDS = 60
TEXTS = ("a cat", "a dog and a cat", "two birds", "a small red house")


def request_of(text="a cat and a dog", image=None, **changes):
    return explain_request(text=text, image=image or pb.Image(encoded=png()), **changes)


def grid(explanation):
    return np.frombuffer(explanation.image.grid_bits.data, "<f4")


def reason_of(error):
    info = error_details_pb2.ErrorInfo()
    for detail in rpc_status.from_call(error).details:
        if detail.Unpack(info):
            return info.reason
    return ""


def upload(stub, encoded, *, chunk=1000, header=None, **kwargs):
    announced = header or pb.UploadHeader(size_bytes=len(encoded), sha256=hashlib.sha256(encoded).hexdigest())

    def parts():
        yield pb.UploadImageRequest(header=announced)
        for start in range(0, len(encoded), chunk):
            yield pb.UploadImageRequest(chunk=encoded[start : start + chunk])

    return stub.UploadImage(parts(), timeout=SECONDS, **kwargs)


def test_a_batch_answers_every_request_under_its_id(stub):
    requests = [
        pb.ExplainBatchRequest(id=f"pair {index}", request=request_of(text)) for index, text in enumerate(TEXTS)
    ]
    answers = {answer.id: answer for answer in stub.ExplainBatch(iter(requests), timeout=SECONDS)}
    assert set(answers) == {f"pair {index}" for index in range(len(TEXTS))}
    for index, text in enumerate(TEXTS):
        alone = stub.Explain(request_of(text), timeout=SECONDS).explanation
        np.testing.assert_allclose(grid(answers[f"pair {index}"].explanation), grid(alone), rtol=1e-3, atol=1e-3)


def test_a_bad_request_of_a_batch_gets_its_own_status_and_the_others_their_answers(stub):
    requests = [
        pb.ExplainBatchRequest(id="good", request=request_of("a cat")),
        pb.ExplainBatchRequest(id="bad", request=request_of("")),
        pb.ExplainBatchRequest(id="unknown", request=request_of("a cat", model="nothing")),
        pb.ExplainBatchRequest(id="x" * 257, request=request_of("a cat")),
        pb.ExplainBatchRequest(id="also good", request=request_of("a dog")),
    ]
    answers = {answer.id: answer for answer in stub.ExplainBatch(iter(requests), timeout=SECONDS)}
    outcomes = {name: answer.WhichOneof("outcome") for name, answer in answers.items()}
    assert outcomes == {
        "good": "explanation",
        "bad": "status",
        "unknown": "status",
        "x" * 257: "status",
        "also good": "explanation",
    }
    assert answers["bad"].status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert answers["unknown"].status.code == grpc.StatusCode.NOT_FOUND.value[0]
    violation = error_details_pb2.BadRequest()
    assert any(detail.Unpack(violation) for detail in answers["bad"].status.details)
    assert violation.field_violations[0].field == "text"


def test_an_empty_batch_ends(stub):
    assert list(stub.ExplainBatch(iter(()), timeout=SECONDS)) == []


def test_a_batch_of_more_than_may_be_under_way_is_answered_whole(stub):
    count = 3 * in_flight_limit(stub)
    requests = (
        pb.ExplainBatchRequest(id=str(i), request=request_of(f"a cat {i}", settings=FAST)) for i in range(count)
    )
    answers = {each.id: each.WhichOneof("outcome") for each in stub.ExplainBatch(requests, timeout=SECONDS)}
    assert answers == {str(i): "explanation" for i in range(count)}


def test_a_batch_reads_no_more_than_may_be_under_way(stub):
    limit = in_flight_limit(stub)
    image = pb.Image(encoded=png(seed=11, size=(800, 800)))  # 640 kB: few fit between client and server
    read = []

    def requests():
        for index in range(4 * limit):
            read.append(index)
            yield pb.ExplainBatchRequest(id=str(index), request=request_of(f"a cat {index}", image, settings=SLOW))

    answers = stub.ExplainBatch(requests())
    try:
        assert limit <= len(stalled(read)) <= 2 * limit
    finally:
        answers.cancel()


def in_flight_limit(stub):
    return stub.GetModel(pb.GetModelRequest(model="tiny"), timeout=SECONDS).model.limits.max_batch_in_flight


def stalled(read, *, seconds=3.0):
    """Wait until what is read has not grown for so long."""
    seen, since = 0, time.monotonic()
    while time.monotonic() - since < seconds:
        time.sleep(0.05)
        if len(read) != seen:
            seen, since = len(read), time.monotonic()
    return read


FAST = settings_pb2.Settings(steps=1, samples=1)
SLOW = settings_pb2.Settings(steps=500, samples=50)  # so that a batch of it takes long, and not too long to be let in


def test_an_uploaded_image_is_explained_by_its_handle(stub):
    encoded = png(seed=3)
    uploaded = upload(stub, encoded)
    assert uploaded.time_to_live.ToSeconds() > 0
    by_handle = stub.Explain(request_of(image=pb.Image(handle=uploaded.handle)), timeout=SECONDS).explanation
    by_bytes = stub.Explain(request_of(image=pb.Image(encoded=encoded)), timeout=SECONDS).explanation
    assert grid(by_handle).tobytes() == grid(by_bytes).tobytes()
    assert by_handle.provenance.image_sha256 == hashlib.sha256(encoded).hexdigest()
    assert by_bytes.provenance.image_features_cached
    assert by_bytes.provenance.image_embedding_cached
    scores = stub.Score(pb.ScoreRequest(model="tiny", images=[pb.Image(handle=uploaded.handle)], texts=["a cat"]))
    assert len(scores.similarities.data) == 4


BAD_UPLOADS = {
    "no header": ([pb.UploadImageRequest(chunk=b"x")], "header"),
    "nothing": ([], "header"),
    "size zero": ([pb.UploadImageRequest(header=pb.UploadHeader(sha256="0" * 64))], "header.size_bytes"),
    "too large": (
        [pb.UploadImageRequest(header=pb.UploadHeader(size_bytes=1 << 40, sha256="0" * 64))],
        "header.size_bytes",
    ),
    "no digest": ([pb.UploadImageRequest(header=pb.UploadHeader(size_bytes=1))], "header.sha256"),
    "too short": (
        [
            pb.UploadImageRequest(header=pb.UploadHeader(size_bytes=2, sha256="0" * 64)),
            pb.UploadImageRequest(chunk=b"x"),
        ],
        "chunk",
    ),
    "too long": (
        [
            pb.UploadImageRequest(header=pb.UploadHeader(size_bytes=2, sha256="0" * 64)),
            pb.UploadImageRequest(chunk=b"xyz"),
        ],
        "chunk",
    ),
    "empty chunk": (
        [
            pb.UploadImageRequest(header=pb.UploadHeader(size_bytes=2, sha256="0" * 64)),
            pb.UploadImageRequest(chunk=b""),
        ],
        "chunk",
    ),
    "another digest": (
        [
            pb.UploadImageRequest(header=pb.UploadHeader(size_bytes=1, sha256="0" * 64)),
            pb.UploadImageRequest(chunk=b"x"),
        ],
        "header.sha256",
    ),
}


@pytest.mark.parametrize("name", BAD_UPLOADS)
def test_a_bad_upload_names_what_is_wrong(stub, name):
    parts, field = BAD_UPLOADS[name]
    with pytest.raises(grpc.RpcError) as error:
        stub.UploadImage(iter(parts), timeout=SECONDS)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.value.details().startswith(f"{field}: seen")


def test_an_unknown_handle_is_not_found_and_not_repeated(stub):
    with pytest.raises(grpc.RpcError) as error:
        stub.Explain(request_of(image=pb.Image(handle="secret-handle")), timeout=SECONDS)
    assert error.value.code() is grpc.StatusCode.NOT_FOUND
    assert reason_of(error.value) == "IMAGE_HANDLE_UNKNOWN"
    assert "secret-handle" not in error.value.details()


def test_identical_requests_at_the_same_time_are_computed_once(stub):
    settings = settings_pb2.Settings(steps=200, samples=40, seed=77)
    calls = [stub.Explain.future(request_of(settings=settings), timeout=SECONDS) for _ in range(6)]
    explanations = [call.result().explanation for call in calls]
    assert len({grid(explanation).tobytes() for explanation in explanations}) == 1
    assert sum(not explanation.provenance.shared for explanation in explanations) == 1


def test_one_of_identical_callers_that_leaves_takes_nothing_from_the_others(stub):
    settings = settings_pb2.Settings(steps=40, samples=40, seed=78)
    calls = [stub.Explain.future(request_of(settings=settings), timeout=SECONDS) for _ in range(3)]
    calls[0].cancel()
    assert all(len(call.result().explanation.image.trace) == 40 for call in calls[1:])


def test_a_partial_answer_comes_before_the_deadline(stub):
    settings = settings_pb2.Settings(steps=1000, samples=60, seed=5)
    request = request_of(settings=settings, on_deadline=pb.ON_DEADLINE_PARTIAL)
    explanation = stub.Explain(request, timeout=2).explanation
    assert explanation.partial
    assert 0 < len(explanation.image.trace) < 1000
    assert not explanation.HasField("text")


def test_a_deadline_that_cannot_be_kept_is_refused_at_once(stub):
    settings = settings_pb2.Settings(steps=1000, samples=200, seed=6)
    started = time.monotonic()
    with pytest.raises(grpc.RpcError) as error:
        stub.Explain(request_of(settings=settings), timeout=4)
    assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert reason_of(error.value) == "DEADLINE_TOO_SHORT"
    assert time.monotonic() - started < 3


def test_repeats_give_a_mean_a_deviation_and_a_stability(stub):
    settings = settings_pb2.Settings(steps=4, samples=4, seed=10, repeats=3)
    explanation = stub.Explain(request_of(settings=settings), timeout=SECONDS).explanation
    singles = []
    for seed in (10, 11, 12):
        settings = settings_pb2.Settings(steps=4, samples=4, seed=seed)
        singles.append(grid(stub.Explain(request_of(settings=settings), timeout=SECONDS).explanation))
    np.testing.assert_allclose(grid(explanation), np.mean(singles, axis=0), rtol=1e-3, atol=1e-2)
    deviation = np.frombuffer(explanation.image.grid_std_bits.data, "<f4")
    np.testing.assert_allclose(deviation, np.std(singles, axis=0, ddof=1), rtol=2e-2, atol=2e-2)
    assert -1 <= explanation.image.stability <= 1
    assert all(token.HasField("std_bits") for token in explanation.text.tokens)


@pytest.mark.parametrize("effort", [effort for effort in settings_pb2.Effort.values() if effort])
def test_an_effort_is_what_the_model_says(stub, effort):
    model = stub.GetModel(pb.GetModelRequest(model="demo"), timeout=SECONDS).model
    said = next(each for each in model.defaults.efforts if each.effort == effort)
    request = request_of("left pleural effusion", model="demo", settings=settings_pb2.Settings(effort=effort))
    settings = stub.Explain(request, timeout=SECONDS).explanation.provenance.settings
    assert settings.effort == effort
    assert (settings.mask_shape, settings.text_mask_shape) == (said.mask_shape, said.text_mask_shape)
    assert settings.repeats == said.repeats
    for field in ("beta", "text_beta", "steps", "samples", "learning_rate"):
        assert getattr(settings, field) == getattr(said.settings, field)


def test_two_devices_give_the_map_of_one_and_each_image_keeps_its_device(models, stub, tmp_path):
    with (
        running_server(models, tmp_path, "--devices", "2", "--threads", "2") as two,
        grpc.insecure_channel(two.address) as channel,
    ):
        pair = attribution_pb2_grpc.AttributionServiceStub(channel)
        for seed in range(6):
            request = request_of(image=pb.Image(encoded=png(seed=seed)), settings=settings_pb2.Settings(steps=5))
            ours, again = (pair.Explain(request, timeout=SECONDS).explanation for _ in range(2))
            alone = stub.Explain(request, timeout=SECONDS).explanation
            np.testing.assert_allclose(grid(ours), grid(alone), rtol=1e-3, atol=1e-3)
            assert again.provenance.image_features_cached


def test_scored_images_are_kept_each_on_its_own_device(models, stub, tmp_path):
    images = [pb.Image(encoded=png(seed=seed)) for seed in range(6)]
    request = pb.ScoreRequest(model="tiny", images=images, texts=["left pleural effusion", "no finding"])
    with (
        running_server(models, tmp_path, "--devices", "2", "--threads", "2") as two,
        grpc.insecure_channel(two.address) as channel,
    ):
        pair = attribution_pb2_grpc.AttributionServiceStub(channel)
        scored, alone = (each.Score(request, timeout=SECONDS).similarities for each in (pair, stub))
        np.testing.assert_allclose(*(np.frombuffer(each.data, "<f4") for each in (scored, alone)), atol=1e-5)
        for image in images:
            explained = pair.Explain(request_of(image=image), timeout=SECONDS).explanation
            assert explained.provenance.image_features_cached


def test_an_upload_expires_and_frees_its_room(models, tmp_path):
    with (
        running_server(models, tmp_path, "--upload-seconds", "0.5", "--upload-mebibytes", "1") as small,
        grpc.insecure_channel(small.address) as channel,
    ):
        pair = attribution_pb2_grpc.AttributionServiceStub(channel)
        kept = upload(pair, bytes((1 << 20) - 1000), chunk=1 << 16)
        with pytest.raises(grpc.RpcError) as error:
            upload(pair, png())
        assert reason_of(error.value) == "UPLOAD_STORE_FULL"
        time.sleep(1)
        with pytest.raises(grpc.RpcError) as error:
            pair.Explain(request_of(image=pb.Image(handle=kept.handle)), timeout=SECONDS)
        assert reason_of(error.value) == "IMAGE_HANDLE_UNKNOWN"
        assert upload(pair, png()).handle

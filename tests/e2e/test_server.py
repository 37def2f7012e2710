"""The real server in a process of its own: answers and refusals."""

import grpc
import numpy as np
import pytest

from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import attribution_pb2_grpc, settings_pb2
from serving import running_server
from wire import details_of, explain_request, png

SECONDS = 60


def tensor(values):
    return settings_pb2.FloatTensor(shape=values.shape, data=values.astype("<f4").tobytes())


NAN = np.zeros((3, 32, 32))
NAN[1, 2, 3] = np.nan

BAD_REQUESTS = {
    "no image": ({"image": None}, "image"),
    "empty image": ({"image": pb.Image(encoded=b"")}, "image"),
    "no image at all": ({"image": pb.Image(encoded=b"not an image")}, "image.encoded"),
    "truncated image": ({"image": pb.Image(encoded=png()[:200])}, "image.encoded"),
    "frame too high": ({"image": pb.Image(encoded=png(), frame=2)}, "image.frame"),
    "frame zero": ({"image": pb.Image(encoded=png(), frame=0)}, "image.frame"),
    "nan tensor": ({"image": pb.Image(tensor=tensor(NAN))}, "image.tensor"),
    "huge tensor": ({"image": pb.Image(tensor=tensor(np.full((3, 32, 32), 1e38)))}, "image.tensor"),
    "wrong shape": ({"image": pb.Image(tensor=tensor(np.zeros((3, 16, 16))))}, "image.tensor"),
    "short tensor": (
        {"image": pb.Image(tensor=settings_pb2.FloatTensor(shape=[3, 32, 32], data=b"1234"))},
        "image.tensor",
    ),
    "huge tensor shape": (
        {"image": pb.Image(tensor=settings_pb2.FloatTensor(shape=[2**31, 2**31, 2**31], data=b"1234"))},
        "image.tensor",
    ),
    "tensor of a hundred thousand dimensions": (
        {"image": pb.Image(tensor=settings_pb2.FloatTensor(shape=[2**32 - 1] * 100_000))},
        "image.tensor",
    ),
    "tensor of more dimensions than numpy has": (
        {"image": pb.Image(tensor=settings_pb2.FloatTensor(shape=[1] * 100, data=b"1234"))},
        "image.tensor",
    ),
    "tensor of two dimensions": ({"image": pb.Image(tensor=tensor(np.zeros((32, 32))))}, "image.tensor"),
    "shapeless tensor": ({"image": pb.Image(tensor=settings_pb2.FloatTensor(data=b"1234"))}, "image.tensor"),
    "bad window": ({"image": pb.Image(encoded=png(), window=pb.Window(center=1, width=0))}, "image.window"),
    "empty text": ({"text": ""}, "text"),
    "blank text": ({"text": " \n\t "}, "text"),
    "long text": ({"text": "cat " * 100}, "text"),
    "endless text": ({"text": "cat " * 10_000}, "text"),
    "zero beta": ({"settings": settings_pb2.Settings(beta=0)}, "settings.beta"),
    "nan beta": ({"settings": settings_pb2.Settings(beta=float("nan"))}, "settings.beta"),
    "infinite rate": ({"settings": settings_pb2.Settings(learning_rate=float("inf"))}, "settings.learning_rate"),
    "no steps": ({"settings": settings_pb2.Settings(steps=0)}, "settings.steps"),
    "too many steps": ({"settings": settings_pb2.Settings(steps=1001)}, "settings.steps"),
    "too many samples": ({"settings": settings_pb2.Settings(samples=257)}, "settings.samples"),
    "unknown mask": ({"settings": settings_pb2.Settings(mask_shape=9)}, "settings.mask_shape"),
    "unknown text mask": ({"settings": settings_pb2.Settings(text_mask_shape=9)}, "settings.text_mask_shape"),
    "unknown fit": ({"fit": 9}, "fit"),
    "unknown side": ({"sides": [9]}, "sides"),
    "a side twice": ({"sides": [settings_pb2.SIDE_TEXT, settings_pb2.SIDE_TEXT]}, "sides"),
    "unknown output": ({"outputs": [9]}, "outputs"),
    "an output twice": ({"outputs": [pb.OUTPUT_OVERLAY, pb.OUTPUT_OVERLAY]}, "outputs"),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_bad_input_gets_a_status_that_names_the_field(stub, case):
    changes, field = BAD_REQUESTS[case]
    with pytest.raises(grpc.RpcError) as caught:
        stub.Explain(explain_request(**changes), timeout=SECONDS)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    details = details_of(caught.value)
    (violation,) = details["BadRequest"].field_violations
    assert violation.field == field
    assert "seen " in violation.description
    assert "allowed: " in violation.description
    assert len(violation.description) < 300  # what a caller sent is not sent back at its own length
    assert details["ErrorInfo"].domain == "m2ib.v1"
    assert details["ErrorInfo"].metadata["request_id"] == dict(caught.value.trailing_metadata())["m2ib-request-id"]


def test_values_that_no_image_has_are_refused_by_every_rpc(stub):
    huge = pb.Image(tensor=tensor(np.full((3, 32, 32), 1e38)))
    stream = pb.ExplainStreamRequest(request=explain_request(image=huge))
    scored = pb.ScoreRequest(model="tiny", images=[pb.Image(encoded=png()), huge], texts=["a cat"])
    for rpc, request, field in (
        (lambda request, timeout: list(stub.ExplainStream(request, timeout=timeout)), stream, "image.tensor"),
        (stub.Score, scored, "images[1].tensor"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            rpc(request, timeout=SECONDS)
        assert details_of(caught.value)["BadRequest"].field_violations[0].field == field


@pytest.mark.parametrize("rpc", ["Explain", "GetModel"])
def test_an_unknown_model_is_not_found(stub, rpc):
    request = explain_request(model="no-such") if rpc == "Explain" else pb.GetModelRequest(model="no-such")
    with pytest.raises(grpc.RpcError) as caught:
        getattr(stub, rpc)(request, timeout=SECONDS)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert "demo, tiny" in details_of(caught.value)["ResourceInfo"].description


def test_no_model_name_is_not_found_when_several_are_loaded(stub):
    with pytest.raises(grpc.RpcError) as caught:
        stub.Explain(explain_request(model=""), timeout=SECONDS)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("field", ["images", "texts"])
def test_scores_of_nothing_are_refused(stub, field):
    request = pb.ScoreRequest(model="tiny", images=[pb.Image(encoded=png())], texts=["a cat"])
    request.ClearField(field)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Score(request, timeout=SECONDS)
    assert details_of(caught.value)["BadRequest"].field_violations[0].field == field


def test_a_bad_entry_of_a_list_is_named(stub):
    good, bad = pb.Image(encoded=png()), pb.Image(encoded=b"nonsense")
    for fields, field in (
        ({"images": [good, bad], "texts": ["a cat"]}, "images[1].encoded"),
        ({"images": [good], "texts": ["a cat", "a dog", " "]}, "texts[2]"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            stub.Score(pb.ScoreRequest(model="tiny", **fields), timeout=SECONDS)
        assert details_of(caught.value)["BadRequest"].field_violations[0].field == field


def test_the_server_answers_after_bad_requests(stub):
    explanation = stub.Explain(explain_request(), timeout=SECONDS).explanation
    grid = np.frombuffer(explanation.image.grid_bits.data, "<f4")
    assert grid.size == 16
    assert np.isfinite(grid).all()


def test_truncation_is_done_only_when_asked_for_and_then_reported(stub):
    explanation = stub.Explain(explain_request(text="cat " * 100, truncate_text=True), timeout=SECONDS).explanation
    length = explanation.provenance.text_length
    assert (length.tokens_given, length.tokens_kept) == (102, 24)
    assert len(explanation.text.tokens) == 24


def test_every_step_is_told_and_the_explanation_comes_last(stub):
    request = pb.ExplainStreamRequest(
        request=explain_request(settings=settings_pb2.Settings(steps=6)), partial_maps=True
    )
    events = list(stub.ExplainStream(request, timeout=SECONDS))
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds == ["progress"] * 12 + ["explanation"]
    told = [(event.progress.side, event.progress.step) for event in events[:-1]]
    sides = (settings_pb2.SIDE_IMAGE, settings_pb2.SIDE_TEXT)
    assert told == [(side, step) for side in sides for step in range(1, 7)]
    explanation = events[-1].explanation
    assert events[5].progress.partial_grid == explanation.image.grid_bits
    assert not events[6].progress.HasField("partial_grid")
    for event, step in zip(events[:6], explanation.image.trace, strict=True):
        assert event.progress.similarity == step.similarity
        assert event.progress.bits_kept == step.bits_kept


@pytest.mark.parametrize("model", ["tiny", "demo"])
def test_the_bits_kept_are_those_of_the_patches_and_of_the_tokens(stub, model):
    explanation = stub.Explain(explain_request(model=model), timeout=SECONDS).explanation
    grid = np.frombuffer(explanation.image.grid_bits.data, "<f4")
    assert explanation.image.trace[-1].bits_kept == pytest.approx(grid.sum(), rel=1e-5)
    tokens = [token.bits for token in explanation.text.tokens]
    assert explanation.text.trace[-1].bits_kept == pytest.approx(sum(tokens), rel=1e-5)


def test_a_map_that_no_message_holds_is_refused_before_the_first_step(tiny_package, tmp_path):
    flags = ("--max-message-mebibytes", "4", "--max-image-mebibytes", "3")
    request = explain_request(image=pb.Image(encoded=png((1000, 900))), outputs=[pb.OUTPUT_ORIGINAL_MAP])
    with running_server(tiny_package, tmp_path, *flags) as running, grpc.insecure_channel(running.address) as channel:
        stub = attribution_pb2_grpc.AttributionServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            next(stub.ExplainStream(pb.ExplainStreamRequest(request=request), timeout=SECONDS))
        assert details_of(caught.value)["BadRequest"].field_violations[0].field == "outputs"
        request.sides.append(settings_pb2.SIDE_TEXT)  # no map is made
        assert stub.Explain(request, timeout=SECONDS).explanation.HasField("text")


def test_the_same_request_gives_the_same_answer_streamed_or_not_cached_or_not(stub):
    request = explain_request(image=pb.Image(encoded=png(seed=77)), settings=settings_pb2.Settings(seed=5))
    first = stub.Explain(request, timeout=SECONDS).explanation
    second = list(stub.ExplainStream(pb.ExplainStreamRequest(request=request), timeout=SECONDS))[-1].explanation
    assert not first.provenance.image_features_cached
    assert second.provenance.image_features_cached
    assert first.image.grid_bits == second.image.grid_bits
    assert first.text == second.text
    other = stub.Explain(explain_request(settings=settings_pb2.Settings(seed=6)), timeout=SECONDS).explanation
    assert other.image.grid_bits != first.image.grid_bits


def test_the_mask_shape_is_a_setting_with_defaults_of_its_own(stub):
    described = stub.GetModel(pb.GetModelRequest(model="demo"), timeout=SECONDS).model
    for shape, defaults in (
        (settings_pb2.MASK_SHAPE_CHANNEL, described.defaults.channel),
        (settings_pb2.MASK_SHAPE_TOKEN, described.defaults.token),
    ):
        request = explain_request(model="demo", settings=settings_pb2.Settings(mask_shape=shape))
        used = stub.Explain(request, timeout=SECONDS).explanation.provenance.settings
        assert used.mask_shape == used.text_mask_shape == shape
        assert (used.beta, used.steps, used.samples) == (defaults.beta, defaults.steps, defaults.samples)


def test_the_demo_explains_films_by_channel_and_words_by_token_unless_told_otherwise(stub):
    channel, token = settings_pb2.MASK_SHAPE_CHANNEL, settings_pb2.MASK_SHAPE_TOKEN
    specific, published = settings_pb2.EFFORT_SPECIFIC, settings_pb2.EFFORT_PUBLISHED

    def explained(**asked):
        request = explain_request(model="demo", settings=settings_pb2.Settings(**asked))
        return stub.Explain(request, timeout=SECONDS).explanation

    def shapes(explanation):
        used = explanation.provenance.settings
        return used.mask_shape, used.text_mask_shape

    own = explained(effort=specific)
    assert shapes(own) == (channel, token)
    shared = explained(effort=specific, mask_shape=channel)
    assert shapes(shared) == (channel, channel)
    assert own.image.grid_bits == shared.image.grid_bits
    assert own.text != shared.text
    assert shapes(explained(effort=published)) == (channel, channel)
    assert shapes(explained(effort=published, text_mask_shape=token)) == (channel, token)


def test_scores_agree_with_explanations(stub):
    texts = ["a cat and a dog", "a red sofa"]
    images = [pb.Image(encoded=png(seed=seed)) for seed in range(3)]
    answer = stub.Score(pb.ScoreRequest(model="tiny", images=images, texts=texts), timeout=SECONDS)
    matrix = np.frombuffer(answer.similarities.data, "<f4").reshape(3, 2)
    for row, image in enumerate(images):
        for column, text in enumerate(texts):
            explained = stub.Explain(explain_request(image=image, text=text), timeout=SECONDS).explanation
            assert explained.similarity == pytest.approx(matrix[row, column], abs=1e-5)


def test_rank_counts_the_reference_texts_that_fit_better(stub, server, tiny_package):
    references = (tiny_package / "reference_texts.txt").read_text().splitlines()
    image = pb.Image(encoded=png(seed=4))
    answer = stub.Score(pb.ScoreRequest(model="tiny", images=[image], texts=references), timeout=SECONDS)
    similarities = np.frombuffer(answer.similarities.data, "<f4")
    explained = stub.Explain(explain_request(image=image, text="a cat and a dog"), timeout=SECONDS).explanation
    rank = explained.reference_rank
    assert rank.references == len(references)
    assert rank.rank == 1 + (similarities > explained.similarity).sum()
    assert rank.best_reference == references[similarities.argmax()]
    assert rank.best_similarity == pytest.approx(similarities.max(), abs=1e-4)


def test_provenance_is_complete(stub, tiny_package):
    provenance = stub.Explain(explain_request(), timeout=SECONDS).explanation.provenance
    unset = [
        field.name
        for field in provenance.DESCRIPTOR.fields
        if not field.is_repeated and field.has_presence and not provenance.HasField(field.name)
    ]
    assert unset == []
    assert (provenance.model, provenance.version, provenance.method) == ("tiny", "1", "m2ib")
    assert len(provenance.digest) == len(provenance.image_sha256) == 64
    assert all(provenance.settings.HasField(name) for name in ("beta", "steps", "samples", "learning_rate", "seed"))
    assert {"m2ib-server", "torch", "onnxruntime"} <= set(provenance.software)


def test_models_are_listed_with_limits_layers_and_parity(stub):
    models = stub.ListModels(pb.ListModelsRequest(), timeout=SECONDS).models
    assert [model.name for model in models] == ["demo", "tiny"]
    for model in models:
        assert model.limits.max_steps == 1000
        assert model.vision.image_size > 0
        assert model.text.context_length > 0
        assert model.parity
        assert all(figure.relative_error < figure.threshold for figure in model.parity)

"""Checks the second half of the codec: answers become values without loss, and malformed ones are refused."""

import json
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from m2ib.v1 import attribution_pb2, settings_pb2
from m2ib_client import Explanation, IncompatibleServerError, OutputMissingError, Progress, _answer, _tensor
from m2ib_client._answer import read_explanation, read_scores
from m2ib_client._model_answer import read_model
from m2ib_client._request import explain_request
from m2ib_client.testing import _answers, _model

ALL_OUTPUTS = ("model_map", "original_map", "overlay", "rendering")


def message(**options: Any) -> attribution_pb2.Explanation:
    request = explain_request(np.zeros((30, 40), np.uint8), "a b", **options)
    return _answers.fake_explanation(request, _model.fake_model("fake"))


def explanation(**options: Any) -> Explanation:
    return read_explanation(message(**options))


matrices = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.floats(width=32))


@given(matrices)
def test_arrays_survive_the_wire(array: Any) -> None:
    sent = settings_pb2.FloatTensor.FromString(_tensor.pack(array).SerializeToString())
    assert np.array_equal(_tensor.unpack(sent, dimensions=2), array, equal_nan=True)


def test_arrays_are_read_only_views_of_the_answer() -> None:
    tensor = _tensor.pack(np.ones((2, 3), np.float32))
    array = _tensor.unpack(tensor, dimensions=2)
    assert not array.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 2


@pytest.mark.parametrize(
    "tensor",
    [
        settings_pb2.FloatTensor(),
        settings_pb2.FloatTensor(shape=[2, 2], data=b"\0" * 12),
        settings_pb2.FloatTensor(shape=[2, 2], data=b"\0" * 20),
        settings_pb2.FloatTensor(shape=[4], data=b"\0" * 16),
        settings_pb2.FloatTensor(shape=[2**31, 2**31], data=b""),
    ],
)
def test_malformed_tensor_is_refused(tensor: settings_pb2.FloatTensor) -> None:
    broken = message()
    broken.image.grid_bits.CopyFrom(tensor)
    with pytest.raises(IncompatibleServerError, match="tensor"):
        read_explanation(broken)
    with pytest.raises(IncompatibleServerError, match="tensor"):
        read_scores(attribution_pb2.ScoreResponse(similarities=tensor))


def test_unknown_enumerator_is_refused() -> None:
    broken = message()
    broken.provenance.settings.mask_shape = settings_pb2.MASK_SHAPE_UNSPECIFIED
    with pytest.raises(IncompatibleServerError, match="mask_shape"):
        read_explanation(broken)
    model = _model.fake_model("fake")
    model.default_fit = settings_pb2.FIT_UNSPECIFIED
    with pytest.raises(IncompatibleServerError, match="default_fit"):
        read_model(model)


def test_event_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(IncompatibleServerError, match="event"):
        _answer.read_event(attribution_pb2.ExplainStreamResponse())


def test_event_becomes_progress_or_explanation() -> None:
    progress = attribution_pb2.Progress(side=settings_pb2.SIDE_TEXT, step=2, steps=3, bits_kept=1.5)
    event = _answer.read_event(attribution_pb2.ExplainStreamResponse(progress=progress))
    assert event == Progress(side="text", step=2, steps=3, similarity=0, bits_kept=1.5, partial_grid=None)
    whole = attribution_pb2.ExplainStreamResponse(explanation=message())
    assert isinstance(_answer.read_event(whole), Explanation)


def test_fields_of_the_answer_are_those_of_the_message() -> None:
    sent = message(outputs=ALL_OUTPUTS, seed=5)
    read = read_explanation(sent)
    assert read.image is not None
    assert read.image.overlay_png == sent.image.overlay_png
    assert read.image.grid_to_original.xx == sent.image.grid_to_original.xx
    assert [token.token_id for token in read.tokens] == [token.token_id for token in sent.text.tokens]
    assert [token.span is None for token in read.tokens] == [token.special for token in read.tokens]
    assert read.provenance.digest == sent.provenance.digest
    assert read.provenance.software == dict(sent.provenance.software)
    assert read.timings.optimise_image_seconds == pytest.approx(0.4)
    assert read.reference_rank.better_fraction == (sent.reference_rank.rank - 1) / 200


def test_grid_points_land_on_the_original() -> None:
    image = explanation().image
    assert image is not None
    assert image.grid_to_original.apply(0, 0) == (0, 0)
    assert image.grid_to_original.apply(7, 7) == pytest.approx((40, 30))


def test_pictures_have_the_size_of_the_original() -> None:
    read = explanation(outputs=ALL_OUTPUTS)
    assert (read.overlay().size, read.overlay().mode) == ((40, 30), "RGB")
    assert read.rendering().size == (40, 30)
    assert isinstance(read.overlay(), PIL.Image.Image)


@pytest.mark.parametrize("options", [{"outputs": ()}, {"sides": ("text",)}])
def test_picture_that_was_not_asked_for_names_the_option(options: dict[str, Any]) -> None:
    read = explanation(**options)
    with pytest.raises(OutputMissingError, match=r'outputs=\("overlay",\)'):
        read.overlay()
    with pytest.raises(OutputMissingError, match=r'outputs=\("rendering",\)'):
        read.rendering()


def test_json_holds_everything_but_pictures() -> None:
    read = explanation(outputs=ALL_OUTPUTS)
    parsed = json.loads(read.to_json())
    assert set(parsed) == {"image", "text", "similarity", "reference_rank", "provenance", "timings", "partial"}
    assert np.array_equal(np.float32(parsed["image"]["grid_bits"]), read.image.grid_bits if read.image else 0)
    assert parsed["image"]["original_size"] == {"width": 40, "height": 30}
    assert "overlay_png" not in parsed["image"]
    assert parsed["text"]["words"][1]["span"] == {"start": 2, "end": 3}
    assert parsed["provenance"]["settings"]["mask_shape"] == "channel"


def test_what_is_not_a_number_becomes_null() -> None:
    sent = message(outputs=("original_map",))
    sent.image.original_map.CopyFrom(_tensor.pack(np.float32([[np.nan, 1.0]])))
    assert json.loads(read_explanation(sent).to_json())["image"]["original_map"] == [[None, 1.0]]


def test_sides_that_were_not_asked_for_are_none() -> None:
    assert explanation(sides=("image",)).text is None
    assert explanation(sides=("image",)).tokens == ()
    assert explanation(sides=("text",)).image is None


def test_repeats_come_with_their_spread() -> None:
    read = explanation(repeats=3)
    assert read.image is not None
    assert read.text is not None
    assert read.image.grid_std_bits == pytest.approx(read.image.grid_bits / 10)
    assert (read.image.stability, read.text.stability) == pytest.approx((0.9, 0.8))
    assert [token.std_bits for token in read.tokens] == pytest.approx([token.bits / 10 for token in read.tokens])
    assert read.provenance.settings.repeats == 3


def test_single_run_has_no_spread() -> None:
    read = explanation()
    assert read.image is not None
    assert read.text is not None
    assert (read.image.grid_std_bits, read.image.stability, read.text.stability) == (None, None, None)
    assert {token.std_bits for token in read.tokens} == {None}


def test_partial_answer_says_so_and_how_far_it_came() -> None:
    request = explain_request(np.zeros((30, 40), np.uint8), "a b")
    read = read_explanation(_answers.fake_explanation(request, _model.fake_model("fake"), steps=3))
    assert read.partial
    assert read.image is not None
    assert (len(read.image.trace), read.provenance.settings.steps) == (3, 10)
    assert not explanation().partial


def test_settings_of_a_server_from_before_efforts_are_the_published_ones() -> None:
    sent = message(beta=0.5)
    for name in ("effort", "text_beta", "repeats"):
        sent.provenance.settings.ClearField(name)
    settings = read_explanation(sent).provenance.settings
    assert (settings.effort, settings.text_beta, settings.repeats) == ("published", 0.5, 1)


def test_settings_without_a_mask_shape_of_the_text_have_one_for_both_sides() -> None:
    sent = message()
    sent.provenance.settings.mask_shape = settings_pb2.MASK_SHAPE_TOKEN
    sent.provenance.settings.ClearField("text_mask_shape")
    assert read_explanation(sent).provenance.settings.text_mask_shape == "token"
    sent.provenance.settings.text_mask_shape = settings_pb2.MASK_SHAPE_CHANNEL
    assert read_explanation(sent).provenance.settings.text_mask_shape == "channel"


def test_what_was_not_computed_again_is_told() -> None:
    sent = message()
    names = ("shared", "image_embedding_cached", "text_embedding_cached")
    assert [getattr(read_explanation(sent).provenance, name) for name in names] == [False] * 3
    for name in names:
        setattr(sent.provenance, name, True)
    assert [getattr(read_explanation(sent).provenance, name) for name in names] == [True] * 3


def test_model_tells_what_its_efforts_mean() -> None:
    model = read_model(_model.fake_model("fake"))
    assert set(model.defaults.efforts) == {"published", "fast", "specific", "thorough"}
    fast = model.defaults.efforts["fast"]
    assert (fast.mask_shape, fast.settings.steps, fast.settings.beta, fast.settings.text_beta) == ("token", 4, 0.2, 0.1)
    assert fast.text_mask_shape == "token"  # which the fake leaves to mask_shape, as packages were written before
    specific = model.defaults.efforts["specific"]
    assert (specific.mask_shape, specific.text_mask_shape) == ("channel", "token")
    assert (fast.repeats, model.defaults.efforts["thorough"].repeats) == (1, 4)
    limits = model.limits
    assert (limits.max_repeats, limits.max_batch_in_flight, limits.image_time_to_live_seconds) == (16, 8, 600)
    assert json.loads(json.dumps(model.to_dict()))["defaults"]["efforts"]["fast"]["settings"]["samples"] == 4


def test_tensor_has_no_fit() -> None:
    request = explain_request(np.zeros((3, 8, 8), np.float32), "a")
    read = read_explanation(_answers.fake_explanation(request, _model.fake_model("fake")))
    assert read.provenance.fit is None


def test_rank_without_references_is_not_poor() -> None:
    sent = message()
    sent.reference_rank.CopyFrom(attribution_pb2.ReferenceRank(rank=1))
    assert read_explanation(sent).reference_rank.better_fraction == 0

"""Checks the first half of the codec: the vocabulary is complete, and what cannot be meant is refused in words."""

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2ib.v1 import attribution_pb2, settings_pb2
from m2ib_client import InvalidRequestError, _channel, _options, _request

IMAGE = np.zeros((2, 2), np.uint8)
PNG_START = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("table", "enum", "names"),
    [
        (_request.SIDE_BY_NAME, settings_pb2.Side, _options.SideName),
        (_request.MASK_SHAPE_BY_NAME, settings_pb2.MaskShape, _options.MaskName),
        (_request.FIT_BY_NAME, settings_pb2.Fit, _options.FitName),
        (_request.EFFORT_BY_NAME, settings_pb2.Effort, _options.EffortName),
        (_request.PRIORITY_BY_NAME, attribution_pb2.Priority, _options.PriorityName),
        (_request.ON_DEADLINE_BY_NAME, attribution_pb2.OnDeadline, _options.OnDeadlineName),
        (_request.OUTPUT_BY_NAME, attribution_pb2.Output, _options.OutputName),
    ],
)
def test_every_enumerator_has_one_name(table: Any, enum: Any, names: Any) -> None:
    assert sorted(table.values()) == sorted(set(enum.values()) - {0})
    assert set(table) == set(get_args(names))


@given(
    beta=st.none() | st.floats(width=32, allow_nan=False),
    steps=st.none() | st.integers(0, 2**32 - 1),
    samples=st.none() | st.integers(0, 2**32 - 1),
    learning_rate=st.none() | st.floats(width=32, allow_nan=False),
    seed=st.none() | st.integers(0, 2**64 - 1),
    text_beta=st.none() | st.floats(width=32, allow_nan=False),
    repeats=st.none() | st.integers(0, 2**32 - 1),
)
def test_settings_arrive_as_given_and_unset_ones_stay_unset(**numbers: Any) -> None:
    settings = _request.explain_request(IMAGE, "a", **numbers).settings
    for name, number in numbers.items():
        assert settings.HasField(name) == (number is not None)
        assert number is None or getattr(settings, name) == number


def test_mask_shape_of_the_text_is_sent_only_where_it_is_given() -> None:
    shared = _request.explain_request(IMAGE, "a", mask_shape="token").settings
    assert not shared.HasField("text_mask_shape")
    own = _request.explain_request(IMAGE, "a", text_mask_shape="token").settings
    assert (own.mask_shape, own.text_mask_shape) == (0, settings_pb2.MASK_SHAPE_TOKEN)


@given(st.text())
def test_any_text_that_utf8_carries_arrives_unchanged(text: str) -> None:
    assert _request.explain_request(IMAGE, text).text == text


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"beta": "much"}, "settings.beta"),
        ({"steps": -1}, "settings.steps"),
        ({"steps": 1.5}, "settings.steps"),
        ({"samples": 2**32}, "settings.samples"),
        ({"seed": -1}, "settings.seed"),
        ({"seed": 2**64}, "settings.seed"),
        ({"mask_shape": "pixel"}, "settings.mask_shape"),
        ({"text_mask_shape": "pixel"}, "settings.text_mask_shape"),
        ({"effort": "heroic"}, "settings.effort"),
        ({"text_beta": "little"}, "settings.text_beta"),
        ({"repeats": 0.5}, "settings.repeats"),
        ({"priority": "now"}, "priority"),
        ({"on_deadline": "hurry"}, "on_deadline"),
        ({"fit": "tile"}, "fit"),
        ({"sides": ("sound",)}, "sides"),
        ({"sides": "image"}, "sides"),
        ({"outputs": ("film",)}, "outputs"),
        ({"outputs": [3]}, "outputs"),
        ({"model": 3}, "model"),
    ],
)
def test_option_that_cannot_be_meant_is_refused_by_field(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        _request.explain_request(IMAGE, "a", **options)
    assert caught.value.field == field
    assert caught.value.allowed


@pytest.mark.parametrize("text", [None, b"bytes", 3, ["a"]])
def test_text_of_another_kind_is_refused(text: Any) -> None:
    with pytest.raises(InvalidRequestError, match="text"):
        _request.explain_request(IMAGE, text)


def test_text_with_a_lone_surrogate_is_refused_without_repeating_it() -> None:
    with pytest.raises(InvalidRequestError, match="lone surrogate") as caught:
        _request.explain_request(IMAGE, "Smith \ud800")
    assert "Smith" not in str(caught.value)


def test_request_above_the_message_limit_is_refused_before_it_is_sent() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        _request.explain_request(PNG_START.ljust(_channel.MAX_MESSAGE_BYTES + 1), "a")
    assert caught.value.reason == "MESSAGE_TOO_LARGE"


def test_message_limit_is_the_callers_to_raise_and_to_lower() -> None:
    large = PNG_START.ljust(_channel.MAX_MESSAGE_BYTES + 1)
    assert _request.explain_request(large, "a", max_message_bytes=2 * len(large)).image.encoded == large
    for make in (_request.explain_request, _request.score_request):
        with pytest.raises(InvalidRequestError, match="at most 100 bytes"):
            make(PNG_START.ljust(101), "a", max_message_bytes=100)


@pytest.mark.parametrize(
    ("images", "texts", "shape"),
    [
        (IMAGE, "a", (1, 1)),
        ([IMAGE, IMAGE], "a", (2, 1)),
        (IMAGE, ("a", "b"), (1, 2)),
        ((IMAGE, IMAGE), ["a", "b", "c"], (2, 3)),
    ],
)
def test_score_takes_one_or_many_of_either(images: Any, texts: Any, shape: tuple[int, int]) -> None:
    request = _request.score_request(images, texts, fit="stretch", frame=2)
    assert (len(request.images), len(request.texts)) == shape
    assert request.fit == settings_pb2.FIT_STRETCH
    assert all(image.frame == 2 for image in request.images)

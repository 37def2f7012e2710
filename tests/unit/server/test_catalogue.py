import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2ib_server.engine import LoadedModel
from m2ib_server.package import open_package
from m2ib_server.text import EncodedText


@pytest.fixture(scope="module")
def model(tiny_package):
    return LoadedModel(open_package(tiny_package))


def pixels_of(model, changes):
    pixels = np.zeros(model.model_input.shape, dtype=np.float32)
    for index, value in changes:
        pixels.flat[index % pixels.size] = value
    return pixels


CHANGES = st.lists(
    st.tuples(st.integers(0, 10_000), st.floats(width=32, allow_nan=False, allow_infinity=False)), max_size=4
)


@given(CHANGES, CHANGES)
@settings(deadline=None)
def test_two_images_share_an_entry_only_if_every_pixel_is_the_same(model, first, second):
    ours, theirs = pixels_of(model, first), pixels_of(model, second)
    same = model.image_input(ours).digest == model.image_input(theirs).digest
    assert same == (ours.tobytes() == theirs.tobytes())


TOKENS = st.lists(st.integers(0, 300), min_size=1, max_size=6)


@given(TOKENS, TOKENS)
@settings(deadline=None)
def test_two_texts_share_an_entry_only_if_their_tokens_are_the_same(model, first, second):
    texts = [
        EncodedText(text="", token_ids=tuple(ids), spans=(None,) * len(ids), tokens_given=len(ids))
        for ids in (first, second)
    ]
    inputs = [model.text_input(text) for text in texts]
    assert (inputs[0].digest == inputs[1].digest) == (first == second)

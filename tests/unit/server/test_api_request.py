"""Requests are read without work that a caller could make large."""

import time

import numpy as np
import pytest

from m2ib.v1 import settings_pb2
from m2ib_server.api.request import read_sides, read_tensor
from m2ib_server.errors import InvalidField, TensorInvalid
from m2ib_server.methods import Side

BOTH = (Side.IMAGE, Side.TEXT)


def test_a_tensor_is_read_with_its_shape():
    values = np.arange(24, dtype="<f4").reshape(2, 3, 4)
    read = read_tensor("image.tensor", settings_pb2.FloatTensor(shape=values.shape, data=values.tobytes()))
    np.testing.assert_array_equal(read, values)


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([2**32 - 1] * 100_000, b""),
        ([1] * 100, b"1234"),
        ([1], b"1234"),
        ([], b"1234"),
        ([0, 1, 1], b""),
        ([2**32 - 1] * 3, b"1234"),
    ],
    ids=["endless", "beyond numpy", "one", "none", "zero", "huge"],
)
def test_a_tensor_of_another_shape_is_refused_at_once_and_in_few_words(shape, data):
    started = time.monotonic()
    with pytest.raises(TensorInvalid) as caught:
        read_tensor("image.tensor", settings_pb2.FloatTensor(shape=shape, data=data))
    assert time.monotonic() - started < 0.5
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("sides", "read"),
    [
        ([], BOTH),
        ([settings_pb2.SIDE_UNSPECIFIED], BOTH),
        ([settings_pb2.SIDE_UNSPECIFIED, settings_pb2.SIDE_UNSPECIFIED], BOTH),
        ([settings_pb2.SIDE_TEXT], (Side.TEXT,)),
        ([settings_pb2.SIDE_UNSPECIFIED, settings_pb2.SIDE_TEXT], (Side.TEXT,)),
    ],
)
def test_a_side_that_is_not_said_is_passed_over_and_none_said_means_both(sides, read):
    assert read_sides(sides) == read


def test_a_side_twice_is_refused():
    with pytest.raises(InvalidField, match="twice"):
        read_sides([settings_pb2.SIDE_TEXT, settings_pb2.SIDE_TEXT])

"""What a hostile tensor may try, and that honest ones come back as they were sent."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2ib.oip import inference_pb2 as oip
from m2ib_server.errors import InvalidField, TensorInvalid
from m2ib_server.oip.tensors import count_elements, decode_bytes, encode_bytes, encode_fp32, read_elements

NAMES = ("image", "text")
Input = oip.ModelInferRequest.InferInputTensor


def request(*, shape=(1,), datatype="BYTES", raw=(b"pixels", b"a cat"), names=NAMES, **changes):
    tensors = [Input(name=name, datatype=datatype, shape=shape) for name in names]
    return oip.ModelInferRequest(
        **{"inputs": tensors, "raw_input_contents": [encode_bytes([each]) for each in raw], **changes}
    )


def typed(**contents):
    return Input(name="image", datatype="BYTES", shape=[1], contents=oip.InferTensorContents(**contents))


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_bytes_come_back_as_they_went(elements):
    assert decode_bytes("raw", encode_bytes(elements), len(elements)) == elements


@given(st.binary(max_size=64), st.integers(0, 6))
def test_any_bytes_are_read_whole_or_refused(raw, count):
    try:
        elements = decode_bytes("raw", raw, count)
    except TensorInvalid:
        return
    assert encode_bytes(elements) == raw
    assert len(elements) == count


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=4), st.data())
def test_bytes_that_are_cut_off_anywhere_are_refused(elements, data):
    whole = encode_bytes(elements)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(TensorInvalid):
        decode_bytes("raw", whole[:cut], len(elements))


def test_a_length_beyond_the_message_allocates_nothing():
    with pytest.raises(TensorInvalid, match="end within element 0"):
        decode_bytes("raw", struct.pack("<I", 2**32 - 1) + b"x", 1)


def test_a_count_beyond_the_message_ends_at_once():
    with pytest.raises(TensorInvalid, match="end before element 0"):
        decode_bytes("raw", b"", 2**62)


@given(st.lists(st.floats(width=32), max_size=20))
def test_numbers_are_written_as_float32_little_endian(values):
    assert encode_fp32(values) == b"".join(struct.pack("<f", value) for value in values)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=12))
def test_a_shape_is_counted_without_overflow_or_refused(shape):
    try:
        count = count_elements("shape", shape, 1000)
    except TensorInvalid:
        return
    assert 0 <= count <= 1000
    assert all(size >= 0 for size in shape)


@pytest.mark.parametrize(
    ("shape", "seen"),
    [
        ((2**32, 2**32, 2**32, 2**32), "elements"),
        ((2**63 - 1, 2), "elements"),
        ((-1,), "a negative size"),
        ((-1, -1), "a negative size"),
        ((1,) * 9, "9 dimensions"),
        ((0,), "0 elements in 1 dimensions"),
        ((), "1 elements in 0 dimensions"),
        ((1, 1), "1 elements in 2 dimensions"),
        ((2,), "2 elements"),
    ],
)
def test_shapes_other_than_one_element_are_refused(shape, seen):
    with pytest.raises(TensorInvalid, match=seen):
        read_elements(request(shape=shape), NAMES)


def test_inputs_are_taken_in_any_order():
    assert read_elements(request(), NAMES) == {"image": b"pixels", "text": b"a cat"}
    assert read_elements(request(names=NAMES[::-1]), NAMES) == {"text": b"pixels", "image": b"a cat"}


@pytest.mark.parametrize("raw", [(b"pixels",), (b"pixels", b"a cat", b"more")])
def test_another_number_of_raw_contents_than_of_inputs_is_refused(raw):
    with pytest.raises(TensorInvalid, match=r"raw_input_contents: seen \d entries"):
        read_elements(request(raw=raw), NAMES)


def test_typed_and_raw_contents_together_are_refused():
    wire = request()
    wire.inputs[0].contents.bytes_contents.append(b"pixels")
    with pytest.raises(TensorInvalid, match=r"inputs\.image\.contents: seen contents beside"):
        read_elements(wire, NAMES)


def test_typed_contents_are_read():
    wire = oip.ModelInferRequest(inputs=[typed(bytes_contents=[b"pixels"])])
    assert read_elements(wire, ["image"]) == {"image": b"pixels"}


@pytest.mark.parametrize(
    "contents",
    [{}, {"bytes_contents": [b"one", b"two"]}, {"int_contents": [1]}, {"bytes_contents": [b"x"], "fp32_contents": [1]}],
)
def test_typed_contents_of_another_type_or_number_are_refused(contents):
    with pytest.raises(TensorInvalid, match=r"inputs\.image\.contents"):
        read_elements(oip.ModelInferRequest(inputs=[typed(**contents)]), ["image"])


def test_another_datatype_is_refused_by_its_field():
    with pytest.raises(TensorInvalid, match=r"inputs\.image\.datatype: seen another datatype; allowed: BYTES"):
        read_elements(request(datatype="Zebrafinch"), NAMES)


@pytest.mark.parametrize(
    ("names", "field"),
    [
        (("image",), r"inputs\.text: seen 0"),
        (("image", "image"), r"inputs\.image: seen 2"),
        (("image", "Zebrafinch"), r"inputs\[1\]\.name: seen a name"),
        (("image", "text", "text"), "inputs: seen 3 inputs"),
    ],
)
def test_inputs_that_are_missing_unknown_or_twice_are_refused(names, field):
    with pytest.raises(InvalidField, match=field) as caught:
        read_elements(request(names=names), NAMES)
    assert "Zebrafinch" not in str(caught.value)


@pytest.mark.parametrize("name", ["shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"])
def test_shared_memory_is_refused_before_the_contents_are_counted(name):
    wire = request(raw=(b"a cat",))
    wire.inputs[0].parameters[name].string_param = "Zebrafinch"
    with pytest.raises(InvalidField, match=r"inputs\[0\]\.parameters: seen shared memory"):
        read_elements(wire, NAMES)


def test_hints_of_the_rest_encoding_are_passed_over_and_other_parameters_refused():
    wire = request()
    wire.inputs[0].parameters["binary_data_size"].int64_param = 10
    assert read_elements(wire, NAMES)["image"] == b"pixels"
    wire.inputs[0].parameters["zebrafinch"].int64_param = 10
    with pytest.raises(InvalidField, match="a parameter that is not known"):
        read_elements(wire, NAMES)

"""The Open Inference Protocol under broken requests: shapes that lie, lengths that overrun, raw and typed mixed."""

import struct

import pytest
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from fakes.image_files import SEEDS
from knock import CANARY, STATUSES, check, check_serves_on, knock
from m2ib.oip import inference_pb2 as oip
from mutants import TEXTS, damaged, fuzzed, mutants
from wire import png

SERVICE = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"]
METHODS = {method.name: method for method in SERVICE.methods}
ALLOWED = STATUSES[SERVICE.full_name]
INFERRING = ("ModelInfer", "ModelStreamInfer")
PICTURE = png()
TEXT = f"{CANARY} and a dog".encode()


def element(encoded: bytes) -> bytes:
    return struct.pack("<I", len(encoded)) + encoded


def infer(*, typed: bool = False) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name="tiny", id=CANARY)
    for name, encoded in (("image", PICTURE), ("text", TEXT)):
        tensor = request.inputs.add(name=name, datatype="BYTES", shape=[1])
        if typed:
            tensor.contents.bytes_contents.append(encoded)
        else:
            request.raw_input_contents.append(element(encoded))
    request.parameters["m2ib_steps"].int64_param = 1
    request.parameters["m2ib_samples"].int64_param = 2
    return request


def typed_infer() -> oip.ModelInferRequest:
    return infer(typed=True)


def good_of(name: str):
    """A good message of a method."""
    if name in INFERRING:
        return infer
    kind = GetMessageClass(METHODS[name].input_type)
    return lambda: kind(name="tiny") if "name" in kind.DESCRIPTOR.fields_by_name else kind()


def send(channel, name: str, sent: list[bytes]) -> None:
    ending = knock(channel, METHODS[name], sent)
    check(ending, ALLOWED[name])
    if name == "ModelStreamInfer":
        for message in map(oip.ModelStreamInferResponse.FromString, ending.answers):
            assert CANARY.lower() not in message.error_message.lower()
            assert "internal" not in message.error_message
    if name == "ModelInfer":
        for message in map(oip.ModelInferResponse.FromString, ending.answers):
            assert len(message.raw_output_contents) == len(message.outputs)


def test_every_method_has_its_statuses_written_down():
    assert set(METHODS) == set(ALLOWED)


@pytest.mark.parametrize("typed", [False, True])
def test_good_inferences_are_answered(narrow_channel, typed):
    sent = [infer(typed=typed).SerializeToString()]
    assert knock(narrow_channel, METHODS["ModelInfer"], sent).code == "OK"
    streamed = knock(narrow_channel, METHODS["ModelStreamInfer"], sent)
    (answer,) = map(oip.ModelStreamInferResponse.FromString, streamed.answers)
    assert not answer.error_message


@pytest.mark.parametrize("name", METHODS)
@fuzzed(8)
@given(data=st.data())
def test_changed_messages_and_damaged_bytes_are_answered(narrow_channel, name, data):
    good = good_of(name)
    send(narrow_channel, name, [data.draw(mutants(good)).SerializeToString()])
    send(narrow_channel, name, [data.draw(damaged(good().SerializeToString() or b"\x08\x01"))])


@fuzzed(80)
@given(request=mutants(infer, most=5) | mutants(typed_infer, most=5))
def test_changed_inferences_are_answered(narrow_channel, request):
    send(narrow_channel, "ModelInfer", [request.SerializeToString()])


SIZES = st.sampled_from([0, 1, 2, -1, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63)])
DATATYPES = ["BYTES", "FP32", "FP16", "BF16", "BOOL", "UINT8", "INT64", "", CANARY]
LENGTHS = st.sampled_from([0, 1, 3, 2**31 - 1, 2**31, 2**32 - 1])


@st.composite
def inferences(draw) -> oip.ModelInferRequest:
    """Inferences whose tensors say one thing and hold another."""
    request = infer(typed=draw(st.booleans()))
    for _ in range(draw(st.integers(1, 3))):
        tensor = request.inputs[draw(st.integers(0, 1))]
        match draw(st.sampled_from(["shape", "datatype", "contents", "raw", "length", "parameter", "twice", "output"])):
            case "shape":
                tensor.shape[:] = draw(st.lists(SIZES, max_size=10))
            case "datatype":
                tensor.datatype = draw(st.sampled_from(DATATYPES))
            case "contents":
                tensor.contents.bytes_contents.append(draw(st.binary(max_size=8)))
                tensor.contents.fp32_contents.extend(draw(st.lists(st.floats(width=32), max_size=2)))
            case "raw":
                request.raw_input_contents.append(draw(st.binary(max_size=12)))
            case "length":
                del request.raw_input_contents[:]
                lying = struct.pack("<I", draw(LENGTHS)) + draw(st.sampled_from([b"", PICTURE, TEXT, b"\0\0\0"]))
                request.raw_input_contents.extend([lying, element(TEXT)][:: draw(st.sampled_from([1, -1]))])
            case "parameter":
                name = draw(
                    st.sampled_from(
                        [
                            "shared_memory_region",
                            "shared_memory_byte_size",
                            "classification",
                            "binary_data_size",
                            CANARY,
                        ]
                    )
                )
                tensor.parameters[name].string_param = f"/{CANARY}"
            case "twice":
                request.inputs.add().CopyFrom(tensor)
            case "output":
                names = ["grid", "map", "tokens", "token_scores", "similarity", "", CANARY]
                request.outputs.add(name=draw(st.sampled_from(names)))
    return request


@fuzzed(120)
@given(request=inferences())
def test_tensors_that_lie_are_answered(narrow_channel, request):
    send(narrow_channel, "ModelInfer", [request.SerializeToString()])


PARAMETERS = [
    *("m2ib_beta", "m2ib_text_beta", "m2ib_steps", "m2ib_samples", "m2ib_learning_rate", "m2ib_seed", "m2ib_repeats"),
    *("m2ib_mask_shape", "m2ib_effort", "m2ib_fit", "m2ib_frame", "m2ib_progress", "m2ib_window_center", "m2ib_x"),
    *("timeout", "priority", "sequence_id", "sequence_start", "binary_data_output", "triton_final_response", CANARY),
]
VALUES = (
    st.tuples(st.just("int64_param"), st.sampled_from([0, 1, 2, -1, 21, 2**31, 2**63 - 1, -(2**63)]))
    | st.tuples(st.just("uint64_param"), st.sampled_from([0, 1, 2**63, 2**64 - 1]))
    | st.tuples(st.just("double_param"), st.sampled_from([0.0, 0.5, 1e308, float("nan"), float("inf"), -1.0]))
    | st.tuples(st.just("string_param"), TEXTS)
    | st.tuples(st.just("bool_param"), st.booleans())
)


@fuzzed(80)
@given(given_parameters=st.dictionaries(st.sampled_from(PARAMETERS), VALUES, min_size=1, max_size=3))
def test_parameters_are_answered(narrow_channel, given_parameters):
    request = infer()
    for name, (kind, value) in given_parameters.items():
        setattr(request.parameters[name], kind, value)
    for method in INFERRING:
        send(narrow_channel, method, [request.SerializeToString()])


@fuzzed(30)
@given(data=st.data(), seed=st.sampled_from(sorted(SEEDS)))
def test_damaged_images_are_answered(narrow_channel, data, seed):
    request = infer()
    request.raw_input_contents[0] = element(data.draw(damaged(SEEDS[seed]())))
    send(narrow_channel, "ModelInfer", [request.SerializeToString()])


def test_after_all_that_the_server_serves_and_has_said_nothing(narrow_server, narrow_channel):
    check_serves_on(narrow_server, narrow_channel)

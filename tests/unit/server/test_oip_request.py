"""What a request's parameters and outputs become, and what is refused of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2ib.oip import inference_pb2 as oip
from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import settings_pb2
from m2ib_server.api import request as native
from m2ib_server.api.call import Call
from m2ib_server.errors import ImageUndecodable, InvalidField, ServiceError, SettingOutOfRange
from m2ib_server.oip.outputs import OUTPUTS
from m2ib_server.oip.parameters import FIELDS, READERS, read_parameters, renamed_faults
from m2ib_server.oip.request import INPUTS, read_request
from m2ib_server.oip.servicer import tighten
from m2ib_server.oip.tensors import encode_bytes

Parameter = oip.InferParameter
Wanted = oip.ModelInferRequest.InferRequestedOutputTensor


def wire(parameters=None, outputs=(), text=b"a cat", **changes):
    kinds = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
    said = {
        name: value if isinstance(value, Parameter) else Parameter(**{kinds[type(value)]: value})
        for name, value in (parameters or {}).items()
    }
    return oip.ModelInferRequest(
        inputs=[oip.ModelInferRequest.InferInputTensor(name=name, datatype="BYTES", shape=[1]) for name in INPUTS],
        raw_input_contents=[encode_bytes([b"pixels"]), encode_bytes([text])],
        parameters=said,
        outputs=[Wanted(name=name) for name in outputs],
        **changes,
    )


def read(*args, is_stream=False, **kwargs):
    return read_request(wire(*args, **kwargs), is_stream=is_stream)


def test_every_parameter_sets_its_field():
    pair = read(
        {
            "m2ib_beta": 0.5,
            "m2ib_text_beta": 2,
            "m2ib_learning_rate": 0.25,
            "m2ib_steps": 3,
            "m2ib_samples": Parameter(uint64_param=4),
            "m2ib_repeats": 2,
            "m2ib_seed": Parameter(uint64_param=2**64 - 1),
            "m2ib_effort": "specific",
            "m2ib_mask_shape": "token",
            "m2ib_text_mask_shape": "channel",
            "m2ib_fit": "centre_crop",
            "m2ib_frame": 5,
            "m2ib_window_center": -600.0,
            "m2ib_window_width": 1500,
            "m2ib_truncate_text": True,
            "m2ib_on_deadline": "partial",
        }
    ).pair
    assert pair == pb.ExplainRequest(
        image=pb.Image(encoded=b"pixels", frame=5, window=pb.Window(center=-600, width=1500)),
        text="a cat",
        sides=[settings_pb2.SIDE_IMAGE, settings_pb2.SIDE_TEXT],
        settings=settings_pb2.Settings(
            beta=0.5,
            text_beta=2,
            learning_rate=0.25,
            steps=3,
            samples=4,
            repeats=2,
            seed=2**64 - 1,
            effort=settings_pb2.EFFORT_SPECIFIC,
            mask_shape=settings_pb2.MASK_SHAPE_TOKEN,
            text_mask_shape=settings_pb2.MASK_SHAPE_CHANNEL,
        ),
        fit=settings_pb2.FIT_CENTRE_CROP,
        truncate_text=True,
        on_deadline=pb.ON_DEADLINE_PARTIAL,
    )


def test_there_is_a_parameter_for_every_setting():
    assert {f"settings.{field.name}" for field in settings_pb2.Settings.DESCRIPTOR.fields} <= READERS.keys()
    assert len(FIELDS) == len(READERS)


@pytest.mark.parametrize(
    ("name", "enum"),
    [
        ("m2ib_effort", settings_pb2.Effort),
        ("m2ib_mask_shape", settings_pb2.MaskShape),
        ("m2ib_fit", settings_pb2.Fit),
        ("m2ib_on_deadline", pb.OnDeadline),
    ],
)
def test_every_choice_of_the_contract_has_a_word(name, enum):
    with pytest.raises(InvalidField) as caught:
        read({name: "Zebrafinch"})
    assert len(caught.value.allowed.split(", ")) == len(enum.values()) - 1
    assert "Zebrafinch" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("m2ib_steps", -1, "seen -1; allowed: a whole number from 0 to 4294967295"),
        ("m2ib_steps", 2**32, "seen 4294967296; allowed"),
        ("m2ib_steps", 2.0, "seen a number with a fraction; allowed: a whole number"),
        ("m2ib_steps", True, "seen a truth value; allowed: a whole number"),
        ("m2ib_seed", -1, "seen -1; allowed"),
        ("m2ib_beta", "0.5", "seen a string; allowed: a number"),
        ("m2ib_beta", True, "seen a truth value; allowed: a number"),
        ("m2ib_beta", Parameter(), "seen no value; allowed: a number"),
        ("m2ib_effort", 1, "seen a whole number; allowed: one of the strings published, fast"),
        ("m2ib_truncate_text", 1, "seen a whole number; allowed: true or false"),
        ("timeout", -1, "seen -1; allowed"),
        ("timeout", "soon", "seen a string; allowed"),
        ("priority", 1.5, "seen a number with a fraction; allowed"),
    ],
)
def test_a_parameter_of_another_type_or_range_is_refused_by_its_name(name, value, text):
    with pytest.raises(InvalidField) as caught:
        read({name: value})
    assert str(caught.value).startswith(f"parameters.{name}: {text}")


@pytest.mark.parametrize("name", ["m2ib_zebrafinch", "zebrafinch", "beta", "triton_zebrafinch"])
def test_an_unknown_parameter_is_refused_and_not_repeated(name):
    with pytest.raises(InvalidField, match="a parameter that is not known") as caught:
        read({name: 1})
    assert "zebrafinch" not in str(caught.value)
    assert "m2ib_beta" in caught.value.allowed


@pytest.mark.parametrize(("given", "missing"), [("center", "width"), ("width", "center")])
def test_half_a_window_is_refused(given, missing):
    with pytest.raises(InvalidField, match=rf"parameters\.m2ib_window_{missing}: seen no value"):
        read({f"m2ib_window_{given}": 40.0})


def test_what_only_a_stream_does_is_refused_elsewhere():
    for name in ("m2ib_progress", "m2ib_partial_grids"):
        with pytest.raises(InvalidField, match="except in ModelStreamInfer"):
            read({name: True})
        assert read({name: True}, is_stream=True).parameters.progress
        assert not read({name: False}).parameters.progress


def test_the_protocol_s_own_parameters_are_taken():
    asked = read({"timeout": 5, "priority": Parameter(uint64_param=3), "triton_enable_empty_final_response": True})
    assert asked.parameters.timeout_us == 5
    assert asked.pair.priority == pb.PRIORITY_BULK
    assert read({"priority": Parameter(uint64_param=1)}).pair.priority == pb.PRIORITY_INTERACTIVE
    assert read({"priority": Parameter(uint64_param=0)}).pair.priority == pb.PRIORITY_UNSPECIFIED


def test_a_sequence_is_refused():
    with pytest.raises(InvalidField, match="seen a sequence"):
        read({"sequence_id": 7, "sequence_start": True})


VALUES = st.one_of(
    st.just(Parameter()),
    st.booleans().map(lambda value: Parameter(bool_param=value)),
    st.integers(-(2**63), 2**63 - 1).map(lambda value: Parameter(int64_param=value)),
    st.integers(0, 2**64 - 1).map(lambda value: Parameter(uint64_param=value)),
    st.floats().map(lambda value: Parameter(double_param=value)),
    st.text(max_size=12).map(lambda value: Parameter(string_param=value)),
)


@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), VALUES, max_size=4))
def test_whatever_stands_in_a_parameter_is_read_or_refused(said):
    try:
        values = read_parameters(said, is_stream=False).values
    except ServiceError as error:
        assert error.reason in ("INVALID_FIELD", "SETTING_OUT_OF_RANGE")
    else:
        assert values.keys() == {FIELDS[name] for name in said}


def test_outputs_decide_which_sides_are_explained():
    assert list(read(outputs=["map"]).pair.sides) == [settings_pb2.SIDE_IMAGE]
    assert list(read(outputs=["token_scores", "similarity"]).pair.sides) == [settings_pb2.SIDE_TEXT]
    assert list(read(outputs=["tokens", "grid"]).pair.sides) == [settings_pb2.SIDE_IMAGE, settings_pb2.SIDE_TEXT]
    assert list(read(outputs=["similarity"]).pair.sides) == [settings_pb2.SIDE_IMAGE]


def test_outputs_are_asked_for_by_name_and_kept_in_order():
    asked = read(outputs=["overlay", "similarity", "original_map", "map"])
    assert [output.name for output in asked.outputs] == ["overlay", "similarity", "original_map", "map"]
    assert native.read_outputs(asked.pair.outputs) == {
        pb.OUTPUT_OVERLAY,
        pb.OUTPUT_ORIGINAL_MAP,
        pb.OUTPUT_MODEL_MAP,
    }


@pytest.mark.parametrize("outputs", [["zebrafinch"], ["grid", "grid"], ["grid"] * 1000])
def test_outputs_that_are_unknown_or_twice_are_refused(outputs):
    with pytest.raises(InvalidField, match=r"^outputs") as caught:
        read(outputs=outputs)
    assert "zebrafinch" not in str(caught.value)


def test_an_output_s_classes_and_shared_memory_are_refused():
    for name in ("classification", "shared_memory_region", "zebrafinch"):
        asked = wire(outputs=["grid"])
        asked.outputs[0].parameters[name].int64_param = 1
        with pytest.raises(InvalidField, match=r"outputs\[0\]\.parameters"):
            read_request(asked, is_stream=False)


def test_outputs_of_a_side_that_a_partial_answer_lacks_have_no_elements():
    nothing = pb.Explanation(partial=True)
    for output in OUTPUTS:
        tensor = output.write(nothing)
        if output.side is not None:
            assert (0 in tensor.shape, tensor.raw) == (True, b"")


def test_a_text_that_is_no_utf_8_is_refused():
    with pytest.raises(InvalidField, match=r"inputs\.text: seen 2 bytes that are no text"):
        read(text=b"\xff\xfe")


def test_an_id_that_is_too_long_is_refused():
    with pytest.raises(InvalidField, match="id: seen 257 characters"):
        read(id="x" * 257)


def test_the_raw_image_is_not_held_twice():
    asked = wire()
    read_request(asked, is_stream=False)
    assert not asked.raw_input_contents


@pytest.mark.parametrize(
    ("fault", "field"),
    [
        (SettingOutOfRange("settings.beta", seen="-1", allowed="more"), "parameters.m2ib_beta"),
        (ImageUndecodable("image.encoded", seen="bytes", allowed="an image"), "inputs.image"),
        (InvalidField("image.window", seen="odd", allowed="even"), "parameters.m2ib_window_width"),
        (InvalidField("image.frame", seen="9", allowed="1"), "parameters.m2ib_frame"),
        (InvalidField("text", seen="9 characters", allowed="8"), "inputs.text"),
        (InvalidField("outputs", seen="much", allowed="less"), "outputs"),
    ],
)
def test_faults_name_what_the_caller_sent(fault, field):
    with pytest.raises(type(fault)) as caught, renamed_faults():
        raise fault
    assert (caught.value.field, caught.value.seen) == (field, fault.seen)


def test_a_timeout_moves_a_deadline_forward_and_never_back():
    call = Call(service="", method="", deadline_ns=None, started=10.0)
    tighten(call, 0)
    assert call.deadline_ns is None
    tighten(call, 2_000_000)
    assert call.deadline_ns == 12_000_000_000
    tighten(call, 5_000_000)
    assert call.deadline_ns == 12_000_000_000
    tighten(call, 1)
    assert call.deadline_ns == 10_000_001_000

"""Whatever is sent to whichever method: a documented status in time, not a word of the caller's, and it serves on."""

import hashlib

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

from fakes.image_files import SEEDS
from film_mutants import films
from good_calls import GOOD, QUICK, TENSOR
from knock import CANARY, STATUSES, check, check_pairs, check_serves_on, knock
from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import settings_pb2
from mutants import damaged, fuzzed, mutants
from wire import explain_request

SERVICE = pb.DESCRIPTOR.services_by_name["AttributionService"]
METHODS = {method.name: method for method in SERVICE.methods}
CASES = pytest.mark.parametrize("name", METHODS)


def send(channel: grpc.Channel, method: MethodDescriptor, sent: list[bytes]) -> None:
    ending = knock(channel, method, sent)
    check(ending, STATUSES[SERVICE.full_name][method.name])
    match method.name:
        case "ExplainBatch":
            check_pairs(ending.answers)
        case "Explain":
            for explanation in (pb.ExplainResponse.FromString(answer).explanation for answer in ending.answers):
                assert np.isfinite(np.frombuffer(explanation.image.grid_bits.data, "<f4")).all()
                assert np.isfinite([token.bits for token in explanation.text.tokens]).all()
        case "Score":
            for answer in map(pb.ScoreResponse.FromString, ending.answers):
                assert (np.abs(np.frombuffer(answer.similarities.data, "<f4")) <= 1 + 1e-5).all()


def test_every_method_is_fuzzed_and_has_its_statuses_written_down():
    assert set(GOOD) == set(METHODS) == set(STATUSES[SERVICE.full_name])
    for name, messages in GOOD.items():
        assert {type(message()) for message in messages} == {GetMessageClass(METHODS[name].input_type)}


@CASES
def test_good_calls_are_answered(narrow_channel, name):
    """Else the fuzzing would begin at a closed door."""
    ending = knock(narrow_channel, METHODS[name], [message().SerializeToString() for message in GOOD[name]])
    assert ending.code == "OK", ending
    if name == "ExplainBatch":
        answers = map(pb.ExplainBatchResponse.FromString, ending.answers)
        assert [answer.WhichOneof("outcome") for answer in answers] == ["explanation"] * 3


@CASES
@fuzzed(25)
@given(data=st.data())
def test_changed_messages_are_answered(narrow_channel, name, data):
    sent = [data.draw(mutants(good)).SerializeToString() for good in GOOD[name]]
    send(narrow_channel, METHODS[name], sent)


@CASES
@fuzzed(15)
@given(data=st.data())
def test_damaged_bytes_are_answered(narrow_channel, name, data):
    sent = [data.draw(damaged(good().SerializeToString() or b"\x08\x01")) for good in GOOD[name]]
    send(narrow_channel, METHODS[name], sent)


@CASES
@fuzzed(10)
@given(sent=st.lists(st.binary(max_size=200), min_size=1, max_size=3))
def test_random_bytes_are_answered(narrow_channel, name, sent):
    send(narrow_channel, METHODS[name], sent)


@fuzzed(60)
@given(asked=mutants(lambda: settings_pb2.Settings(steps=1, samples=2), most=4))
def test_settings_are_answered(narrow_channel, asked):
    request = explain_request(text=CANARY, image=pb.Image(tensor=TENSOR), settings=asked)
    send(narrow_channel, METHODS["Explain"], [request.SerializeToString()])


SIZES = st.sampled_from([0, 1, 2, 3, 32, 31, 33, 2**16, 2**31 - 1, 2**31, 2**32 - 1])
VALUES = st.sampled_from([0.0, -0.0, 1e-45, -1e4, 1e4, 10001.0, 3.4e38, float("nan"), float("inf"), -float("inf")])


@st.composite
def tensors(draw) -> settings_pb2.FloatTensor:
    """Wrong shapes, or wrong sizes, or the right ones with values that no image has."""
    match draw(st.sampled_from(["shape", "size", "values"])):
        case "shape":
            data = draw(st.sampled_from([b"", b"\0" * 4, TENSOR.data, b"\xff" * 64]))
            return settings_pb2.FloatTensor(shape=draw(st.lists(SIZES, max_size=5)), data=data)
        case "size":
            data = TENSOR.data + draw(st.binary(max_size=9))
            return settings_pb2.FloatTensor(shape=TENSOR.shape, data=data[draw(st.integers(0, len(data))) :])
    values = np.full((3, 32, 32), draw(VALUES), "<f4")
    values[:, :16] = draw(VALUES)
    values[0, 0, 0] = draw(VALUES)
    return settings_pb2.FloatTensor(shape=values.shape, data=values.tobytes())


@fuzzed(60)
@given(tensor=tensors())
def test_tensors_are_answered(narrow_channel, tensor):
    request = explain_request(text=CANARY, image=pb.Image(tensor=tensor), settings=QUICK)
    send(narrow_channel, METHODS["Explain"], [request.SerializeToString()])
    scored = pb.ScoreRequest(images=[pb.Image(tensor=tensor)] * 2, texts=[CANARY])
    send(narrow_channel, METHODS["Score"], [scored.SerializeToString()])


@fuzzed(100)
@given(data=st.data(), seed=st.sampled_from(sorted(SEEDS)))
def test_damaged_images_are_answered(narrow_channel, data, seed):
    image = pb.Image(encoded=data.draw(damaged(SEEDS[seed]())))
    request = explain_request(text=CANARY, image=image, settings=QUICK, outputs=[pb.OUTPUT_OVERLAY])
    send(narrow_channel, METHODS["Explain"], [request.SerializeToString()])


@fuzzed(60)
@given(film=films())
def test_films_with_broken_elements_are_answered(narrow_channel, film):
    request = explain_request(text=CANARY, image=pb.Image(encoded=film), settings=QUICK)
    send(narrow_channel, METHODS["Explain"], [request.SerializeToString()])


@fuzzed(20)
@given(data=st.data(), seed=st.sampled_from(sorted(SEEDS)))
def test_damaged_uploads_are_answered_and_their_handles_too(narrow_channel, data, seed):
    encoded = data.draw(damaged(SEEDS[seed]()))
    announced = pb.UploadHeader(size_bytes=len(encoded), sha256=hashlib.sha256(encoded).hexdigest())
    parts = [pb.UploadImageRequest(header=announced), *([pb.UploadImageRequest(chunk=encoded)] if encoded else [])]
    ending = knock(narrow_channel, METHODS["UploadImage"], [part.SerializeToString() for part in parts])
    check(ending, STATUSES[SERVICE.full_name]["UploadImage"])
    for answer in ending.answers:
        image = pb.Image(handle=pb.UploadImageResponse.FromString(answer).handle)
        request = explain_request(text=CANARY, image=image, settings=QUICK)
        send(narrow_channel, METHODS["Explain"], [request.SerializeToString()])


def test_after_all_that_the_server_serves_and_has_said_nothing(narrow_server, narrow_channel):
    check_serves_on(narrow_server, narrow_channel)

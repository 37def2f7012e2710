"""Calls every method of the Open Inference Protocol, well and badly, with canaries in whatever holds text."""

import struct
from collections.abc import Callable, Mapping
from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass

from canary import BROKEN, FILM, HEADER, MODEL, NO_PIXELS, PAIR, PATIENT, PICTURES, TEXT, Said
from m2ib.oip import inference_pb2 as oip
from m2ib.oip import inference_pb2_grpc

SECONDS = 60
SERVICE = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"]
NOT_OFFERED = {method.name for method in SERVICE.methods if method.output_type.name == "UnimplementedResponse"}


def infer(image: bytes = FILM, text: bytes = TEXT.encode(), **changes: Any) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name="tiny", id=PAIR)
    for name, element in (("image", image), ("text", text)):
        request.inputs.add(name=name, datatype="BYTES", shape=[1])
        request.raw_input_contents.append(struct.pack("<I", len(element)) + element)
    for name in ("m2ib_steps", "m2ib_samples"):
        request.parameters[name].int64_param = 2
    request.MergeFrom(oip.ModelInferRequest(**changes))
    return request


def _parameter(name: str, value: str) -> oip.ModelInferRequest:
    request = infer()
    request.parameters[name].string_param = value
    return request


def _overrun() -> oip.ModelInferRequest:
    request = infer()
    request.raw_input_contents[1] = struct.pack("<I", 10_000) + PATIENT.encode()
    return request


def _tensor(**fields: Any) -> oip.ModelInferRequest:
    request = infer()
    request.inputs.add(**{"name": PATIENT, "datatype": "BYTES", "shape": [1], **fields})
    return request


GOOD = [infer(), infer(PICTURES["png"]), infer(PICTURES["jpeg"])]
BAD = [
    infer(NO_PIXELS),
    infer(BROKEN),
    infer(PATIENT.encode()),
    infer(text=b"\xff" + PATIENT.encode()),
    infer(text=f"{TEXT} ".encode() * 200),
    infer(model_name=MODEL),
    infer(model_version=MODEL),
    infer(id=PATIENT * 100),
    infer(outputs=[oip.ModelInferRequest.InferRequestedOutputTensor(name=HEADER)]),
    _parameter(f"m2ib_{PATIENT}", TEXT),
    _parameter(PATIENT, TEXT),
    _parameter("m2ib_beta", PATIENT),
    _parameter("m2ib_effort", PATIENT),
    _parameter("timeout", PATIENT),
    _overrun(),
    _tensor(),
    _tensor(name="image", datatype=PATIENT),
]


def model_infer(channel: grpc.Channel, said: Said) -> int:
    stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
    for request in (*GOOD, *BAD):
        said.take(lambda request=request: stub.ModelInfer(request, timeout=SECONDS))
    return len(BAD)


def model_stream_infer(channel: grpc.Channel, said: Said) -> int:
    """A stream answers a bad request with a message; the caller's own id in it comes back, and nothing else."""
    stub = inference_pb2_grpc.GRPCInferenceServiceStub(channel)
    answers = list(stub.ModelStreamInfer(iter([*GOOD, *BAD]), timeout=SECONDS))
    for answer in answers:
        if answer.error_message:
            said.refusals.append(answer.error_message)
    return len(BAD)


def _asked(method: str) -> Callable[[grpc.Channel, Said], int]:
    """Return what asks for a description: of what there is, and of what there is not where a model is named."""
    kind = GetMessageClass(SERVICE.methods_by_name[method].input_type)

    def ask(channel: grpc.Channel, said: Said) -> int:
        call = getattr(inference_pb2_grpc.GRPCInferenceServiceStub(channel), method)
        if "name" not in kind.DESCRIPTOR.fields_by_name:
            said.take(lambda: call(kind(), timeout=SECONDS))
            return int(method in NOT_OFFERED)
        for fields in ({"name": "tiny"}, {"name": PATIENT}, {"name": "tiny", "version": PATIENT}):
            said.take(lambda fields=fields: call(kind(**fields), timeout=SECONDS))
        return 0 if method == "ModelReady" else 2

    return ask


CALLS: Mapping[tuple[str, str], Callable[[grpc.Channel, Said], int]] = {
    (SERVICE.full_name, method.name): _asked(method.name) for method in SERVICE.methods
} | {
    (SERVICE.full_name, "ModelInfer"): model_infer,
    (SERVICE.full_name, "ModelStreamInfer"): model_stream_infer,
}

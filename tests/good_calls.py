"""What a good call of each method of each service sends: the seeds of everything that breaks calls."""

import hashlib
import struct
from collections.abc import Callable

import numpy as np
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from knock import CANARY
from m2ib.oip import inference_pb2 as oip
from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import model_repository_pb2 as repository_pb
from m2ib.v1 import settings_pb2
from wire import explain_request, png

PICTURE = png()
TENSOR = settings_pb2.FloatTensor(shape=[3, 32, 32], data=np.zeros((3, 32, 32), "<f4").tobytes())
QUICK = settings_pb2.Settings(steps=1, samples=2)


def explain() -> pb.ExplainRequest:
    """A pair that takes one step."""
    return explain_request(text=f"{CANARY} and a dog", settings=QUICK)


def stream() -> pb.ExplainStreamRequest:
    """The same, told step by step."""
    return pb.ExplainStreamRequest(request=explain(), partial_maps=True)


def pair() -> pb.ExplainBatchRequest:
    """The same, in a batch."""
    return pb.ExplainBatchRequest(id=CANARY, request=explain())


def header() -> pb.UploadImageRequest:
    """The announcement of a picture."""
    sha256 = hashlib.sha256(PICTURE).hexdigest()
    return pb.UploadImageRequest(header=pb.UploadHeader(size_bytes=len(PICTURE), sha256=sha256))


def chunk() -> pb.UploadImageRequest:
    """The picture."""
    return pb.UploadImageRequest(chunk=PICTURE)


def score() -> pb.ScoreRequest:
    """An image and a tensor with two texts."""
    return pb.ScoreRequest(images=[pb.Image(encoded=PICTURE), pb.Image(tensor=TENSOR)], texts=[CANARY, "a dog"])


GOOD: dict[str, list[Callable[[], Message]]] = {
    "Explain": [explain],
    "ExplainStream": [stream],
    "ExplainBatch": [pair, pair, pair],
    "UploadImage": [header, chunk],
    "Score": [score],
    "ListModels": [pb.ListModelsRequest],
    "GetModel": [lambda: pb.GetModelRequest(model="tiny")],
}


def infer() -> oip.ModelInferRequest:
    """The same pair as tensors of the Open Inference Protocol."""
    request = oip.ModelInferRequest(model_name="tiny", id=CANARY)
    for name, element in (("image", PICTURE), ("text", f"{CANARY} and a dog".encode())):
        request.inputs.add(name=name, datatype="BYTES", shape=[1])
        request.raw_input_contents.append(struct.pack("<I", len(element)) + element)
    request.parameters["m2ib_steps"].int64_param = 1
    request.parameters["m2ib_samples"].int64_param = 2
    return request


INFERENCE = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"]
GOOD_INFERENCES: dict[str, list[Callable[[], Message]]] = {
    **{method.name: [GetMessageClass(method.input_type)] for method in INFERENCE.methods},
    "ModelInfer": [infer],
    "ModelStreamInfer": [infer, infer],
    "ModelMetadata": [lambda: oip.ModelMetadataRequest(name="tiny")],
    "ModelReady": [lambda: oip.ModelReadyRequest(name="tiny")],
    "ModelConfig": [lambda: oip.ModelConfigRequest(name="tiny")],
    "ModelStatistics": [lambda: oip.ModelStatisticsRequest(name="tiny")],
}
GOOD_CHANGES: dict[str, list[Callable[[], Message]]] = {
    "ListVersions": [lambda: repository_pb.ListVersionsRequest(name="tiny")],
    "LoadModel": [lambda: repository_pb.LoadModelRequest(name="tiny", version="1")],
    "UnloadModel": [lambda: repository_pb.UnloadModelRequest(name="tiny", version="1")],
    "SwapModel": [lambda: repository_pb.SwapModelRequest(name="tiny", version="1")],
    "SetAlias": [lambda: repository_pb.SetAliasRequest(name="tiny", alias="champion", version="1")],
    "DeleteAlias": [lambda: repository_pb.DeleteAliasRequest(name="tiny", alias="champion")],
}

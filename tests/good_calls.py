"""What a good call of each method of the attribution service sends: the seeds of everything that breaks calls."""

import hashlib
from collections.abc import Callable

import numpy as np
from google.protobuf.message import Message

from knock import CANARY
from m2ib.v1 import attribution_pb2 as pb
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

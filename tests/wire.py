"""Requests as they go over the wire and refusals as they come back, for tests that speak gRPC without the client."""

import io

import numpy as np
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from PIL import Image

from m2ib.v1 import attribution_pb2 as pb


def png(size=(48, 40), seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0]), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def explain_request(**changes):
    fields = {"model": "tiny", "image": pb.Image(encoded=png()), "text": "a cat and a dog"}
    return pb.ExplainRequest(**{**fields, **changes})


def details_of(error):
    """Return the details of a refusal by the name of their kind."""
    status = rpc_status.from_call(error)
    found = {}
    for detail in status.details:
        for kind in (error_details_pb2.BadRequest, error_details_pb2.ErrorInfo, error_details_pb2.ResourceInfo):
            if detail.Is(kind.DESCRIPTOR):
                message = kind()
                detail.Unpack(message)
                found[kind.__name__] = message
    return found

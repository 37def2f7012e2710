"""Requests as they go over the wire, for tests that speak gRPC without the client."""

import io

import numpy as np
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

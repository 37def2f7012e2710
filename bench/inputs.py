"""Draws inputs that a graph takes, of any number of rows."""

import torch
from torch import Tensor

from m2ib.v1 import manifest_pb2 as pb


def draw_inputs(graph: pb.Graph, rows: int, tokens: int) -> dict[str, Tensor]:
    """Draw inputs of a graph's ports; whole numbers are 1, which is a token, a visible one and a position alike."""
    generator = torch.Generator().manual_seed(0)
    inputs = {}
    for port in graph.inputs:
        shape = [size or free for size, free in zip(port.shape, (rows, tokens, 0, 0), strict=False)]
        drawn = torch.randn(shape, generator=generator)
        inputs[port.name] = torch.ones_like(drawn, dtype=torch.int64) if _is_whole(port) else drawn
    return inputs


def _is_whole(port: pb.Port) -> bool:
    return port.element_type == pb.ELEMENT_TYPE_INT64

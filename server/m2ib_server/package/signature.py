"""Owns the ports that the graph of each role has, by which the engine's methods feed and read it."""

from dataclasses import dataclass

from m2ib.v1 import manifest_pb2 as pb
from m2ib_server.package.role import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The inputs and outputs of one role, in order: name, element type and number of dimensions of each."""

    inputs: tuple[tuple[str, "pb.ElementType.ValueType", int], ...]
    outputs: tuple[tuple[str, "pb.ElementType.ValueType", int], ...]


_FLOAT, _INTEGER = pb.ELEMENT_TYPE_FLOAT32, pb.ELEMENT_TYPE_INT64
_FEATURES = ("features", _FLOAT, 3)  # [batch, tokens, width]
_EMBEDDING = ("embedding", _FLOAT, 2)  # [batch, embedding width]
_TARGET = ("target", _FLOAT, 2)  # [batch, embedding width]
_SIMILARITY = ("similarity", _FLOAT, 1)  # [batch]
_GRADIENT = ("gradient", _FLOAT, 3)  # [batch, tokens, width]
_PIXEL_VALUES = ("pixel_values", _FLOAT, 4)  # [batch, channels, height, width]
_TOKEN_IDS = ("token_ids", _INTEGER, 2)  # [batch, tokens]
_ATTENTION_MASK = ("attention_mask", _INTEGER, 2)  # [batch, tokens]
_POOLED_POSITION = ("pooled_position", _INTEGER, 1)  # [batch]

PORTS_BY_ROLE = {
    Role.VISION_HEAD: Ports(inputs=(_PIXEL_VALUES,), outputs=(_FEATURES,)),
    Role.VISION_TAIL: Ports(inputs=(_FEATURES,), outputs=(_EMBEDDING,)),
    Role.VISION_TAIL_GRAD: Ports(inputs=(_FEATURES, _TARGET), outputs=(_SIMILARITY, _GRADIENT)),
    Role.TEXT_HEAD: Ports(inputs=(_TOKEN_IDS, _ATTENTION_MASK), outputs=(_FEATURES,)),
    Role.TEXT_TAIL: Ports(inputs=(_FEATURES, _ATTENTION_MASK, _POOLED_POSITION), outputs=(_EMBEDDING,)),
    Role.TEXT_TAIL_GRAD: Ports(
        inputs=(_FEATURES, _ATTENTION_MASK, _POOLED_POSITION, _TARGET), outputs=(_SIMILARITY, _GRADIENT)
    ),
}


def ports_of(graph: pb.Graph) -> Ports:
    """Return a graph's ports as its manifest states them."""
    inputs, outputs = (
        tuple((port.name, port.element_type, len(port.shape)) for port in ports)
        for ports in (graph.inputs, graph.outputs)
    )
    return Ports(inputs=inputs, outputs=outputs)

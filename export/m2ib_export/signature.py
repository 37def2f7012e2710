"""Owns the six graphs' names, roles and ports: the table that the exporter, the manifest and the parity check share."""

from dataclasses import dataclass
from typing import TypeAlias

from m2ib.v1 import manifest_pb2 as pb
from m2ib_export.geometry import Geometry
from m2ib_export.precision import Precision

BATCH = "batch"
TOKENS = "tokens"

Role: TypeAlias = "pb.GraphRole.ValueType"
"""A graph's role, as the manifest numbers it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """One input or output of a graph; a dimension is a size or the name of a dynamic one."""

    name: str
    shape: tuple[int | str, ...]
    is_integer: bool = False

    def to_proto(self) -> pb.Port:
        """Write a dynamic dimension as 0."""
        element_type = pb.ELEMENT_TYPE_INT64 if self.is_integer else pb.ELEMENT_TYPE_FLOAT32
        sizes = [0 if isinstance(size, str) else size for size in self.shape]
        return pb.Port(name=self.name, element_type=element_type, shape=sizes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One graph of a package: its role, its name, its ports and the weights file it reads."""

    role: Role
    name: str
    weights_name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    @property
    def file(self) -> str:
        """The graph's file inside the package."""
        return f"{self.name}.onnx"

    @property
    def portable_file(self) -> str:
        """The file, in a package of half precision, for devices without half products; it has the same weights file."""
        return f"{self.name}.portable.onnx"

    @property
    def weights_file(self) -> str:
        """The weights' file inside the package."""
        return f"{self.weights_name}.weights"

    def to_proto(self, precision: Precision) -> pb.Graph:
        """Write the signature as the manifest of a package of this precision has it."""
        return pb.Graph(
            role=self.role,
            file=self.file,
            portable_file=self.portable_file if precision.is_half else "",
            weights_file=self.weights_file,
            inputs=[port.to_proto() for port in self.inputs],
            outputs=[port.to_proto() for port in self.outputs],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderPorts:
    """The ports that the three graphs of one encoder share."""

    side: str
    head_inputs: tuple[Port, ...]
    features: Port
    conditions: tuple[Port, ...]
    embedding_width: int

    def signatures(self, head: Role, tail: Role, tail_grad: Role) -> tuple[Signature, ...]:
        """Return the signatures of head, tail and tail gradient, with these roles."""
        embedding = Port(name="embedding", shape=(BATCH, self.embedding_width))
        target = Port(name="target", shape=(BATCH, self.embedding_width))
        gradient = Port(name="gradient", shape=self.features.shape)
        tail_inputs = (self.features, *self.conditions)
        similarity = Port(name="similarity", shape=(BATCH,))
        return (
            self._signature(head, "head", "head", self.head_inputs, (self.features,)),
            self._signature(tail, "tail", "tail", tail_inputs, (embedding,)),
            self._signature(tail_grad, "tail_grad", "tail", (*tail_inputs, target), (similarity, gradient)),
        )

    def _signature(
        self, role: Role, part: str, weights: str, inputs: tuple[Port, ...], outputs: tuple[Port, ...]
    ) -> Signature:
        return Signature(
            role=role,
            name=f"{self.side}_{part}",
            weights_name=f"{self.side}_{weights}",
            inputs=inputs,
            outputs=outputs,
        )


def signatures(geometry: Geometry) -> dict[Role, Signature]:
    """Return the six graphs of a model of this shape, by role, in the manifest's order."""
    vision, text = geometry.vision, geometry.text
    attention_mask = Port(name="attention_mask", shape=(BATCH, TOKENS), is_integer=True)
    vision_ports = EncoderPorts(
        side="vision",
        head_inputs=(Port(name="pixel_values", shape=(BATCH, vision.channels, vision.image_size, vision.image_size)),),
        features=Port(name="features", shape=(BATCH, vision.tokens, vision.width)),
        conditions=(),
        embedding_width=geometry.embedding_width,
    )
    text_ports = EncoderPorts(
        side="text",
        head_inputs=(Port(name="token_ids", shape=(BATCH, TOKENS), is_integer=True), attention_mask),
        features=Port(name="features", shape=(BATCH, TOKENS, text.width)),
        conditions=(attention_mask, Port(name="pooled_position", shape=(BATCH,), is_integer=True)),
        embedding_width=geometry.embedding_width,
    )
    both = (
        *vision_ports.signatures(pb.GRAPH_ROLE_VISION_HEAD, pb.GRAPH_ROLE_VISION_TAIL, pb.GRAPH_ROLE_VISION_TAIL_GRAD),
        *text_ports.signatures(pb.GRAPH_ROLE_TEXT_HEAD, pb.GRAPH_ROLE_TEXT_TAIL, pb.GRAPH_ROLE_TEXT_TAIL_GRAD),
    )
    return {signature.role: signature for signature in both}

"""Names the frozen pieces of an encoder as evaluations, the same for images and texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import normalize

from m2ib_server.errors import EmbeddingUndefined
from m2ib_server.methods.evaluation import Evaluation, Method, Side
from m2ib_server.package import Role

HEAD = {Side.IMAGE: Role.VISION_HEAD, Side.TEXT: Role.TEXT_HEAD}
TAIL = {Side.IMAGE: Role.VISION_TAIL, Side.TEXT: Role.TEXT_TAIL}
TAIL_GRAD = {Side.IMAGE: Role.VISION_TAIL_GRAD, Side.TEXT: Role.TEXT_TAIL_GRAD}


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderInput:
    """One image or one text as its encoder takes it.

    Attributes:
        side: which encoder.
        inputs: the head's inputs by port name, one row each.
        context: what the tails take besides features and target, by port name, one row each.
        digest: SHA-256 of inputs and context, which are on the CPU.
    """

    side: Side
    inputs: Mapping[str, Tensor]
    context: Mapping[str, Tensor] = field(default_factory=dict)
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """What an encoder makes of its input.

    Attributes:
        side: which encoder.
        features: at the bottleneck layer [1, tokens, width], on the device.
        embedding: normalised [1, embedding width], on the device.
        context: what the tails take besides features and target, by port name, one row each, on the device.
    """

    side: Side
    features: Tensor
    embedding: Tensor
    context: Mapping[str, Tensor]


def encode(sources: Sequence[EncoderInput], fields: Sequence[str] = ()) -> Method[tuple[Encoded, ...]]:
    """Evaluate the heads, then the tails, each source once; both may be kept for the next request.

    fields: what the sources are in the request; their sides, where nothing is said.

    Raises:
        EmbeddingUndefined: features or an embedding are not finite, or an embedding has no length.
    """
    features = yield tuple(
        Evaluation(role=HEAD[source.side], inputs=source.inputs, digest=source.digest) for source in sources
    )
    embeddings = yield tuple(
        Evaluation(role=TAIL[source.side], inputs={"features": rows, **source.context}, digest=source.digest)
        for source, rows in zip(sources, features, strict=True)
    )
    names = fields or [source.side.value for source in sources]
    for name, rows, embedding in zip(names, features, embeddings, strict=True):
        _check_direction(name, rows, embedding)
    return tuple(
        Encoded(
            side=source.side,
            features=rows,
            embedding=normalize(embedding, dim=-1),
            context={name: tensor.to(rows.device) for name, tensor in source.context.items()},
        )
        for source, rows, embedding in zip(sources, features, embeddings, strict=True)
    )


def _check_direction(field: str, features: Tensor, embedding: Tensor) -> None:
    """Refuse what has no similarity with anything; a length beyond the largest number is no length either."""
    length = torch.linalg.vector_norm(embedding)
    if not bool(torch.isfinite(features).all() & torch.isfinite(length) & (length > 0)):
        allowed = "an input with finite features and an embedding of finite length above 0"
        raise EmbeddingUndefined(field, seen="an input that the model gives no direction", allowed=allowed)


def tail_gradient(encoded: Encoded, noised: Tensor, target: Tensor) -> Evaluation:
    """Ask for each row's similarity with the target, and its gradient by the row's features.

    noised: [rows, tokens, width]; target: normalised [1, embedding width].
    """
    rows = noised.shape[0]
    context = {name: tensor.expand(rows, *tensor.shape[1:]) for name, tensor in encoded.context.items()}
    inputs = {"features": noised, **context, "target": target.expand(rows, -1)}
    return Evaluation(role=TAIL_GRAD[encoded.side], inputs=inputs)

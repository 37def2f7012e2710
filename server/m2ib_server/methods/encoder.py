"""Names the frozen pieces of an encoder as evaluations, the same for images and texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor
from torch.nn.functional import normalize

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
        digest: SHA-256 of inputs and context.
    """

    side: Side
    inputs: Mapping[str, Tensor]
    context: Mapping[str, Tensor] = field(default_factory=dict)
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """What an encoder makes of its input.

    Attributes:
        source: the input.
        features: at the bottleneck layer [1, tokens, width].
        embedding: normalised [1, embedding width].
    """

    source: EncoderInput
    features: Tensor
    embedding: Tensor


def encode(sources: Sequence[EncoderInput]) -> Method[tuple[Encoded, ...]]:
    """Evaluate the heads, then the tails, each source once; both may be kept for the next request."""
    features = yield tuple(
        Evaluation(role=HEAD[source.side], inputs=source.inputs, digest=source.digest) for source in sources
    )
    embeddings = yield tuple(
        Evaluation(role=TAIL[source.side], inputs={"features": rows, **source.context}, digest=source.digest)
        for source, rows in zip(sources, features, strict=True)
    )
    return tuple(
        Encoded(source=source, features=rows, embedding=normalize(embedding, dim=-1))
        for source, rows, embedding in zip(sources, features, embeddings, strict=True)
    )


def tail_gradient(source: EncoderInput, noised: Tensor, target: Tensor) -> Evaluation:
    """Ask for each row's similarity with the target, and its gradient by the row's features.

    noised: [rows, tokens, width]; target: normalised [1, embedding width].
    """
    rows = noised.shape[0]
    context = {name: tensor.expand(rows, *tensor.shape[1:]) for name, tensor in source.context.items()}
    inputs = {"features": noised, **context, "target": target.expand(rows, -1)}
    return Evaluation(role=TAIL_GRAD[source.side], inputs=inputs)

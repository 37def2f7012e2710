"""Owns the comparison of final maps: M2IB on the graphs against M2IB on the original model, from the same noise."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import normalize

from m2ib.v1 import manifest_pb2 as pb
from m2ib_export.attribution import Plan, information_bits
from m2ib_export.families import OriginalModel
from m2ib_export.geometry import Layers
from m2ib_export.gradient import similarity_and_gradient
from m2ib_export.parity import Figure, Graphs, Vocabulary, draw_text, judge
from m2ib_export.recipe import MapPlans
from m2ib_export.tokeniser import TokenBatch, pad

SEED = 21


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One side of a pair, encoded one way.

    features: at the bottleneck [1, tokens, width]. embedding: normalised [1, embedding width].
    evaluate: noised features [rows, tokens, width], target [1, embedding width] -> similarity [rows], gradient.
    """

    features: Tensor
    embedding: Tensor
    evaluate: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

    def bits(self, target: Tensor, plan: Plan) -> Tensor:
        """Return M2IB's information per token [tokens] against the other side's embedding."""
        return information_bits(lambda rows: self.evaluate(rows, target), self.features, plan)


def measure_maps(
    graphs: Graphs, original: OriginalModel, layers: Layers, vocabulary: Vocabulary, plans: MapPlans
) -> tuple[Figure, ...]:
    """Compare the final map of a seeded image and those of a text as long as the context, by rank."""
    generator = torch.Generator().manual_seed(SEED)
    vision, text = original.geometry.vision, original.geometry.text
    pixels = torch.randn(1, vision.channels, vision.image_size, vision.image_size, generator=generator)
    tokens = pad([draw_text(text.context_length, vocabulary, generator)], padding=vocabulary.end)
    images = _image_by_graphs(graphs, pixels), _image_by_original(original, pixels, layers.vision)
    texts = _text_by_graphs(graphs, tokens), _text_by_original(original, tokens, layers.text)
    image_targets, text_targets = ([each.embedding for each in others] for others in (texts, images))
    maps = {
        "vision_map.rank": [bits[vision.leading_tokens :] for bits in _maps(images, image_targets, plans.image)],
        "text_map.rank": _maps(texts, text_targets, plans.text),
    }
    if plans.text_of_own_shape is not None:
        maps["text_map.own_rank"] = _maps(texts, text_targets, plans.text_of_own_shape)
    return tuple(
        judge((name, 1 - rank_correlation(*(bits.numpy() for bits in pair))), graphs.precision)
        for name, pair in maps.items()
    )


def _maps(encoded: Sequence[Encoded], targets: Sequence[Tensor], plan: Plan) -> list[Tensor]:
    """Return the map by the graphs and that by the original model."""
    return [each.bits(target, plan) for each, target in zip(encoded, targets, strict=True)]


def rank_correlation(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> float:
    """Spearman's rank correlation of two maps [tokens] without ties; NaN when either has a value that is no number."""
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        return float("nan")
    left_ranks, right_ranks = (values.argsort(kind="stable").argsort(kind="stable") for values in (left, right))
    count = len(left)
    return float(1 - 6 * np.square(left_ranks - right_ranks).sum() / max(1, count * (count**2 - 1)))


def _image_by_graphs(graphs: Graphs, pixels: Tensor) -> Encoded:
    ((head,),) = graphs.run(pb.GRAPH_ROLE_VISION_HEAD, [(pixels,)])
    ((embedding,),) = graphs.run(pb.GRAPH_ROLE_VISION_TAIL, [(torch.from_numpy(head),)])
    return _encoded(graphs, pb.GRAPH_ROLE_VISION_TAIL_GRAD, head, embedding, ())


def _text_by_graphs(graphs: Graphs, tokens: TokenBatch) -> Encoded:
    conditions = tokens.attention_mask, tokens.attention_mask.sum(dim=-1) - 1
    ((head,),) = graphs.run(pb.GRAPH_ROLE_TEXT_HEAD, [(tokens.token_ids, tokens.attention_mask)])
    ((embedding,),) = graphs.run(pb.GRAPH_ROLE_TEXT_TAIL, [(torch.from_numpy(head), *conditions)])
    return _encoded(graphs, pb.GRAPH_ROLE_TEXT_TAIL_GRAD, head, embedding, conditions)


def _encoded(
    graphs: Graphs,
    role: "pb.GraphRole.ValueType",
    head: npt.NDArray[np.float32],
    embedding: npt.NDArray[np.float32],
    conditions: tuple[Tensor, ...],
) -> Encoded:
    gradient_graph = graphs.open(role)

    def evaluate(rows: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        repeated = [value.repeat(len(rows), *[1] * (value.ndim - 1)) for value in (*conditions, target)]
        similarity, gradient = gradient_graph(rows, *repeated)
        return torch.from_numpy(similarity), torch.from_numpy(gradient)

    return Encoded(
        features=torch.from_numpy(head), embedding=normalize(torch.from_numpy(embedding), dim=-1), evaluate=evaluate
    )


def _image_by_original(original: OriginalModel, pixels: Tensor, layer: int) -> Encoded:
    def evaluate(rows: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return similarity_and_gradient(lambda features: original.image_tail(features, layer), rows, target)

    embedding = normalize(original.embed_images(pixels), dim=-1)
    return Encoded(features=original.image_features(pixels, layer), embedding=embedding, evaluate=evaluate)


def _text_by_original(original: OriginalModel, tokens: TokenBatch, layer: int) -> Encoded:
    def evaluate(rows: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        token_ids, mask = (value.repeat(len(rows), 1) for value in (tokens.token_ids, tokens.attention_mask))
        return similarity_and_gradient(
            lambda features: original.text_tail(features, token_ids, mask, layer), rows, target
        )

    features = original.text_features(tokens.token_ids, tokens.attention_mask, layer)
    embedding = normalize(original.embed_texts(tokens.token_ids, tokens.attention_mask), dim=-1)
    return Encoded(features=features, embedding=embedding, evaluate=evaluate)

"""Optimises the masks of many inputs at once over a frozen gradient graph, by the server's own formulas.

What differs from the served method is the batching and three options: noise in opposite pairs, the course of the map at
every step, and a noise stream for each input and seed, so that no result depends on how inputs are batched.
"""

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from m2ib_export.gradient import trace_gradient
from m2ib_export.graph import example_inputs, to_graph, write_graph
from m2ib_export.signature import BATCH, TOKENS, Signature
from m2ib_export.weights import WeightsFile
from m2ib_server.methods.bottleneck import INITIAL_ALPHA, information_nats, noised_features

ROWS_AT_ONCE = 128
Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to optimise a mask.

    Attributes:
        shape: "channel" or "token".
        beta: the weight of the information term.
        rows: noise rows a step; even if they come in opposite pairs.
        steps: Adam's updates.
        is_antithetic: each row's noise is followed by its opposite.
        learning_rate: Adam's.
    """

    shape: str
    beta: float
    rows: int
    steps: int
    is_antithetic: bool = False
    learning_rate: float = 1.0

    @property
    def name(self) -> str:
        """A name that is a file's, such as channel-b1-10x20."""
        rate = "" if self.learning_rate == 1 else f"-r{self.learning_rate:g}"
        return f"{self.shape}-b{self.beta:g}-{self.rows}x{self.steps}{rate}{'-pairs' * self.is_antithetic}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """N inputs of one encoder and what each is held against.

    Attributes:
        features: at the bottleneck [N, tokens, width].
        target: unit embeddings of the other side [N, embedding width].
        context: the gradient graph's other inputs, one row each.
    """

    features: Tensor
    target: Tensor
    context: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """N maps along the optimisation.

    Attributes:
        bits: [steps + 1, N, tokens]; entry t is read after t updates. The published map of T steps is entry T - 1.
        similarity: mean cosine of the noised rows at each step [steps, N].
    """

    bits: Array
    similarity: Array


class GradientGraph:
    """A tail's similarity and gradient in ONNX Runtime."""

    def __init__(self, path: Path, threads: int) -> None:
        """Open the graph at a path."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return similarity [rows] and gradient [rows, tokens, width]."""
        similarity, gradient = self._session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        return torch.from_numpy(similarity), torch.from_numpy(gradient)


def export_gradient(tail: nn.Module, signature: Signature, directory: Path) -> Path:
    """Write the gradient graph of a tail, as the exporter does, and return its path."""
    example = example_inputs(signature, {BATCH: 3, TOKENS: 7})
    model = to_graph(trace_gradient(tail, example), example, signature, max_tokens=32)
    with WeightsFile(directory / signature.weights_file) as weights:
        weights.take(model.graph)
    write_graph(model, directory / signature.file)
    return directory / signature.file


def open_gradient(tail: nn.Module, signature: Signature, threads: int) -> GradientGraph:
    """Export a tail's gradient to a folder that is gone once the graph is in memory."""
    with tempfile.TemporaryDirectory() as folder:
        return GradientGraph(export_gradient(tail, signature, Path(folder)), threads)


def follow(graph: GradientGraph, question: Question, plan: Plan, seed: int, first: int = 0) -> Course:
    """Optimise one mask for each input; the inputs go through the graph in chunks.

    first: the number of the first input, on which its noise depends.
    """
    inputs = len(question.features)
    size = max(1, ROWS_AT_ONCE // plan.rows)
    parts = [
        _follow_chunk(graph, rows_of(question, start, size), plan, _streams(seed, first + start, size))
        for start in range(0, inputs, size)
    ]
    bits = np.concatenate([part.bits for part in parts], axis=1)
    return Course(bits=bits, similarity=np.concatenate([part.similarity for part in parts], axis=1))


def rows_of(question: Question, start: int, count: int) -> Question:
    """Some of a question's inputs."""
    rows = slice(start, start + count)
    context = {name: tensor[rows] for name, tensor in question.context.items()}
    return Question(features=question.features[rows], target=question.target[rows], context=context)


def _streams(seed: int, start: int, size: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(1_000_003 * (seed + 1) + start + row) for row in range(size)]


def _follow_chunk(graph: GradientGraph, question: Question, plan: Plan, streams: list[torch.Generator]) -> Course:
    features = question.features  # [N, tokens, width]: as repeats of the served method, each with features of its own
    alpha = torch.full_like(features if plan.shape == "channel" else features[..., :1], INITIAL_ALPHA)
    alpha.requires_grad_()
    adam = torch.optim.Adam([alpha], lr=plan.learning_rate)
    repeated = {name: tensor.repeat_interleave(plan.rows, dim=0) for name, tensor in question.context.items()}
    repeated["target"] = question.target.repeat_interleave(plan.rows, dim=0)
    bits, similarities = [], []
    for _ in range(plan.steps):
        noise = torch.stack([_noise(stream, features.shape[1:], plan) for stream in streams[: len(features)]])
        with torch.no_grad():
            noised = noised_features(features, alpha, noise).flatten(0, 1)
        similarity, gradient = graph.run({"features": noised, **repeated})
        gradient = gradient.unflatten(0, (-1, plan.rows))
        information = information_nats(features, alpha)
        penalty = plan.beta * information.mean(dim=(1, 2)).sum()
        # sum over rows of gradient . z, with z = keep x + (1 - keep) noise, without a tensor of every row
        by_features, by_noise = gradient.sum(dim=1), (gradient * noise).sum(dim=1)
        fit = (alpha.sigmoid() * features * by_features + (-alpha).sigmoid() * by_noise).sum() / plan.rows
        (alpha.grad,) = torch.autograd.grad(penalty - fit, [alpha])
        adam.step()
        bits.append(_bits(information))
        similarities.append(similarity.unflatten(0, (-1, plan.rows)).mean(dim=1).numpy())
    bits.append(_bits(information_nats(features, alpha)))
    return Course(bits=np.stack(bits), similarity=np.stack(similarities))


def _noise(stream: torch.Generator, shape: torch.Size, plan: Plan) -> Tensor:
    if not plan.is_antithetic:
        return torch.randn((plan.rows, *shape), generator=stream)
    half = torch.randn((plan.rows // 2, *shape), generator=stream)
    return torch.stack([half, -half], dim=1).flatten(0, 1)


def _bits(information: Tensor) -> Array:
    """[N, tokens, width] in nats -> [N, tokens] in bits."""
    return (information.detach().sum(dim=-1).clamp(min=0) / math.log(2)).numpy()

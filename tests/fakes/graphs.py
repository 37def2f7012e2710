"""A model small enough to check by hand, in place of ONNX graphs: linear heads, tanh tails."""

import threading
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import normalize

from m2ib_server.methods import EncoderInput, Side
from m2ib_server.package import Role

TOKENS, WIDTH, EMBEDDING = 5, 8, 6
DIGEST = "0" * 64


class FakeGraphs:
    """Evaluates as a two-encoder model would; counts its calls, and fails on inputs that hold a NaN."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        self.head_weight = torch.randn(WIDTH, WIDTH, generator=generator)
        self.tail_weight = torch.randn(WIDTH, EMBEDDING, generator=generator)
        self.calls: list[tuple[Role, int]] = []
        self.trims = 0
        self.on_call: Callable[[Role], None] = lambda role: None
        self.aborts = 0
        self.gate = threading.Event()
        self.gate.set()

    def run(self, role: Role, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        self.gate.wait(timeout=10)
        rows = next(iter(inputs.values()))
        self.calls.append((role, rows.shape[0]))
        self.on_call(role)
        if torch.isnan(rows).any():
            raise RuntimeError("a value that the log must not show: 41.5")
        if role in (Role.VISION_HEAD, Role.TEXT_HEAD):
            return (rows @ self.head_weight,)
        features = inputs["features"].detach().requires_grad_()
        embedding = self.embed(features)
        if role in (Role.VISION_TAIL, Role.TEXT_TAIL):
            return (embedding.detach(),)
        similarity = (normalize(embedding, dim=-1) * inputs["target"]).sum(dim=-1)
        (gradient,) = torch.autograd.grad(similarity.sum(), features)
        return similarity.detach(), gradient

    def embed(self, features: Tensor) -> Tensor:
        return torch.tanh(features @ self.tail_weight).mean(dim=1)

    def trim(self) -> None:
        self.trims += 1

    def abort(self) -> None:
        self.aborts += 1

    def layer(self, role: Role) -> int:
        return 1


def encoder_input(side: Side, seed: int, *, tokens: int = TOKENS) -> EncoderInput:
    """Make an input whose head takes [1, tokens, width]."""
    rows = torch.randn(1, tokens, WIDTH, generator=torch.Generator().manual_seed(seed))
    return EncoderInput(side=side, inputs={"rows": rows}, digest=f"{side}-{seed}-{tokens}")

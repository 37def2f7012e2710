"""Owns plain M2IB on anything that gives a similarity and its gradient: one input, no batching, no progress.

Source: Wang, Rudner, Wilson, "Visual Explanations of Image-Text Representations via Multi-Modal Information
Bottleneck Attribution", NeurIPS 2023. Written from the formulas.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

INITIAL_ALPHA = 5.0
Evaluate = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Noised features [rows, tokens, width] -> similarity [rows], gradient of each by its own features."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to optimise the mask: `is_per_channel` tells the two mask shapes apart, rows are noise draws a step."""

    beta: float
    is_per_channel: bool = True
    steps: int = 10
    rows: int = 10
    learning_rate: float = 1.0
    seed: int = 0


def information_bits(evaluate: Evaluate, features: Tensor, plan: Plan) -> Tensor:
    """Optimise a mask over features [1, tokens, width] -> the information it lets through at the last step [tokens]."""
    generator = torch.Generator().manual_seed(plan.seed)
    alpha = torch.full_like(features if plan.is_per_channel else features[..., :1], INITIAL_ALPHA, requires_grad=True)
    adam = torch.optim.Adam([alpha], lr=plan.learning_rate)
    information = torch.zeros_like(features)
    for _ in range(plan.steps):
        noise = torch.randn((plan.rows, *features.shape[1:]), generator=generator)
        mixed = alpha.sigmoid() * features + (-alpha).sigmoid() * noise
        information = information_nats(features, alpha)
        _, gradient = evaluate(mixed.detach())
        loss = plan.beta * information.mean() - (gradient * mixed).sum() / plan.rows  # as the tail's own chain rule
        (alpha.grad,) = torch.autograd.grad(loss, [alpha])
        adam.step()
    return information.detach()[0].sum(dim=-1) / math.log(2)


def information_nats(features: Tensor, alpha: Tensor) -> Tensor:
    """KL[N(keep * features, (1 - keep)^2) || N(0, 1)] per element, keep = sigmoid(alpha)."""
    keep, spread = alpha.sigmoid(), (-alpha).sigmoid()
    return 0.5 * ((keep * features).square() + spread.square() - 1) + softplus(alpha)

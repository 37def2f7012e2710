"""Plain M2IB on the demo model in eager PyTorch, many films at once: a yardstick for the service's own engine.

Source: Wang, Rudner, Wilson, "Visual Explanations of Image-Text Representations via Multi-Modal Information
Bottleneck Attribution", NeurIPS 2023. Written from the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPModel

from m2ib_export.attribution import INITIAL_ALPHA, information_nats

COSINE_EPSILON = 1e-6
Tail = Callable[[Tensor], Tensor]  # masked hidden states [rows, tokens, width] -> embeddings [rows, projection]


@dataclass(frozen=True, slots=True, kw_only=True)
class BottleneckPlan:
    """How to optimise the mask.

    mask_shape: "channel" for one value per token and channel, "token" for one per token. steps: the
    numbers of steps after which to read the map, ascending. rows: noise draws a step.
    """

    beta: float
    mask_shape: str = "channel"
    steps: tuple[int, ...] = (10,)
    rows: int = 10
    learning_rate: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Result for N inputs. bits: [N, tokens], information kept; cosine: [N], fit of the masked input."""

    bits: Tensor
    cosine: Tensor


def attribute(tail: Tail, hidden: Tensor, target: Tensor, plan: BottleneckPlan) -> tuple[Attribution, ...]:
    """Optimise one mask an input and return the information it keeps, once for each of `plan.steps`.

    hidden: [N, tokens, width]; target: embeddings of the other side, [N, projection]. Losses are summed over
    inputs, so each is optimised as if alone. Parameters behind `tail` must be frozen.
    """
    inputs, tokens, width = hidden.shape
    generator = torch.Generator().manual_seed(plan.seed)
    alpha = torch.full((inputs, tokens, width if plan.mask_shape == "channel" else 1), INITIAL_ALPHA)
    alpha.requires_grad_()
    optimiser = torch.optim.Adam([alpha], lr=plan.learning_rate)
    readings = []
    for step in range(1, plan.steps[-1] + 1):
        noise = torch.randn((inputs, plan.rows, tokens, width), generator=generator)
        information = information_nats(hidden, alpha)
        cosine = masked_cosine(tail, hidden, target, alpha, noise)
        loss = (plan.beta * information.mean(dim=(1, 2)) - cosine).sum()
        (alpha.grad,) = torch.autograd.grad(loss, [alpha])
        optimiser.step()
        if step in plan.steps:
            bits = information.detach().sum(dim=2) / math.log(2)
            readings.append(Attribution(bits=bits, cosine=cosine.detach()))
    return tuple(readings)


def masked_cosine(tail: Tail, hidden: Tensor, target: Tensor, alpha: Tensor, noise: Tensor) -> Tensor:
    """Mean cosine [N] of targets and inputs mixed with noise [N, rows, tokens, width]."""
    keep, spread = alpha.sigmoid()[:, None], (-alpha).sigmoid()[:, None]
    mixed = keep * hidden[:, None] + spread * noise
    embedding = tail(mixed.flatten(0, 1)).reshape(*noise.shape[:2], -1)
    return functional.cosine_similarity(embedding, target[:, None], dim=-1, eps=COSINE_EPSILON).mean(dim=1)


@torch.no_grad()
def vision_hidden(model: CLIPModel, pixels: Tensor, block: int) -> Tensor:
    """Output of one 0-based vision block: [N, 65, width]."""
    hidden: Tensor = model.vision_model.pre_layrnorm(model.vision_model.embeddings(pixels))
    for layer in model.vision_model.encoder.layers[: block + 1]:
        hidden = layer(hidden, attention_mask=None)
    return hidden


def vision_tail(model: CLIPModel, block: int) -> Tail:
    """What follows a vision block, up to the projected embedding."""

    def tail(hidden: Tensor) -> Tensor:
        for layer in model.vision_model.encoder.layers[block + 1 :]:
            hidden = layer(hidden, attention_mask=None)
        embedding: Tensor = model.visual_projection(model.vision_model.post_layernorm(hidden[:, 0]))
        return embedding

    return tail


def causal_mask(tokens: int) -> Tensor:
    """Additive mask [1, 1, tokens, tokens] that hides later tokens."""
    return torch.full((tokens, tokens), -torch.inf).triu(1)[None, None]


@torch.no_grad()
def text_hidden(model: CLIPModel, token_ids: Tensor, block: int) -> Tensor:
    """Output of one 0-based text block for unpadded tokens [N, tokens]: [N, tokens, width]."""
    hidden: Tensor = model.text_model.embeddings(input_ids=token_ids)
    for layer in model.text_model.encoder.layers[: block + 1]:
        hidden = layer(hidden, attention_mask=causal_mask(token_ids.shape[1]))
    return hidden


def text_tail(model: CLIPModel, block: int) -> Tail:
    """What follows a text block, pooled at the last token: the end token of unpadded text."""

    def tail(hidden: Tensor) -> Tensor:
        for layer in model.text_model.encoder.layers[block + 1 :]:
            hidden = layer(hidden, attention_mask=causal_mask(hidden.shape[1]))
        embedding: Tensor = model.text_projection(model.text_model.final_layer_norm(hidden[:, -1]))
        return embedding

    return tail


@torch.no_grad()
def image_embeddings(model: CLIPModel, pixels: Tensor) -> Tensor:
    """Unit embeddings [N, projection] of normalised films [N, 3, 128, 128]."""
    pooled = torch.cat([model.vision_model(part).pooler_output for part in torch.split(pixels, 64)])
    return functional.normalize(model.visual_projection(pooled), dim=-1)

"""Owns the activations that are computed in another form than autograd would give them: fewer passes over memory."""

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

QUICK_GELU_SCALE = 1.702


class _Swish(torch.autograd.Function):
    """y = u s(u), with y' = y + s(u) (1 - y): four passes over the activations, of seven that autograd makes."""

    @staticmethod
    def forward(ctx: Any, scaled: Tensor) -> Tensor:
        gate = torch.sigmoid(scaled)
        swished = scaled * gate
        ctx.save_for_backward(gate, swished)
        return swished

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gate, swished = cast("tuple[Tensor, Tensor]", ctx.saved_tensors)
        return gradients[0] * (swished + gate * (1 - swished))


def swish(scaled: Tensor) -> Tensor:
    """Return u sigmoid(u), elementwise."""
    apply: Callable[[Tensor], Tensor] = _Swish.apply
    return apply(scaled)


def around_swish(up: nn.Linear, down: nn.Linear) -> tuple[nn.Linear, nn.Linear]:
    """Return the projections around `swish` that do what the given ones do around quick GELU, x sigmoid(1.702 x).

    quick_gelu(x) = swish(1.702 x) / 1.702: the scale goes into the weights before, its inverse into those after.
    """
    scaled_up, scaled_down = copy.deepcopy(up), copy.deepcopy(down)
    with torch.no_grad():
        scaled_up.weight.mul_(QUICK_GELU_SCALE)
        scaled_up.bias.mul_(QUICK_GELU_SCALE)
        scaled_down.weight.div_(QUICK_GELU_SCALE)
    return scaled_up, scaled_down

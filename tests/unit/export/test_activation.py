import torch
from torch import nn
from transformers.activations import ACT2FN

from m2ib_export.activation import around_swish, swish


def test_swish_has_the_gradient_that_autograd_finds():
    scaled = torch.linspace(-30, 30, 301, dtype=torch.float64, requires_grad=True)
    (ours,) = torch.autograd.grad(swish(scaled).sum(), scaled)
    (autograds,) = torch.autograd.grad((scaled * torch.sigmoid(scaled)).sum(), scaled)
    torch.testing.assert_close(ours, autograds)


@torch.no_grad()
def test_scaled_projections_around_swish_do_what_quick_gelu_does():
    up, down = nn.Linear(6, 20), nn.Linear(20, 6)
    before = [each.clone() for each in (up.weight, up.bias, down.weight, down.bias)]
    hidden = torch.randn(9, 6) * 3
    scaled_up, scaled_down = around_swish(up, down)
    torch.testing.assert_close(scaled_down(swish(scaled_up(hidden))), down(ACT2FN["quick_gelu"](up(hidden))))
    for left, right in zip(before, (up.weight, up.bias, down.weight, down.bias), strict=True):
        assert torch.equal(left, right)  # the original model stays as it is: parity is measured against it

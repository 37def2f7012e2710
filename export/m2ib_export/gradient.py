"""Owns the route from an encoder's tail to a graph that computes its gradient: the only file that traces autograd."""

from collections.abc import Callable

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

Similarity = tuple[Tensor, Tensor]


def similarity_and_gradient(tail: Callable[..., Tensor], *inputs: Tensor, scale: float = 1.0) -> Similarity:
    """Compute similarity [batch] and its gradient by the features, with autograd.

    similarity = embedding / |embedding| . target; the target is taken as it is. Rows of a batch do not touch each
    other, so the gradient of the sum is the gradient of each row's own similarity.

    tail: (features, *conditions) -> embedding [batch, embedding width].
    inputs: features [batch, tokens, width], the tail's conditions, target [batch, embedding width].
    scale: a power of two that gradients carry on their way back through the tail; it is divided out at the end.
    """
    features, *conditions, target = inputs
    features = features.detach().requires_grad_(True)
    embedding = tail(features, *conditions)
    similarity = (embedding * target).sum(dim=-1) * embedding.square().sum(dim=-1).rsqrt()
    (gradient,) = torch.autograd.grad(scale * similarity.sum(), features)
    return similarity.detach(), gradient if scale == 1 else gradient / scale


def trace_gradient(tail: nn.Module, inputs: tuple[Tensor, ...], *, scale: float = 1.0) -> fx.GraphModule:
    """Turn `similarity_and_gradient` of a tail into a module without autograd, which exports like any other.

    tail: frozen; a parameter that requires a gradient would have it traced.
    inputs: as of `similarity_and_gradient`; an example with batch and tokens of at least 2, which stay dynamic.
    scale: as of `similarity_and_gradient`; for products with a range too small for the gradients as they are.

    Raises:
        ValueError: a parameter of the tail requires a gradient, or the example's batch is smaller than 2.
    """
    if any(parameter.requires_grad for parameter in tail.parameters()):
        raise ValueError("tail: seen a parameter that requires a gradient; allowed: frozen parameters")
    if len(inputs[0]) < 2:
        raise ValueError(f"example batch: seen {len(inputs[0])}; allowed: at least 2")

    def evaluate(*traced: Tensor) -> Similarity:
        return similarity_and_gradient(tail, *traced, scale=scale)

    with sdpa_kernel(SDPBackend.MATH):  # the fused attention's backward has no ONNX form
        return make_fx(
            evaluate,
            tracing_mode="symbolic",
            decomposition_table=dict(torch.export.default_decompositions()),
            _allow_non_fake_inputs=True,  # the parameters are real tensors among fake activations
        )(*inputs)

"""Owns the pre-norm transformer blocks that graphs are made of: the whole block and the one pruned to a pooled token.

Both compute what the usual block computes; only the order of the products differs, to what the hardware does best.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Projections:
    """The four projections of one multi-head self-attention, each [width, width] with bias, and its heads."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    output: nn.Linear
    heads: int

    @property
    def head_width(self) -> int:
        """Channels of one head."""
        return self.query.out_features // self.heads


def project(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply [..., in] by a weight [out, in] -> [..., out], as one product of matrices.

    A product of matrices reads the weight as it lies, forwards and backwards; a batched one wants it transposed.
    """
    return linear(hidden.reshape(-1, weight.shape[1]), weight, bias).reshape(*hidden.shape[:-1], weight.shape[0])


class Attention(nn.Module):
    """The weights of one multi-head self-attention, with the scale of the scores folded into the queries.

    Queries, keys and values are one product: a taller product runs nearer to the hardware's limit.
    """

    def __init__(self, projections: Projections) -> None:
        """Take the projections; the weights that change are copied, the rest is shared."""
        super().__init__()
        query, key, value = projections.query, projections.key, projections.value
        heads, scale = projections.heads, projections.head_width**-0.5
        self.heads = heads
        self.head_width = projections.head_width
        self.projection = _parameter(torch.cat([query.weight * scale, key.weight, value.weight]))
        self.projection_bias = _parameter(torch.cat([query.bias * scale, key.bias, value.bias]))
        self.output = projections.output

    def forward(self, hidden: Tensor, bias: Tensor | None) -> Tensor:
        """[batch, tokens, width] -> the same; bias is added to scores [batch, heads, tokens, tokens]."""
        batch, tokens, width = hidden.shape
        projected = project(hidden, self.projection, self.projection_bias)
        query, key, value = (self._by_head(part) for part in torch.split(projected, width, dim=-1))
        scores = query @ key.transpose(-1, -2)
        weights = (scores if bias is None else scores + bias).softmax(dim=-1)
        return project((weights @ value).transpose(1, 2).reshape(batch, tokens, width), *_of(self.output))

    def _by_head(self, projected: Tensor) -> Tensor:
        batch, tokens, _ = projected.shape
        return projected.view(batch, tokens, self.heads, self.head_width).transpose(1, 2)


class PooledAttention(nn.Module):
    """Self-attention of one query token over all tokens, without projecting keys and values of every token.

    score = q . (W_k h) = (W_k^T q) . h, and sum_i p_i (W_v h_i) = W_v (sum_i p_i h_i): exact, and cheaper by about
    the head's width. The key's bias adds the same to every score, so softmax drops it.
    """

    def __init__(self, projections: Projections) -> None:
        """Take the projections; the weights that change are copied, the rest is shared."""
        super().__init__()
        query, key, value = projections.query, projections.key, projections.value
        heads, scale = projections.heads, projections.head_width**-0.5
        self.heads = heads
        self.head_width = projections.head_width
        self.query = _parameter(query.weight * scale)
        self.query_bias = _parameter(query.bias * scale)
        self.key = _parameter(key.weight.reshape(heads, self.head_width, -1))
        self.value = _parameter(value.weight.reshape(heads, self.head_width, -1))
        self.value_bias = _parameter(value.bias)
        self.output = projections.output

    def forward(self, pooled: Tensor, hidden: Tensor, bias: Tensor | None) -> Tensor:
        """[batch, width], [batch, tokens, width] -> [batch, width]; bias is added to the scores [batch, 1, tokens]."""
        batch, width = pooled.shape
        query = project(pooled, self.query, self.query_bias).view(batch, self.heads, self.head_width)
        key_space = (query.transpose(0, 1) @ self.key).transpose(0, 1)  # [batch, heads, width]
        scores = key_space @ hidden.transpose(-1, -2)
        weights = (scores if bias is None else scores + bias).softmax(dim=-1)
        gathered = (weights @ hidden).transpose(0, 1)  # [heads, batch, width]
        value = (gathered @ self.value.transpose(-1, -2)).transpose(0, 1).reshape(batch, width)
        return project(value + self.value_bias, *_of(self.output))


class Mlp(nn.Module):
    """Two projections around an activation."""

    def __init__(self, *, up: nn.Linear, down: nn.Linear, activation: Activation) -> None:
        """Take the projections from and to the block's width."""
        super().__init__()
        self.up = up
        self.down = down
        self.activation = activation

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., width] -> [..., width]."""
        return project(self.activation(project(hidden, *_of(self.up))), *_of(self.down))


class Block(nn.Module):
    """One pre-norm transformer block over all tokens."""

    def __init__(self, *, attention: Attention, attention_norm: nn.LayerNorm, mlp: Mlp, mlp_norm: nn.LayerNorm) -> None:
        """Take the two halves, each with the norm before it."""
        super().__init__()
        self.attention = attention
        self.attention_norm = attention_norm
        self.mlp = mlp
        self.mlp_norm = mlp_norm

    def forward(self, hidden: Tensor, bias: Tensor | None) -> Tensor:
        """[batch, tokens, width] -> the same; bias as in `Attention`."""
        hidden = hidden + self.attention(self.attention_norm(hidden), bias)
        mixed: Tensor = hidden + self.mlp(self.mlp_norm(hidden))
        return mixed


class PooledBlock(nn.Module):
    """The last block, for the one token that is read after it."""

    def __init__(
        self, *, attention: PooledAttention, attention_norm: nn.LayerNorm, mlp: Mlp, mlp_norm: nn.LayerNorm
    ) -> None:
        """Take the two halves, each with the norm before it."""
        super().__init__()
        self.attention = attention
        self.attention_norm = attention_norm
        self.mlp = mlp
        self.mlp_norm = mlp_norm

    def forward(self, hidden: Tensor, selector: Tensor, bias: Tensor | None) -> Tensor:
        """[batch, tokens, width] -> the selected token's output [batch, width].

        selector: 1.0 at the pooled token and 0.0 elsewhere [batch, tokens]. Its gradient is cheaper than indexing's,
            and it is no product of matrices, since those may be rounded and the residual stream may not.
        bias: added to the scores [batch, 1, tokens].
        """
        pooled = (selector.unsqueeze(-1) * hidden).sum(dim=1)
        attended = self.attention(self.attention_norm(pooled), self.attention_norm(hidden), bias)
        pooled = pooled + attended
        mixed: Tensor = pooled + self.mlp(self.mlp_norm(pooled))
        return mixed


def _parameter(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight.detach().clone().contiguous(), requires_grad=False)


def _of(projection: nn.Linear) -> tuple[Tensor, Tensor | None]:
    return projection.weight, projection.bias

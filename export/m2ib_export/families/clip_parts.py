"""Owns the heads and tails that a `CLIPModel` is exported as: its own weights, in blocks made for a graph."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers.activations import ACT2FN

from m2ib_export.activation import around_swish, swish
from m2ib_export.blocks import Activation, Attention, Block, Mlp, PooledAttention, PooledBlock, Projections


class VisionHead(nn.Module):
    """Pixel values [batch, channels, height, width] -> the output of the last block before the cut."""

    def __init__(self, vision: Any, cut: int) -> None:
        """Take transformers' vision model and the number of blocks before the cut."""
        super().__init__()
        embeddings = vision.embeddings
        self.patch = embeddings.patch_embedding
        self.class_token = embeddings.class_embedding
        self.position = embeddings.position_embedding.weight
        self.norm = vision.pre_layrnorm
        self.blocks = nn.ModuleList(_block(layer) for layer in vision.encoder.layers[:cut])

    def forward(self, pixel_values: Tensor) -> Tensor:
        """[batch, channels, height, width] -> [batch, tokens, width]."""
        patches = self.patch(pixel_values).flatten(2).transpose(1, 2)
        leading = self.class_token.expand(patches.shape[0], 1, -1)
        hidden = self.norm(torch.cat([leading, patches], dim=1) + self.position)
        for block in self.blocks:
            hidden = block(hidden, None)
        return cast("Tensor", hidden)


class VisionTail(nn.Module):
    """Features [batch, tokens, width] -> embedding [batch, embedding width] of the class token."""

    def __init__(self, vision: Any, projection: nn.Linear, cut: int) -> None:
        """Take transformers' vision model, its projection and the number of blocks before the cut."""
        super().__init__()
        *whole, last = vision.encoder.layers[cut:]
        self.blocks = nn.ModuleList(_block(layer) for layer in whole)
        self.last = _pooled_block(last)
        self.norm = vision.post_layernorm
        self.projection = projection

    def forward(self, features: Tensor) -> Tensor:
        """[batch, tokens, width] -> [batch, embedding width]."""
        for block in self.blocks:
            features = block(features, None)
        batch, tokens, _ = features.shape
        selector = (torch.arange(tokens) == 0).to(features.dtype).expand(batch, tokens)
        return linear(self.norm(self.last(features, selector, None)), self.projection.weight)


class TextHead(nn.Module):
    """Token ids and attention mask, int64 [batch, tokens] -> the output of the last block before the cut."""

    def __init__(self, text: Any, cut: int) -> None:
        """Take transformers' text model and the number of blocks before the cut."""
        super().__init__()
        self.token = text.embeddings.token_embedding
        self.position = text.embeddings.position_embedding.weight
        self.blocks = nn.ModuleList(_block(layer) for layer in text.encoder.layers[:cut])

    def forward(self, token_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Int64 [batch, tokens], twice -> [batch, tokens, width]."""
        hidden = self.token(token_ids) + self.position[: token_ids.shape[1]]
        bias = causal_bias(attention_mask)
        for block in self.blocks:
            hidden = block(hidden, bias)
        return cast("Tensor", hidden)


class TextTail(nn.Module):
    """Features, attention mask, pooled position -> embedding [batch, embedding width] of the pooled token."""

    def __init__(self, text: Any, projection: nn.Linear, cut: int) -> None:
        """Take transformers' text model, its projection and the number of blocks before the cut."""
        super().__init__()
        *whole, last = text.encoder.layers[cut:]
        self.blocks = nn.ModuleList(_block(layer) for layer in whole)
        self.last = _pooled_block(last)
        self.norm = text.final_layer_norm
        self.projection = projection

    def forward(self, features: Tensor, attention_mask: Tensor, pooled_position: Tensor) -> Tensor:
        """[batch, tokens, width], int64 [batch, tokens], int64 [batch] -> [batch, embedding width]."""
        bias = causal_bias(attention_mask) if len(self.blocks) else None
        for block in self.blocks:
            features = block(features, bias)
        position = torch.arange(features.shape[1])
        selector = (position == pooled_position.unsqueeze(1)).to(features.dtype)
        is_visible = (position <= pooled_position.unsqueeze(1)) & (attention_mask != 0)
        pooled = self.last(features, selector, hiding_bias(is_visible).unsqueeze(1))
        return linear(self.norm(pooled), self.projection.weight)


def causal_bias(attention_mask: Tensor) -> Tensor:
    """Hide later tokens and padding: int64 [batch, tokens] -> scores' bias [batch, 1, tokens, tokens]."""
    position = torch.arange(attention_mask.shape[1])
    is_visible = (position <= position.unsqueeze(1)) & (attention_mask != 0).unsqueeze(1)
    return hiding_bias(is_visible).unsqueeze(1)


def hiding_bias(is_visible: Tensor) -> Tensor:
    """0 where visible, the lowest float32 elsewhere, so that softmax gives exactly 0 there."""
    return torch.where(is_visible, 0.0, torch.finfo(torch.float32).min)


def _block(layer: Any) -> Block:
    return Block(
        attention=Attention(_projections(layer)),
        attention_norm=layer.layer_norm1,
        mlp=_mlp(layer),
        mlp_norm=layer.layer_norm2,
    )


def _pooled_block(layer: Any) -> PooledBlock:
    return PooledBlock(
        attention=PooledAttention(_projections(layer)),
        attention_norm=layer.layer_norm1,
        mlp=_mlp(layer),
        mlp_norm=layer.layer_norm2,
    )


def _projections(layer: Any) -> Projections:
    attention = layer.self_attn
    return Projections(
        query=attention.q_proj,
        key=attention.k_proj,
        value=attention.v_proj,
        output=attention.out_proj,
        heads=attention.config.num_attention_heads,
    )


def _mlp(layer: Any) -> Mlp:
    up, down, name = layer.mlp.fc1, layer.mlp.fc2, layer.mlp.config.hidden_act
    if name == "quick_gelu":
        up, down = around_swish(up, down)
        return Mlp(up=up, down=down, activation=swish)
    return Mlp(up=up, down=down, activation=cast("Activation", ACT2FN[name]))

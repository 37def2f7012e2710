"""Similarities of images with texts, without a bottleneck."""

from collections.abc import Sequence

import torch
from torch import Tensor

from m2ib_server.methods.encoder import EncoderInput, encode
from m2ib_server.methods.evaluation import Method


def score(images: Sequence[EncoderInput], texts: Sequence[EncoderInput]) -> Method[Tensor]:
    """Return the cosine similarities [images, texts], in [-1, 1], on the CPU."""
    encoded = yield from encode((*images, *texts))
    embeddings = torch.cat([each.embedding for each in encoded])
    return (embeddings[: len(images)] @ embeddings[len(images) :].T).clamp(-1, 1).cpu()

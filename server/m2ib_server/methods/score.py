"""Similarities of images with texts, without a bottleneck."""

from collections.abc import Sequence

import torch
from torch import Tensor

from m2ib_server.methods.encoder import HEAD, TAIL, EncoderInput, encode
from m2ib_server.methods.evaluation import Method, Side
from m2ib_server.package import Role


def score(images: Sequence[EncoderInput], texts: Sequence[EncoderInput], *, rows: int) -> Method[Tensor]:
    """Return the cosine similarities [images, texts], in [-1, 1], on the CPU, encoding `rows` inputs at a time.

    Raises:
        EmbeddingUndefined: naming the entry of the list.
    """
    sources, encoded = (*images, *texts), list[Tensor]()
    fields = [f"{name}[{index}]" for name, side in (("images", images), ("texts", texts)) for index in range(len(side))]
    for start in range(0, len(sources), rows):
        part = yield from encode(sources[start : start + rows], fields[start : start + rows])
        encoded += [each.embedding for each in part]
    embeddings = torch.cat(encoded)
    return (embeddings[: len(images)] @ embeddings[len(images) :].T).clamp(-1, 1).cpu()


def score_work(images: Sequence[EncoderInput], texts: Sequence[EncoderInput]) -> dict[Role, int]:
    """Return the rows that scoring evaluates in all, by graph, when nothing of it is kept."""
    counts = {Side.IMAGE: len(images), Side.TEXT: len(texts)}
    return {role: count for side, count in counts.items() for role in (HEAD[side], TAIL[side])}

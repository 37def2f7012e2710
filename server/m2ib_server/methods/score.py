"""Similarities of images with texts, without a bottleneck."""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from m2ib_server.methods.encoder import HEAD, TAIL, EncoderInput, encode
from m2ib_server.methods.evaluation import Method, Side
from m2ib_server.package import Role


def score(images: Mapping[int, EncoderInput], texts: Sequence[EncoderInput], *, rows: int) -> Method[Tensor]:
    """Return the cosine similarities [images, texts], in [-1, 1], on the CPU, encoding `rows` inputs at a time.

    Args:
        images: by their place in the caller's list.
        texts: all of the caller's.
        rows: inputs of one evaluation.

    Raises:
        EmbeddingUndefined: naming the entry of the list.
    """
    sources, encoded = (*images.values(), *texts), list[Tensor]()
    fields = [f"images[{place}]" for place in images] + [f"texts[{place}]" for place in range(len(texts))]
    for start in range(0, len(sources), rows):
        part = yield from encode(sources[start : start + rows], fields[start : start + rows])
        encoded += [each.embedding for each in part]
    embeddings = torch.cat(encoded)
    return (embeddings[: len(images)] @ embeddings[len(images) :].T).clamp(-1, 1).cpu()


def score_work(images: Collection[EncoderInput], texts: Sequence[EncoderInput]) -> dict[Role, int]:
    """Return the rows that scoring evaluates in all, by graph, when nothing of it is kept."""
    counts = {Side.IMAGE: len(images), Side.TEXT: len(texts)}
    return {role: count for side, count in counts.items() for role in (HEAD[side], TAIL[side])}

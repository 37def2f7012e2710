"""Ranks a similarity among those of a package's reference texts, so that a wrong text can be told from a right one."""

from dataclasses import dataclass

import torch
from torch import Tensor

from m2ib_server.package import ModelPackage

# Stored embeddings come from a padded batch and a text's own from a row without padding: the same text differs from
# itself by rounding, some 1e-7 in a cosine. Cosines of different texts that lie closer than this are no order.
SAME_WITHIN = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceRank:
    """Where a similarity stands; fields as in m2ib.v1.ReferenceRank."""

    rank: int
    references: int
    best_reference: str
    best_similarity: float
    mean_similarity: float


class ReferenceTexts:
    """A package's reference texts, embedded at export."""

    def __init__(self, package: ModelPackage) -> None:
        """Read the texts and their embeddings."""
        self.texts = package.reference_texts()
        self._embeddings = torch.from_numpy(package.reference_embeddings())

    def rank(self, image_embedding: Tensor, similarity: float) -> ReferenceRank:
        """Rank a similarity of an image with some text, given the image's embedding.

        Reference texts within `SAME_WITHIN` of the similarity, the same text among them, are no better.
        image_embedding: normalised [1, embedding width], on the CPU.
        """
        similarities = (image_embedding @ self._embeddings.T)[0]
        best = int(similarities.argmax())
        return ReferenceRank(
            rank=1 + int((similarities > similarity + SAME_WITHIN).sum()),
            references=len(self.texts),
            best_reference=self.texts[best],
            best_similarity=float(similarities[best]),
            mean_similarity=float(similarities.mean()),
        )

"""The training loss: contrastive with many true captions a film, plus helps that are thrown away afterwards."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPModel

from m2ib_export.demo.architecture import WIDTH
from m2ib_export.demo.batch import SIDED_KINDS, Batch
from m2ib_export.demo.finding import ALL_FINDINGS

READING_BLOCK = 2  # 0-based vision block whose output the early patch helps read
PATCH_WEIGHT = 4.0  # of a positive patch label; they are rare
WEIGHTS = {"match": 1.0, "finding": 8.0, "early_patch": 10.0, "late_patch": 4.0, "patch_text": 3.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """One forward pass. Image [B, width] and text [2B, width] are unit vectors; patches are [B, 64, width]."""

    image: Tensor
    text: Tensor
    pooled: Tensor
    early_patches: Tensor
    late_patches: Tensor


class TrainingHeads(nn.Module):
    """Heads that teach the towers what is where; no part of the checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.finding = nn.Linear(WIDTH, len(ALL_FINDINGS))
        self.early_patch = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, len(SIDED_KINDS)))
        self.late_patch = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, len(SIDED_KINDS)))
        self.patch_text = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH))
        self.patch_scale = nn.Parameter(torch.tensor(10.0))
        self.patch_bias = nn.Parameter(torch.tensor(-5.0))

    def patch_text_logits(self, patches: Tensor, text: Tensor) -> Tensor:
        """How well each patch [B, 64, width] fits its film's text [B, width]: [B, 64]."""
        projected = functional.normalize(self.patch_text(patches), dim=-1)
        return self.patch_scale * torch.einsum("bpc,bc->bp", projected, text) + self.patch_bias


def embed(model: CLIPModel, pixels: Tensor, token_ids: Tensor, attention_mask: Tensor) -> Embedding:
    """Run both towers, keeping the patches after the reading block and after the last one."""
    vision = model.vision_model(pixels, output_hidden_states=True)
    pooled = vision.pooler_output
    text = model.text_model(input_ids=token_ids, attention_mask=attention_mask).pooler_output
    return Embedding(
        image=functional.normalize(model.visual_projection(pooled), dim=-1),
        text=functional.normalize(model.text_projection(text), dim=-1),
        pooled=pooled,
        early_patches=vision.hidden_states[READING_BLOCK + 1][:, 1:],
        late_patches=vision.hidden_states[-1][:, 1:],
    )


def training_losses(embedding: Embedding, heads: TrainingHeads, batch: Batch, scale: Tensor) -> dict[str, Tensor]:
    """Every part of the loss, unweighted. scale: the contrastive temperature's inverse."""
    return {
        "match": contrastive_loss(scale * embedding.image @ embedding.text.T, batch.truths),
        "finding": functional.binary_cross_entropy_with_logits(heads.finding(embedding.pooled), batch.labels),
        "early_patch": patch_loss(heads.early_patch(embedding.early_patches), batch.patch_labels),
        "late_patch": patch_loss(heads.late_patch(embedding.late_patches), batch.patch_labels),
        "patch_text": patch_text_loss(embedding, heads, batch),
    }


def total_loss(losses: dict[str, Tensor]) -> Tensor:
    """The weighted sum."""
    return torch.stack([WEIGHTS[name] * loss for name, loss in losses.items()]).sum()


def contrastive_loss(logits: Tensor, truths: Tensor) -> Tensor:
    """Cross entropy both ways where the target is spread evenly over all that is true.

    logits, truths: [films, captions]. Captions that are true of no film only serve as wrong answers.
    """
    by_film = spread_cross_entropy(logits, truths)
    told = truths.any(dim=0)
    return 0.5 * (by_film + spread_cross_entropy(logits.T[told], truths.T[told]))


def spread_cross_entropy(logits: Tensor, truths: Tensor) -> Tensor:
    """Mean cross entropy of rows against a uniform target over each row's truths."""
    target = truths.float() / truths.sum(dim=1, keepdim=True)
    return -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()


def patch_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross entropy of patch labels with positives weighted up."""
    return functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=torch.tensor(PATCH_WEIGHT))


def patch_text_loss(embedding: Embedding, heads: TrainingHeads, batch: Batch) -> Tensor:
    """Patches must fit their film's caption just where its finding is, and a near miss nowhere."""
    films = len(batch.vague)
    own = heads.patch_text_logits(embedding.early_patches, embedding.text[:films])
    near_miss = heads.patch_text_logits(embedding.early_patches, embedding.text[films:])
    placed = ~batch.vague
    return patch_loss(own[placed], batch.caption_patches[placed]) + 0.5 * patch_loss(
        near_miss, torch.zeros_like(near_miss)
    )

"""Draws training batches: films with jitter, a caption and a near miss for each, and who is true of whom."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from m2ib_export.demo.anatomy import Side
from m2ib_export.demo.architecture import PIXEL_MEAN, PIXEL_STD
from m2ib_export.demo.corpus import CELL_SIDE, CELLS, INPUT_SIDE, MAX_FINDINGS, FilmSet
from m2ib_export.demo.finding import ALL_FINDINGS, Finding, Kind
from m2ib_export.demo.phrase import Caption, decoy_of, matches, sample_caption, single_caption

GRID = 8  # patches a side
CELLS_PER_PATCH = CELLS // GRID
LARGEST_SHIFT = 2  # cells
SIDED_KINDS = tuple(dict.fromkeys((finding.kind, finding.side) for finding in ALL_FINDINGS))
SIDED_KIND_OF = np.array([SIDED_KINDS.index((finding.kind, finding.side)) for finding in ALL_FINDINGS])


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One training batch of B films and 2B captions: B true ones in film order, then B near misses.

    pixels: float32 [B, 3, 128, 128], normalised; truths: bool [B, 2B]; labels: float32 [B, findings];
    patch_labels: float32 [B, 64, sided kinds]; caption_patches: float32 [B, 64], where film b shows what caption
    b claims; vague: bool [B], caption claims nothing that has a place.
    """

    pixels: Tensor
    texts: list[str]
    truths: Tensor
    labels: Tensor
    patch_labels: Tensor
    caption_patches: Tensor
    vague: Tensor


def draw_batch(films: FilmSet, size: int, rng: np.random.Generator, *, jitter: bool = True) -> Batch:
    """Draw distinct films and word each anew."""
    rows = np.sort(rng.choice(len(films.images), size, replace=False))
    return make_batch(films, rows, rng, jitter=jitter)


def make_batch(films: FilmSet, rows: NDArray[np.int64], rng: np.random.Generator, *, jitter: bool) -> Batch:
    """Word and stack the films of the given rows."""
    images, covers = np.asarray(films.images[rows]), np.asarray(films.covers[rows])
    if jitter:
        images, covers = shift(images, covers, rng)
    found = [films.findings(int(row)) for row in rows]
    captions = [sample_caption(findings, rng) for findings in found]
    decoys = [sample_decoy(caption, findings, rng) for caption, findings in zip(captions, found, strict=True)]
    patches = patch_covers(covers)
    pixels = torch.from_numpy(images).float().div_(255)
    return Batch(
        pixels=normalised(jittered(pixels, rng) if jitter else pixels),
        texts=[caption.text for caption in captions + decoys],
        truths=torch.from_numpy(truth_table(found, captions + decoys)),
        labels=torch.from_numpy(film_labels(films.codes[rows])),
        patch_labels=torch.from_numpy(patch_labels(films.codes[rows], patches)),
        caption_patches=torch.from_numpy(caption_patches(captions, found, patches)),
        vague=torch.tensor([not caption.claims for caption in captions]),
    )


def sample_decoy(caption: Caption, findings: tuple[Finding, ...], rng: np.random.Generator) -> Caption:
    """A caption that is false of the film, as near to the true one as can be."""
    base = caption.claims[0] if caption.claims else ALL_FINDINGS[int(rng.integers(len(ALL_FINDINGS)))]
    while True:
        decoy = single_caption(decoy_of(base, findings, rng), rng)
        if not any(matches(decoy.claims[0], finding) for finding in findings):
            return decoy


def shift(
    images: NDArray[np.uint8], covers: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Move each film and its masks together by whole mask cells, black coming in at the border."""
    wide, edge = LARGEST_SHIFT, LARGEST_SHIFT * CELL_SIDE
    padded = np.pad(images, ((0, 0), (edge, edge), (edge, edge)))
    padded_covers = np.pad(covers, ((0, 0), (0, 0), (wide, wide), (wide, wide)))
    moved, moved_covers = np.empty_like(images), np.empty_like(covers)
    for row, (down, right) in enumerate(rng.integers(0, 2 * wide + 1, (len(images), 2))):
        top, left = down * CELL_SIDE, right * CELL_SIDE
        moved[row] = padded[row, top : top + INPUT_SIDE, left : left + INPUT_SIDE]
        moved_covers[row] = padded_covers[row, :, down : down + CELLS, right : right + CELLS]
    return moved, moved_covers


def jittered(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Vary gamma, contrast, brightness and grain of films [B, 128, 128] in 0..1."""

    def draw(low: float, high: float) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (len(pixels), 1, 1))).float()

    level = pixels.clamp_min(1e-4).pow(draw(0.75, 1.3)).mul(draw(0.85, 1.15)).add(draw(-0.04, 0.06))
    grain = torch.from_numpy(rng.standard_normal(pixels.shape, dtype=np.float32))
    return level.add(grain * draw(0.0, 0.03)).clamp(0, 1)


def normalised(pixels: Tensor) -> Tensor:
    """Films [B, 128, 128] in 0..1 as the model's input [B, 3, 128, 128]."""
    return ((pixels - PIXEL_MEAN) / PIXEL_STD).unsqueeze(1).expand(-1, 3, -1, -1)


def patch_covers(covers: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which patches show each finding: bool [B, 3, 64].

    A patch counts if the finding covers half of it, or at least 30 % as much as the patch it covers most.
    """
    split = covers.reshape(len(covers), MAX_FINDINGS, GRID, CELLS_PER_PATCH, GRID, CELLS_PER_PATCH)
    shares = split.mean(axis=(3, 5)).reshape(len(covers), MAX_FINDINGS, GRID * GRID) / 255
    most = shares.max(axis=2, keepdims=True)
    return np.asarray((shares > 0) & ((shares >= 0.5) | (shares >= 0.3 * most)))


def film_labels(codes: NDArray[np.int8]) -> NDArray[np.float32]:
    """Findings of each film as 0 or 1: [B, findings]."""
    return np.asarray((codes[:, :, None] == np.arange(len(ALL_FINDINGS))).any(axis=1), np.float32)


def patch_labels(codes: NDArray[np.int8], patches: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Kind and side of the findings each patch shows, as 0 or 1: [B, 64, sided kinds]."""
    sided = np.where(codes >= 0, SIDED_KIND_OF[codes], -1)
    one_hot = sided[:, :, None] == np.arange(len(SIDED_KINDS))  # [B, 3, sided kinds]
    return np.asarray((patches[:, :, :, None] & one_hot[:, :, None, :]).any(axis=1), np.float32)


def caption_patches(
    captions: list[Caption], found: list[tuple[Finding, ...]], patches: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Patches of each film that show something its own caption claims: [B, 64]."""
    shown = np.zeros((len(captions), GRID * GRID), np.float32)
    for row, (caption, findings) in enumerate(zip(captions, found, strict=True)):
        for position, finding in enumerate(findings):
            if any(matches(claim, finding) for claim in caption.claims):
                shown[row] = np.maximum(shown[row], patches[row, position])
    return shown


def truth_table(found: list[tuple[Finding, ...]], captions: list[Caption]) -> NDArray[np.bool_]:
    """Which caption is true of which film, `phrase.is_true` for all pairs at once: bool [films, captions]."""
    facts = encoded(found, absent=-9)[:, None, None, :]  # [films, 1, 1, findings, 3]
    claims = encoded([caption.claims for caption in captions], absent=-8)[None, :, :, None]
    fits = (claims == facts) | ((claims == -1) & (facts > -9))
    holds = fits.all(axis=-1).any(axis=-1) | (claims[..., 0, 0] == -8)  # [films, captions, claims]
    normal = np.array([not findings for findings in found])[:, None]
    claimless = np.array([not caption.claims for caption in captions])[None, :]
    return np.where(claimless, normal, holds.all(axis=2))


def encoded(groups: list[tuple[Finding, ...]], absent: int) -> NDArray[np.int8]:
    """Kind, side and zone numbers, -1 where open: int8 [groups, 3, 3]; rows beyond a group hold `absent`."""
    numbers = np.full((len(groups), MAX_FINDINGS, 3), absent, np.int8)
    for row, group in enumerate(groups):
        for position, finding in enumerate(group):
            numbers[row, position] = (
                list(Kind).index(finding.kind),
                list(Side).index(finding.side) if finding.side else -1,
                finding.zone.index if finding.zone else -1,
            )
    return numbers

"""Scores maps against the phantoms' masks. Arrays in, one figure a film out; no model here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from m2ib_export.demo.batch import GRID
from m2ib_export.demo.corpus import CELLS

Scores = NDArray[np.float64]
RESAMPLES = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A mean over films with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float
    films: int


def figure(scores: Scores, seed: int = 0) -> Figure:
    """Mean of per-film scores; the interval from resampling films."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(scores), (RESAMPLES, len(scores)))
    low, high = np.percentile(scores[picks].mean(axis=1), [2.5, 97.5])
    return Figure(
        mean=round(float(scores.mean()), 3), low=round(float(low), 3), high=round(float(high), 3), films=len(scores)
    )


def upsampled(patches: Tensor) -> Tensor:
    """Maps [N, 64] on the masks' cells by bilinear interpolation, corners not aligned: [N, 32, 32]."""
    maps = patches.float().reshape(-1, 1, GRID, GRID)
    return functional.interpolate(maps, size=(CELLS, CELLS), mode="bilinear", align_corners=False)[:, 0]


def pointing(patches: Tensor, covers: Tensor) -> Scores:
    """1 where the centre of the brightest patch lies in the mask's box grown by one patch, else 0.

    patches: [N, 64]; covers: share of each cell in the mask, [N, 32, 32].
    """
    brightest = patches.argmax(dim=1)
    per_patch = CELLS // GRID
    row = (brightest // GRID + 0.5) * per_patch
    column = (brightest % GRID + 0.5) * per_patch
    hit_row = within(covers.amax(dim=2) > 0, row, per_patch)
    hit_column = within(covers.amax(dim=1) > 0, column, per_patch)
    return np.asarray((hit_row & hit_column).double())


def within(covered: Tensor, place: Tensor, margin: int) -> Tensor:
    """Whether each place lies between the first and last covered cell, `margin` cells added. covered: [N, cells]."""
    cells = covered.shape[1]
    first = covered.int().argmax(dim=1)
    last = cells - covered.flip(1).int().argmax(dim=1)
    return (place >= first - margin) & (place <= last + margin)


def lift(patches: Tensor, covers: Tensor) -> Scores:
    """Share of the upsampled map's mass in the mask, over the mask's share of the film's area."""
    maps = upsampled(patches)
    share = (maps * covers).sum(dim=(1, 2)) / maps.sum(dim=(1, 2))
    return np.asarray((share / covers.mean(dim=(1, 2))).double())


def brightness(patches: Tensor, covers: Tensor, *, peak: bool) -> Tensor:
    """Largest value, or mean, of the upsampled map over the cells at least half as covered as the fullest: [N]."""
    maps = upsampled(patches)
    inside = covers >= 0.5 * covers.amax(dim=(1, 2), keepdim=True)
    if peak:
        return maps.masked_fill(~inside, -torch.inf).amax(dim=(1, 2))
    return (maps * inside).sum(dim=(1, 2)) / inside.sum(dim=(1, 2))


def named_brighter(patches: Tensor, named: Tensor, other: Tensor, *, peak: bool) -> Scores:
    """1 where the named finding is the brighter of two, one half where they tie, else 0."""
    gap = brightness(patches, named, peak=peak) - brightness(patches, other, peak=peak)
    return np.asarray((0.5 * (torch.sign(gap) + 1)).double())

"""Scores maps: agreement of two maps of a film, quality against the phantoms' masks, intervals. No model here."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import from_numpy

from fidelity_contenders import Contender
from fidelity_mask import Array
from m2ib_export.demo.metric import RESAMPLES, lift, named_brighter, pointing
from m2ib_export.demo.trial import Trial

Scores = NDArray[np.float64]
TOP_SHARE = 0.1
SETTLED = 0.99


def spearman(left: Array, right: Array) -> Scores:
    """Rank correlation of maps [N, patches], ties averaged: [N]."""
    return pearson(rankdata(left, axis=1), rankdata(right, axis=1))


def pearson(left: NDArray[np.floating], right: NDArray[np.floating]) -> Scores:
    """Correlation of the values of maps [N, patches]; 0 where a map is constant: [N]."""
    left, right = left - left.mean(axis=1, keepdims=True), right - right.mean(axis=1, keepdims=True)
    scale = np.sqrt((left**2).sum(axis=1) * (right**2).sum(axis=1))
    return np.asarray((left * right).sum(axis=1) / np.where(scale > 0, scale, 1), np.float64)


def overlap(left: Array, right: Array) -> Scores:
    """Share of the brightest tenth of patches that two maps [N, patches] have in common: [N]."""
    count = round(TOP_SHARE * left.shape[1])
    tops = [np.argsort(-maps, axis=1, kind="stable")[:, :count] for maps in (left, right)]
    return np.asarray((tops[0][:, :, None] == tops[1][:, None, :]).any(axis=2).mean(axis=1), np.float64)


AGREEMENT: dict[str, Callable[[Array, Array], Scores]] = {"rank": spearman, "value": pearson, "top": overlap}


def quality(maps: Array, trial: Trial) -> dict[str, Scores]:
    """One score a film for maps [N, 64]: pointing, lift and the two forms of two-finding preference."""
    patches = from_numpy(maps)
    assert trial.other_covers is not None, "the study asks films of two findings"
    scores = {"pointing": pointing(patches, trial.covers), "lift": lift(patches, trial.covers)}
    for name, is_peak in (("named_peak", True), ("named_mean", False)):
        scores[name] = named_brighter(patches, trial.covers, trial.other_covers, peak=is_peak)
    return scores


def interval(scores: Scores) -> tuple[float, float, float]:
    """Mean of per-film scores and its 95 % interval from resampling films; of differences, the paired interval."""
    picks = np.random.default_rng(0).integers(0, len(scores), (RESAMPLES, len(scores)))
    low, high = np.percentile(scores[picks].mean(axis=1), [2.5, 97.5])
    return float(scores.mean()), float(low), float(high)


def reading(bits: Array, contender: Contender) -> Array:
    """A contender's maps [N, 64] from a trajectory's bits [steps + 1, N, 65]."""
    return bits[contender.updates, :, 1:]


def settled(bits: Array) -> tuple[Array, NDArray[np.int64]]:
    """Read each film's map where it first resembles the last step's; returns maps [N, 64] and steps paid for [N].

    The map of step t settles the matter when its value correlation with that of step t - 1 reaches SETTLED.
    """
    steps, films = bits.shape[0] - 1, bits.shape[1]
    paid = np.full(films, steps)
    for step in range(steps, 2, -1):  # step 1 reads the untouched mask
        is_still = pearson(bits[step - 1, :, 1:], bits[step - 2, :, 1:]) >= SETTLED
        paid[is_still] = step
    return bits[paid - 1, np.arange(films), 1:], paid


def among_seeds(maps: Sequence[Array]) -> dict[str, float]:
    """Mean agreement over pairs of seeds and over films."""
    pairs = [(left, right) for at, left in enumerate(maps) for right in maps[at + 1 :]]
    return {name: float(np.mean([agree(left, right) for left, right in pairs])) for name, agree in AGREEMENT.items()}

"""How far independent repeats of one attribution lie apart."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The repeats of an attribution held against one another.

    Attributes:
        std: the standard deviation per token [tokens], in bits, n - 1 in the denominator.
        stability: the mean Spearman rank correlation between two repeats, in [-1, 1].
    """

    std: NDArray[np.float32]
    stability: float


def spread_of(repeat_bits: Tensor) -> Spread | None:
    """Return the spread of repeats [repeats, tokens], in bits; None for a single one."""
    if repeat_bits.shape[0] < 2:
        return None
    values: NDArray[np.float32] = repeat_bits.numpy()
    pairs = combinations(range(values.shape[0]), 2)
    correlations = [rank_correlation(values[first], values[second]) for first, second in pairs]
    return Spread(std=values.std(axis=0, ddof=1), stability=float(np.mean(correlations)))


def rank_correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Return Spearman's rank correlation of two [tokens], ties averaged; 1 where both are constant, 0 where one is."""
    ranks = _ranks(first), _ranks(second)
    spreads = [float(each.std()) for each in ranks]
    if not all(spreads):
        return 0.0 if any(spreads) else 1.0
    centred = [each - each.mean() for each in ranks]
    return float((centred[0] * centred[1]).mean() / (spreads[0] * spreads[1]))


def _ranks(values: NDArray[np.float32]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last: NDArray[np.float64] = np.cumsum(counts).astype(np.float64)
    return (last - (counts - 1) / 2)[inverse]

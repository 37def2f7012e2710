"""Draws measurements as PNG, without a display."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

mpl.use("Agg")

_WIDTH_INCHES = 8.0
_BAR_INCHES = 0.5
_FRAME_INCHES = 1.2


def draw_bars(seconds: Mapping[str, Sequence[float]], title: str, path: Path) -> None:
    """Draw each contender's median as a bar, with a line from its fastest to its slowest round, in seconds."""
    figure = Figure(figsize=(_WIDTH_INCHES, _FRAME_INCHES + _BAR_INCHES * len(seconds)), layout="constrained")
    axes = figure.add_subplot()
    names = list(seconds)
    medians = [statistics.median(taken) for taken in seconds.values()]
    below = [median - min(taken) for median, taken in zip(medians, seconds.values(), strict=True)]
    above = [max(taken) - median for median, taken in zip(medians, seconds.values(), strict=True)]
    axes.barh(names, medians, xerr=[below, above], color="#4c72b0", ecolor="#333333", capsize=3)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds, median; the line spans fastest to slowest")
    axes.set_title(title, fontsize="medium")
    figure.savefig(path, dpi=120)

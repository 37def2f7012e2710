"""Draws measurements as PNG, without a display."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

mpl.use("Agg")

_WIDTH_INCHES = 8.0
_BAR_INCHES = 0.5
_FRAME_INCHES = 1.2
_PANEL_INCHES = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One plot of several.

    Attributes:
        x: what the horizontal axis shows, with its unit.
        y: the same of the vertical axis, which begins at 0.
        curves: the points (x, y) of each curve.
    """

    x: str
    y: str
    curves: Mapping[str, Sequence[tuple[float, float]]]


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


def draw_panels(panels: Sequence[Panel], title: str, path: Path) -> None:
    """Draw plots side by side."""
    figure = Figure(figsize=(_PANEL_INCHES * len(panels), _PANEL_INCHES), layout="constrained")
    for panel, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
        for name, points in panel.curves.items():
            axes.plot([x for x, _ in points], [y for _, y in points], marker="o", markersize=4, label=name)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(panel.x)
        axes.set_ylabel(panel.y)
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3)
    figure.suptitle(title, fontsize="medium")
    figure.savefig(path, dpi=120)

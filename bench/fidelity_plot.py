"""Draws quality and steadiness of maps against their cost."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

PANELS = (
    ("pointing", "brightest patch on the finding"),
    ("lift", "mass in the mask over its share of the film"),
    ("named_mean", "named finding the brighter of two (mean)"),
    ("seeds", "value correlation of two seeds' maps"),
)
COLOURS = {"channel": ("#9ecae1", "#4292c6", "#08306b"), "token": ("#fdae6b", "#d94801", "#7f2704")}
SHADES = {0.3: 0, 1.0: 1, 3.0: 1, 5.0: 2}
CHANNEL_SHADES = {1.0: 0, 3.0: 1, 5.0: 2}


def draw(entries: list[dict[str, Any]], path: Path) -> None:
    """Draw one panel a measure, a point a setting with its interval; means over seeds of maps are left out."""
    figure = Figure(figsize=(10, 7.5), layout="constrained")
    drawn = [entry for entry in entries if "seeds" in entry]
    for axes, (measure, title) in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        for entry in drawn:
            _point(axes, entry, measure)
        axes.set(title=title, xlabel="row-steps", xscale="log")
        axes.set_xticks([10, 20, 40, 100], ["10", "20", "40", "100"])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=5)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _point(axes: Axes, entry: dict[str, Any], measure: str) -> None:
    shade = (CHANNEL_SHADES if entry["shape"] == "channel" else SHADES)[entry["beta"]]
    style = {"color": COLOURS[entry["shape"]][shade], "label": f"{entry['shape']}, beta {entry['beta']:g}"}
    marker = "s" if "settled" in entry["setting"] else "^" if "pairs" in entry["setting"] else "o"
    if measure == "seeds":
        axes.plot(entry["row_steps"], entry["seeds"]["value"], marker, **style)
        return
    mean, low, high = entry[measure]
    is_published = entry["setting"] == "channel, beta 1, 10x10"
    axes.errorbar(entry["row_steps"], mean, [[mean - low], [high - mean]], fmt=marker, capsize=2, **style)
    if is_published:
        axes.axhline(mean, color="#9ecae1", linewidth=0.8, linestyle="--")

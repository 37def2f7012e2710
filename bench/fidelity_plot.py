"""Draws quality and steadiness of maps against their cost."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

PANELS = (
    ("pointing", "brightest patch on the finding"),
    ("lift", "mass in the mask over its share of the film"),
    ("named_mean", "named finding the brighter of two (mean)"),
    ("seeds", "value correlation of two seeds' maps"),
)
STYLES = {  # colour, and a factor on the row-steps so that settings of the same cost stand side by side
    ("channel", 1.0): ("#9ecae1", 0.92),
    ("channel", 3.0): ("#4292c6", 0.96),
    ("channel", 5.0): ("#08306b", 1.0),
    ("token", 0.3): ("#fdae6b", 1.04),
    ("token", 1.0): ("#d94801", 1.08),
}
MARKERS = {"after the last update": "D", "opposite pairs": "^"}
EFFORTS = {
    "channel, beta 5, 10x10": "published",
    "channel, beta 5, 2x20": "fast",
    "channel, beta 5, 5x20": "specific",
}
UNMOVED = ("stopped when settled", "10x5")  # read before the mask has left its start: at chance, far below the rest


def draw(entries: list[dict[str, Any]], path: Path) -> None:
    """Draw one panel a measure, a point a setting with its interval.

    Left out are means over several seeds' maps and maps that were read before the mask has moved.
    """
    drawn = [entry for entry in entries if "seeds" in entry and not any(name in entry["setting"] for name in UNMOVED)]
    figure = Figure(figsize=(10, 7.5), layout="constrained")
    for axes, (measure, title) in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        for entry in drawn:
            _point(axes, entry, measure)
        axes.set(title=title, xlabel="row-steps", xscale="log", xlim=(8, 150))
        axes.set_xticks([10, 20, 40, 100], ["10", "20", "40", "100"])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.legend(handles=_legend(drawn), loc="outside lower center", ncols=4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _point(axes: Axes, entry: dict[str, Any], measure: str) -> None:
    colour, factor = STYLES[entry["shape"], entry["beta"]]
    cost = entry["row_steps"] * factor
    style: dict[str, Any] = {"color": colour, "marker": _marker(entry["setting"]), "linestyle": ""}
    if measure == "seeds":
        mean = entry["seeds"]["value"]
        axes.plot(cost, mean, **style)
    else:
        mean, low, high = entry[measure]
        axes.errorbar(cost, mean, [[mean - low], [high - mean]], capsize=2, **style)
    effort = EFFORTS.get(entry["setting"])
    if effort:
        axes.annotate(effort, (cost, mean), xytext=(7, 4), textcoords="offset points", fontsize=8, color=colour)
    if effort == "published":
        axes.axhline(mean, color=colour, linewidth=0.8, linestyle="--", alpha=0.6)


def _marker(setting: str) -> str:
    return next((marker for name, marker in MARKERS.items() if name in setting), "o")


def _legend(drawn: list[dict[str, Any]]) -> list[Line2D]:
    settings = sorted({(entry["shape"], entry["beta"]) for entry in drawn})
    colours = [
        Line2D([], [], color=STYLES[setting][0], marker="o", linestyle="", label=f"{setting[0]}, beta {setting[1]:g}")
        for setting in settings
    ]
    markers = [
        Line2D([], [], color="grey", marker=marker, linestyle="", label=name) for name, marker in MARKERS.items()
    ]
    return colours + markers

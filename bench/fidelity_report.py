"""Turns the finished jobs of `fidelity.py` into `bench/fidelity.json`, the table of `docs/fidelity.md` and its plot.

Run as `python bench/fidelity_report.py`. A contender counts with the films that every one of its seeds has finished;
differences to the published setting are taken on the films that both have.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from fidelity import path_of
from fidelity_contenders import (
    AS_PUBLISHED,
    AVERAGED,
    CONTENDERS,
    FILMS,
    PART,
    REFERENCE_FILMS,
    REFERENCE_SEEDS,
    REFERENCES,
    SEEDS,
    SETTLING,
    Contender,
    Job,
)
from fidelity_figures import AGREEMENT, Scores, among_seeds, interval, quality, reading, settled
from fidelity_films import two_finding_trial
from fidelity_mask import Array, Plan
from fidelity_plot import draw
from m2ib_export.demo.trial import Trial, first

JSON, DOCUMENT, PLOT = Path("bench/fidelity.json"), Path("docs/fidelity.md"), Path("docs/images/fidelity.png")
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
QUALITY = ("pointing", "lift", "named_peak", "named_mean")
HEAD = "| setting | row-steps | films | pointing | lift | named (peak) | named (mean) | seeds agree | converged |"
Entry = dict[str, Any]


def main() -> None:
    """Write everything from what has been run."""
    trial = two_finding_trial("test", FILMS)
    maps = _maps(AS_PUBLISHED)
    if not maps:
        raise SystemExit("the published setting has no part yet that every seed has finished")
    published = _quality(maps, trial)
    entries = [entry for contender in CONTENDERS if (entry := _entry(contender, trial, published))]
    entries += [entry for plan in SETTLING if (entry := _settled_entry(plan, trial, published))]
    entries += [entry for contender in AVERAGED if (entry := _averaged_entry(contender, trial, published))]
    JSON.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    text = DOCUMENT.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    DOCUMENT.write_text(f"{before}{BEGIN}\n{table(entries)}\n{END}{after}", encoding="utf-8")
    draw(entries, PLOT)


def courses(plan: Plan) -> list[Array]:
    """Bits of each seed [steps + 1, films, tokens], over the films that all seeds have; empty if there are none."""
    parts: list[list[Array]] = []
    for start in range(0, FILMS, PART):
        paths = [path_of(Job(plan=plan, seed=seed, start=start, count=PART)) for seed in SEEDS]
        if not all(path.exists() for path in paths):
            break
        parts.append([np.load(path)["bits"] for path in paths])
    return [np.concatenate([part[at] for part in parts], axis=1) for at in range(len(SEEDS))] if parts else []


def converged(contender: Contender) -> Array | None:
    """The mean map of the reference seeds [films, patches], read as the contender is; None if it was not run."""
    for plan in REFERENCES:
        if (plan.shape, plan.beta) != (contender.plan.shape, contender.plan.beta) or contender.updates > plan.steps:
            continue
        jobs = [Job(plan=plan, seed=seed, start=0, count=REFERENCE_FILMS) for seed in REFERENCE_SEEDS]
        if all(path_of(job).exists() for job in jobs):
            maps = [np.load(path_of(job))["bits"][contender.updates, :, 1:] for job in jobs]
            return np.asarray(np.mean(maps, axis=0))
    return None


def _maps(contender: Contender) -> list[Array]:
    return [reading(bits, contender) for bits in courses(contender.plan)]


def _quality(maps: list[Array], trial: Trial) -> dict[str, Scores]:
    """Each film's scores, averaged over seeds."""
    scores = [quality(each, first(trial, len(each))) for each in maps]
    return {name: np.mean([each[name] for each in scores], axis=0) for name in QUALITY}


def _figures(scores: dict[str, Scores], published: dict[str, Scores]) -> Entry:
    """Means with intervals, and differences to the published setting with paired intervals."""
    count = min(len(scores["lift"]), len(published["lift"]))
    figures: Entry = {"films": len(scores["lift"])}
    for name in QUALITY:
        figures[name] = _rounded(interval(scores[name]))
        figures[f"{name}_gain"] = _rounded(interval(scores[name][:count] - published[name][:count]))
    return figures


def _rounded(values: tuple[float, ...]) -> list[float]:
    return [round(value, 3) for value in values]


def _entry(contender: Contender, trial: Trial, published: dict[str, Scores]) -> Entry | None:
    maps = _maps(contender)
    if not maps:
        return None
    entry = _described(contender.name, contender.plan, contender.row_steps) | _figures(_quality(maps, trial), published)
    entry["seeds"] = {name: round(value, 3) for name, value in among_seeds(maps).items()}
    reference = converged(contender)
    if reference is not None:
        entry["converged"] = {
            name: round(float(np.mean([agree(each[:REFERENCE_FILMS], reference) for each in maps])), 3)
            for name, agree in AGREEMENT.items()
        }
    return entry


def _described(name: str, plan: Plan, row_steps: float) -> Entry:
    return {"setting": name, "shape": plan.shape, "beta": plan.beta, "row_steps": round(row_steps, 1)}


def _settled_entry(plan: Plan, trial: Trial, published: dict[str, Scores]) -> Entry | None:
    stopped = [settled(bits) for bits in courses(plan)]
    if not stopped:
        return None
    row_steps = plan.rows * float(np.mean([paid for _, paid in stopped]))
    name = f"{plan.shape}, beta {plan.beta:g}, {plan.rows}x{plan.steps}, stopped when settled"
    maps = [each for each, _ in stopped]
    entry = _described(name, plan, row_steps) | _figures(_quality(maps, trial), published)
    return entry | {"seeds": {key: round(value, 3) for key, value in among_seeds(maps).items()}}


def _averaged_entry(contender: Contender, trial: Trial, published: dict[str, Scores]) -> Entry | None:
    maps = _maps(contender)
    if not maps:
        return None
    mean = np.asarray(np.mean(maps, axis=0))
    name = f"{contender.name}, mean of {len(SEEDS)} seeds"
    entry = _described(name, contender.plan, len(SEEDS) * contender.row_steps)
    return entry | _figures(_quality([mean], trial), published)


def table(entries: list[Entry]) -> str:
    """The figures as Markdown, a setting a line."""
    return "\n".join([HEAD, "|" + "---|" * (HEAD.count("|") - 1), *(_line(entry) for entry in entries)])


def _line(entry: Entry) -> str:
    cells = [entry["setting"], f"{entry['row_steps']:g}", str(entry["films"])]
    for name in QUALITY:
        mean, low, high = entry[f"{name}_gain"]
        is_base = entry["setting"] == AS_PUBLISHED.name
        cells.append(f"{entry[name][0]:.3g}" + ("" if is_base else f" ({mean:+.2g}; {low:+.2g} to {high:+.2g})"))
    for name in ("seeds", "converged"):
        agreement = entry.get(name)
        cells.append("-" if agreement is None else " / ".join(f"{agreement[key]:.2f}" for key in AGREEMENT))
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()

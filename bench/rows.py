"""Finds how many rows a call of the gradient step should take: rate against rows, with the memory that a call leaves.

The engine's row budget (`m2ib-server serve --max-rows`) is chosen by this. Run as
`PYTHONPATH=tests python bench/rows.py`.
"""

import argparse
import functools
import os
import statistics
from collections.abc import Mapping, Sequence

import torch
from tokenizers import Tokenizer

from chart import Panel
from inputs import draw_inputs
from m2ib_server.package import Role, open_package
from m2ib_server.runtime import DeviceKind, FrozenGraph, open_device, open_graphs
from m2ib_server.settings import DEFAULT_ENGINE
from report import Report, Value
from subject import TEXT, add_arguments, prepare
from turns import Contender, take_turns
from vitals import vitals_of

STEPS = {"image": Role.VISION_TAIL_GRAD, "text": Role.TEXT_TAIL_GRAD}
ROWS = (1, 5, 10, 20, 40, 80, 160)
PLATEAU = 0.97  # of the best rate: fewer rows at nearly the same rate cost less memory and end a round sooner


def main() -> None:
    """Run a step of every size by turns, measure its memory, and report."""
    options = _parse()
    torch.set_num_threads(options.threads)
    subject = prepare(options.packages, options.preset)
    package = open_package(subject.package)
    tokens = len(Tokenizer.from_file(str(subject.checkpoint / "tokenizer.json")).encode(TEXT).ids)
    graphs = open_graphs(package, open_device(DeviceKind.CPU, threads=options.threads))
    steps: dict[str, Contender] = {
        _name(side, rows): functools.partial(graphs[role].run, draw_inputs(package.graph(role), rows, tokens))
        for side, role in STEPS.items()
        for rows in options.rows
    }
    resident = {side: _resident(graphs[role], side, options.rows, steps) for side, role in STEPS.items()}
    seconds = take_turns(steps, rounds=options.rounds)
    rates = {
        side: {rows: rows / statistics.median(seconds[_name(side, rows)]) for rows in options.rows} for side in STEPS
    }
    report = Report(
        name="rows",
        title="The gradient step against the rows of a call",
        settings={"model": subject.preset, "tokens": tokens, "threads": options.threads},
        seconds=seconds,
        baseline=_name("image", options.rows[0]),
        rows=_table(rates, resident),
        findings=_findings(rates),
        panels=_panels(rates, resident),
    )
    report.write(options.out)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help="rows of a call, ascending")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def _name(side: str, rows: int) -> str:
    return f"{side} step, rows: {rows}"


def _resident(graph: FrozenGraph, side: str, sizes: Sequence[int], steps: Mapping[str, Contender]) -> dict[int, int]:
    """Return the memory in bytes that a call of each size leaves with the process, above what it holds at rest."""
    held = {}
    for rows in sizes:
        graph.trim()
        rest = vitals_of(os.getpid()).resident_bytes
        steps[_name(side, rows)]()
        held[rows] = vitals_of(os.getpid()).resident_bytes - rest
    graph.trim()
    return held


def _table(
    rates: Mapping[str, Mapping[int, float]], resident: Mapping[str, Mapping[int, int]]
) -> dict[str, dict[str, Value]]:
    return {
        _name(side, rows): {
            "rows per second": rate,
            "share of the best rate": f"{rate / max(by_rows.values()):.0%}",
            "memory held, MB": resident[side][rows] / 1e6,
        }
        for side, by_rows in rates.items()
        for rows, rate in by_rows.items()
    }


def _findings(rates: Mapping[str, Mapping[int, float]]) -> dict[str, Value]:
    findings: dict[str, Value] = {"row budget in force": DEFAULT_ENGINE.max_rows}
    for side, by_rows in rates.items():
        best = max(by_rows.values())
        enough = min(rows for rows, rate in by_rows.items() if rate >= PLATEAU * best)
        findings[f"fewest rows at {PLATEAU:.0%} of the {side} step's best rate"] = enough
    return findings


def _panels(rates: Mapping[str, Mapping[int, float]], resident: Mapping[str, Mapping[int, int]]) -> list[Panel]:
    shares = {
        side: [(rows, rate / max(by_rows.values())) for rows, rate in by_rows.items()]
        for side, by_rows in rates.items()
    }
    held = {side: [(rows, size / 1e6) for rows, size in by_rows.items()] for side, by_rows in resident.items()}
    return [
        Panel(x="rows of a call", y="rate, of the best", curves=shares),
        Panel(x="rows of a call", y="memory held after it, MB", curves=held),
    ]


if __name__ == "__main__":
    main()

"""Times the graphs of two packages of one model by turns: what a change of the exporter bought.

Run as `PYTHONPATH=tests python bench/packages.py BEFORE AFTER`, with the folders of two packages.
"""

import argparse
import functools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from inputs import draw_inputs
from m2ib_server.package import Role, open_package
from m2ib_server.runtime import DeviceKind, open_device, open_graphs
from report import DEFAULT_OUT, Report, Value
from turns import Contender, take_turns

STEPS = (Role.VISION_TAIL_GRAD, Role.TEXT_TAIL_GRAD)
BEFORE, AFTER = "before", "after"


def main() -> None:
    """Run every graph of both packages by turns and report the ratios."""
    options = _parse()
    torch.set_num_threads(options.threads)
    contenders = {
        _name(role, which): contender
        for which, folder in ((BEFORE, options.before), (AFTER, options.after))
        for role, contender in _graphs(folder, options).items()
    }
    seconds = take_turns(contenders, rounds=options.rounds, warm_up=2)
    report = Report(
        name="packages",
        title="The graphs of two packages of one model",
        settings={"rows of a step": options.rows, "tokens": options.tokens, "threads": options.threads},
        seconds=seconds,
        baseline=_name(Role.VISION_TAIL_GRAD, BEFORE),
        findings=_ratios(seconds),
    )
    report.write(options.out)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path, help="a package's folder")
    parser.add_argument("after", type=Path, help="another one's, of the same model")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="where the report goes")
    parser.add_argument("--rows", type=int, default=10, help="noise rows of a step")
    parser.add_argument("--tokens", type=int, default=21, help="a text's tokens")
    parser.add_argument("--threads", type=int, default=2, help="compute threads")
    parser.add_argument("--rounds", type=int, default=40)
    return parser.parse_args()


def _name(role: Role, which: str) -> str:
    return f"{role.name.lower()}, {which}"


def _graphs(folder: Path, options: argparse.Namespace) -> dict[Role, Contender]:
    package = open_package(folder)
    graphs = open_graphs(package, open_device(DeviceKind.CPU, threads=options.threads))
    return {
        role: functools.partial(
            graph.run, draw_inputs(package.graph(role), options.rows if role in STEPS else 1, options.tokens)
        )
        for role, graph in graphs.items()
    }


def _ratios(seconds: Mapping[str, Sequence[float]]) -> dict[str, Value]:
    """The median of the ratios within one round, so that what slows both slows neither."""
    return {
        f"{role.name.lower()}: after, of before": statistics.median(
            after / before
            for before, after in zip(seconds[_name(role, BEFORE)], seconds[_name(role, AFTER)], strict=True)
        )
        for role in Role
    }


if __name__ == "__main__":
    main()

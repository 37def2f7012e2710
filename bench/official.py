"""Times the real server, asked by the real client, against the official M2IB code, and compares their maps.

The reader gives a checkout of the official repository; it has no licence, so none of it is here. Run as
`make bench-official CHECKOUT=path`, or `PYTHONPATH=tests python bench/official.py --checkout path`.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from tokenizers import Tokenizer

from flop import count_flop
from inputs import draw_inputs
from m2ib_client import Client, Explanation, Model
from m2ib_server.package import Role, open_package
from report import Report
from serving import running_server
from subject import TEXT, Subject, add_arguments, picture, pixel_values, prepare
from turns import take_turns

OURS, OFFICIAL = "our server", "official code"
OURS_PER_TURN = 5
SAMPLES = 10  # the official code has no flag for it
LEARNING_RATE = 1.0
ALLOWED_DIFFERENCE = 1e-4  # of the pair's similarity; more means that weights, image or text are not the same
Bits = dict[str, list[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What both sides are asked for: the published settings."""

    beta: float
    steps: int
    threads: int


class Official:
    """The official code in its process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Wait until the model is loaded."""
        self._process = process
        said = self._answer()
        self.similarity: float = said["similarity"]
        self.flop: int = said["flop"]
        self.bits: list[Bits] = []

    def explain(self) -> None:
        """Explain the pair with a seed of its own; keep the maps."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"seed": len(self.bits)}) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        nats = {"image": answer["image"][1:], "text": answer["text"]}  # the class token has no place in the map
        self.bits.append({side: [value / math.log(2) for value in values] for side, values in nats.items()})

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the official code ended with status {self._process.wait()}")
        return json.loads(line)


class Ours:
    """The server, asked by the client; every request has a seed of its own."""

    def __init__(self, client: Client, subject: Subject, course: Course) -> None:
        """Prepare to ask for the same pair with the same settings."""
        self._client, self._image, self._course = client, picture(subject.preset), course
        self.bits: list[Bits] = []
        self.similarity = 0.0

    def explain(self) -> None:
        """Explain the pair; keep the maps."""
        explanation = self._client.explain(
            self._image,
            TEXT,
            beta=self._course.beta,
            steps=self._course.steps,
            samples=SAMPLES,
            learning_rate=LEARNING_RATE,
            mask_shape="channel",
            seed=len(self.bits),
            outputs=("model_map",),
        )
        self.similarity = explanation.similarity
        self.bits.append(_token_bits(explanation))


def main() -> None:
    """Let both explain by turns, hold their similarities against one another, and report."""
    options = _parse()
    course = Course(beta=0.1, steps=options.steps, threads=options.threads)
    subject = prepare(options.packages, options.preset)
    flags = ("--cache-mebibytes", "0", "--threads", str(course.threads))  # both encode the pair every time
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(subject.models, Path(folder), *flags) as server,
        Client(server.address, timeout=None) as client,
        _official(options.checkout, subject, course, client.model(), Path(folder)) as official,
    ):
        ours = Ours(client, subject, course)
        seconds = _take_turns(ours, official, options.rounds)
    _check_similarity(ours.similarity, official.similarity)
    more = official.flop / _flop(subject, options.steps)
    findings = {**_findings(seconds), "operations, of ours": more, **_correlations(ours.bits, official.bits)}
    _report(subject, course, seconds, findings).write(options.out)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--checkout", type=Path, required=True, help="of github.com/YingWANGG/M2IB")
    parser.add_argument("--rounds", type=int, default=3, help="explanations by the official code, at least 2")
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    if not (options.checkout / "scripts" / "methods.py").is_file():
        parser.error(f"--checkout: seen {options.checkout}; allowed: a checkout with scripts/methods.py")
    if options.rounds < 2:
        parser.error(f"--rounds: seen {options.rounds}; allowed: 2 and more, to compare two seeds")
    return options


@contextmanager
def _official(checkout: Path, subject: Subject, course: Course, model: Model, folder: Path) -> Iterator[Official]:
    """Start the official code on the CPU, with our model's checkpoint and layers, and end it."""
    np.save(folder / "pixels.npy", pixel_values(picture(subject.preset)))
    tokeniser = Tokenizer.from_file(str(subject.checkpoint / "tokenizer.json"))
    flags = {
        "checkout": checkout.resolve(),
        "checkpoint": subject.checkpoint,
        "pixels": folder / "pixels.npy",
        "token-ids": json.dumps(tokeniser.encode(TEXT).ids),
        "image-layer": model.vision.layer,
        "text-layer": model.text.layer,
        "beta": course.beta,
        "steps": course.steps,
        "threads": course.threads,
    }
    command = [sys.executable, str(Path(__file__).with_name("official_child.py"))]
    command += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    variables = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "Agg"}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables)
    try:
        yield Official(process)
    finally:
        process.kill()
        process.wait()


def _take_turns(ours: Ours, official: Official, rounds: int) -> dict[str, list[float]]:
    """Measure ours several times before, between and after the turns of the official code, which take a minute each."""
    seconds: dict[str, list[float]] = {OURS: [], OFFICIAL: []}
    between = [(OURS, ours.explain, OURS_PER_TURN)]
    for name, explain, times in [*between, *[(OFFICIAL, official.explain, 1), *between] * rounds]:
        seconds[name] += take_turns({name: explain}, rounds=times, warm_up=0)[name]
    return seconds


def _ratios(seconds: Mapping[str, Sequence[float]]) -> list[float]:
    """Each turn of the official code as a multiple of the median of ours just before and just after it."""
    ours = seconds[OURS]
    neighbours = [ours[turn * OURS_PER_TURN : (turn + 2) * OURS_PER_TURN] for turn in range(len(seconds[OFFICIAL]))]
    return [taken / statistics.median(near) for taken, near in zip(seconds[OFFICIAL], neighbours, strict=True)]


def _flop(subject: Subject, steps: int) -> int:
    """Count the operations of one explanation of ours: each graph's, as often as it runs."""
    package = open_package(subject.package)
    tokens = len(Tokenizer.from_file(str(subject.checkpoint / "tokenizer.json")).encode(TEXT).ids)
    total = 0
    for role in Role:
        is_step = role in (Role.VISION_TAIL_GRAD, Role.TEXT_TAIL_GRAD)
        inputs = draw_inputs(package.graph(role), SAMPLES if is_step else 1, tokens)
        feed = {name: tensor.numpy() for name, tensor in inputs.items()}
        total += (steps if is_step else 1) * count_flop(package.path(package.graph(role).file), feed)
    return total


def _token_bits(explanation: Explanation) -> Bits:
    assert explanation.image is not None
    return {
        "image": explanation.image.grid_bits.ravel().tolist(),
        "text": [token.bits for token in explanation.tokens],
    }


def _check_similarity(ours: float, official: float) -> None:
    if not abs(ours - official) <= ALLOWED_DIFFERENCE:
        raise ValueError(f"the pair's similarity: seen {ours} here and {official} there; they have to be the same")


def _findings(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    ratios = _ratios(seconds)
    return {
        "ratio of the medians": statistics.median(seconds[OFFICIAL]) / statistics.median(seconds[OURS]),
        "ratio within one turn, lowest": min(ratios),
        "ratio within one turn, highest": max(ratios),
    }


def _correlations(ours: Sequence[Bits], official: Sequence[Bits]) -> dict[str, float]:
    """Median rank correlation, over pairs of seeds, of ours with theirs and of each with itself."""
    pairs = {
        "ours with the official one": [(left, right) for left in ours for right in official],
        "the official one under two seeds": list(combinations(official, 2)),
        "ours under two seeds": list(combinations(ours, 2)),
    }
    return {
        f"rank correlation of the {side} map, {name}": statistics.median(
            float(spearmanr(left[side], right[side]).statistic) for left, right in compared
        )
        for side in ("image", "text")
        for name, compared in pairs.items()
    }


def _report(
    subject: Subject, course: Course, seconds: Mapping[str, Sequence[float]], findings: Mapping[str, float]
) -> Report:
    return Report(
        name="official",
        title="One explanation, image and text: our server, asked by its client, against the official code",
        settings={
            "model": subject.preset,
            "beta": course.beta,
            "steps": course.steps,
            "samples": SAMPLES,
            "threads": course.threads,
        },
        seconds=seconds,
        baseline=OURS,
        findings=findings,
    )


if __name__ == "__main__":
    main()

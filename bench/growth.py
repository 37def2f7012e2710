"""Measures how the cost of an explanation grows, in the server's engine, and what memory a server takes.

Varied one at a time: steps, noise rows, the text's length, phrases about one image, and the model (`--presets`). Run as
`PYTHONPATH=tests python bench/growth.py`.
"""

import argparse
import functools
import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch

from alone import Asked, EngineAlone
from chart import Panel
from checkpoints import PRESETS
from footprint import CLIENTS, measure
from report import DEFAULT_OUT, Report, Value
from subject import DEFAULT_PACKAGES, TEXT, Subject, prepare
from turns import Contender, take_turns

STEPS = (1, 2, 5, 10, 20)
ROWS = (1, 2, 5, 10, 20, 40)
WORDS = (1, 4, 8, 16, 32, 64)
PHRASES = (1, 2, 4)
PUBLISHED = Asked()
GIGABYTE = 1e9

Seconds = Mapping[str, Mapping[int, Sequence[float]]]  # of each series, by what varies


def main() -> None:
    """Run all by turns, measure the servers' memory, and report."""
    options = _parse()
    torch.set_num_threads(options.threads)
    subjects = [prepare(options.packages, preset) for preset in options.presets]
    with ExitStack() as stack:
        engines = [stack.enter_context(EngineAlone(subject, options.threads)) for subject in subjects]
        series = _series(engines)
        runs = {_label(name, x): run for name, by_x in series.items() for x, run in by_x.items()}
        taken = take_turns(runs, rounds=options.rounds)
    seconds = {name: {x: taken[_label(name, x)] for x in by_x} for name, by_x in series.items()}
    report = Report(
        name="growth",
        title="How the cost of an explanation, image and text, grows",
        settings={
            "model": subjects[0].preset,
            "steps": PUBLISHED.steps,
            "rows": PUBLISHED.samples,
            "threads": options.threads,
        },
        seconds=taken,
        baseline=_label("steps", PUBLISHED.steps),
        findings={**_fits(seconds), **_phrases(seconds["phrases"]), **_memory(subjects, options.threads)},
        panels=[_panel(name, by_x) for name, by_x in seconds.items() if len(by_x) > 1],
    )
    report.write(options.out)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    of_presets = "the first one is used for everything but patches and memory"
    parser.add_argument("--presets", choices=sorted(PRESETS), nargs="+", default=["vit-b-32"], help=of_presets)
    parser.add_argument("--packages", type=Path, default=DEFAULT_PACKAGES, help="where the exported models are kept")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="where the report goes")
    parser.add_argument("--threads", type=int, default=2, help="compute threads")
    parser.add_argument("--rounds", type=int, default=2)
    return parser.parse_args()


def _series(engines: Sequence[EngineAlone]) -> dict[str, dict[int, Contender]]:
    """Return what to run of each series; every explanation is of a picture that was never seen before."""
    first, new = engines[0], itertools.count(1)
    texts = [_text(count) for count in WORDS]
    asked: dict[str, dict[int, tuple[Asked, ...]]] = {
        "steps": {steps: (Asked(steps=steps),) for steps in STEPS},
        "rows": {rows: (Asked(samples=rows),) for rows in ROWS},
        "text tokens": {first.tokens(text): (Asked(text=text),) for text in texts},
        "phrases": {count: tuple(Asked(text=_phrase(number)) for number in range(count)) for count in PHRASES},
    }
    series: dict[str, dict[int, Contender]] = {
        name: {x: functools.partial(_explain, first, all_asked, new) for x, all_asked in by_x.items()}
        for name, by_x in asked.items()
    }
    by_patches: dict[int, Contender] = {
        engine.patches: functools.partial(_explain, engine, (PUBLISHED,), new) for engine in engines
    }
    return {**series, "patches": by_patches}


def _explain(engine: EngineAlone, all_asked: Sequence[Asked], new: Iterator[int]) -> None:
    """Explain phrases about one new picture, side by side."""
    image = next(new)
    replaced = [Asked(image=image, text=each.text, steps=each.steps, samples=each.samples) for each in all_asked]
    engine.run([engine.prepare(each) for each in replaced], in_flight=len(replaced))


def _text(words: int) -> str:
    """Return a text of so many words."""
    said = TEXT.split()
    return " ".join(said[index % len(said)] for index in range(words))


def _phrase(number: int) -> str:
    """Return a phrase like no other below the text's number of words, and as long: jobs of one length share calls."""
    said = TEXT.split()
    return " ".join(said[number:] + said[:number])


def _label(name: str, x: int) -> str:
    return f"{name}: {x}"


def _fits(seconds: Seconds) -> dict[str, Value]:
    """Fit a + b x to the medians of what should grow in a straight line; tell a in units of b."""
    findings: dict[str, Value] = {}
    for name in ("steps", "rows"):
        medians = {x: statistics.median(taken) for x, taken in seconds[name].items()}
        slope, start = np.polyfit(list(medians), list(medians.values()), 1)
        worst = max(abs(start + slope * x - median) / median for x, median in medians.items())
        findings[f"cost without any {name}, in {name}"] = float(start / slope)
        findings[f"largest distance of a median from the line over {name}"] = f"{worst:.0%}"
    return findings


def _phrases(by_count: Mapping[int, Sequence[float]]) -> dict[str, Value]:
    one, most = min(by_count), max(by_count)
    each = statistics.median(by_count[most]) / most
    return {f"a phrase among {most} about one image, of a phrase alone": each / statistics.median(by_count[one])}


def _memory(subjects: Sequence[Subject], threads: int) -> dict[str, Value]:
    findings: dict[str, Value] = {}
    for subject in subjects:
        seen = measure(subject, threads)
        findings |= {
            f"{subject.preset}: resident at rest, GB": seen.rest.resident_bytes / GIGABYTE,
            f"{subject.preset}: of it mapped files, GB": seen.rest.file_bytes / GIGABYTE,
            f"{subject.preset}: resident at the boot's peak, GB": seen.rest.peak_bytes / GIGABYTE,
            f"{subject.preset}: resident after {CLIENTS} clients at once, GB": seen.busy.resident_bytes / GIGABYTE,
            f"{subject.preset}: resident at the peak of all that, GB": seen.busy.peak_bytes / GIGABYTE,
            f"{subject.preset}: resident once idle again, GB": seen.idle.resident_bytes / GIGABYTE,
        }
    return findings


def _panel(name: str, by_x: Mapping[int, Sequence[float]]) -> Panel:
    least = statistics.median(by_x[min(by_x)])
    points = [(float(x), statistics.median(taken) / least) for x, taken in sorted(by_x.items())]
    return Panel(x=name, y=f"cost, of that of {_label(name, min(by_x))}", curves={"image and text": points})


if __name__ == "__main__":
    main()

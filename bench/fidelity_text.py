"""Measures the demo's word scores over betas: which half of "A and B" keeps the information, and do seeds agree.

Run as `PYTHONPATH=tests python bench/fidelity_text.py`; adds a JSON line for each setting that
`bench/fidelity_text.jsonl` does not hold yet. The question is the model card's, on its films.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from fidelity_figures import Scores, interval, pearson, spearman
from fidelity_films import TextQuestion, demo_graph, text_questions
from fidelity_mask import Array, Course, GradientGraph, Plan, follow

OUT = Path("bench/fidelity_text.jsonl")
SEEDS = (0, 1)
BETAS = (0.03, 0.1, 0.3, 1.0, 5.0)
SHAPES = ("channel", "token")
PROPORTIONS = ("10x10", "2x20", "5x20")  # rows x steps
READ_AT = {10: (5, 10), 20: (10, 20)}


def main() -> None:
    """Measure every setting on the first films of the model card's text set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--films", type=int, default=200)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=SHAPES)
    parser.add_argument("--betas", nargs="+", type=float, default=BETAS)
    parser.add_argument("--proportions", nargs="+", choices=PROPORTIONS, default=PROPORTIONS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    graph, questions = demo_graph("text", 1), list(text_questions(options.films))
    plans = [
        Plan(shape=shape, beta=beta, rows=rows, steps=steps)
        for rows, steps in (map(int, proportion.split("x")) for proportion in options.proportions)
        for shape in options.shapes
        for beta in options.betas
    ]
    OUT.touch()
    with OUT.open("a", encoding="utf-8") as lines:
        for plan in (plan for plan in plans if not is_measured(plan)):
            for entry in measured(graph, questions, plan):
                lines.write(json.dumps(entry) + "\n")
                lines.flush()
                print(entry, flush=True)


def is_measured(plan: Plan) -> bool:
    """Whether the file holds both readings of a trajectory."""
    setting = {"shape": plan.shape, "beta": plan.beta, "rows": plan.rows}
    lines = [json.loads(line) for line in OUT.read_text(encoding="utf-8").splitlines()]
    held = [line["steps"] for line in lines if setting.items() <= line.items()]
    return set(READ_AT[plan.steps]) <= set(held)


def measured(graph: GradientGraph, questions: list[TextQuestion], plan: Plan) -> list[dict[str, object]]:
    """One entry for each number of steps at which the trajectory is read."""
    courses = [[follow(graph, each.question, plan, seed) for each in questions] for seed in SEEDS]
    entries = []
    for steps in READ_AT[plan.steps]:
        maps = [[course.bits[steps - 1] for course in by_length] for by_length in courses]
        right = np.mean([_right_half(by_length, questions) for by_length in maps], axis=0)
        mean, low, high = interval(right)
        setting = {"shape": plan.shape, "beta": plan.beta, "rows": plan.rows, "steps": steps}
        figures = {"right_half": mean, "low": low, "high": high, "cosine": _cosine(courses, steps)}
        entries.append(setting | {name: round(value, 3) for name, value in (figures | _spread(maps)).items()})
    return entries


def _right_half(maps: list[Array], questions: list[TextQuestion]) -> Scores:
    """1 where the shown half's words hold more bits a word than the other's, one half where they tie; over films."""
    scores = []
    for bits, each in zip(maps, questions, strict=True):
        halves = each.halves.numpy()
        means = (bits * halves).sum(axis=2) / halves.sum(axis=2)
        scores.append(0.5 * (np.sign(means[0] - means[1]) + 1))
    return np.concatenate(scores).astype(np.float64)


def _cosine(courses: list[list[Course]], steps: int) -> float:
    each = [course.similarity[steps - 1] for by_length in courses for course in by_length]
    return float(np.concatenate(each).mean())


def _spread(maps: list[list[Array]]) -> dict[str, float]:
    """Bits a word, the share of words with less than a hundredth of a bit, and how seeds agree on the words."""
    words = [[bits[:, 1:-1] for bits in by_length] for by_length in maps]
    flat = np.concatenate([bits.ravel() for bits in words[0]])
    pairs = [(left, right) for left, right in zip(words[0], words[1], strict=True)]
    return {
        "bits_a_word": float(flat.mean()),
        "empty": float((flat < 0.01).mean()),
        "seeds_value": float(np.concatenate([pearson(*pair) for pair in pairs]).mean()),
        "seeds_rank": float(np.concatenate([spearman(*pair) for pair in pairs]).mean()),
    }


if __name__ == "__main__":
    main()

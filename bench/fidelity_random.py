"""Measures on a full-size model with random weights how far cheap maps are from the converged one.

Run as `PYTHONPATH=tests python bench/fidelity_random.py`; adds a JSON line a setting to `bench/fidelity_random.jsonl`.
Random weights mean nothing, so this says how noise averages out at full width, and nothing of what a map shows.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fidelity_contenders import REFERENCE_SEEDS, SEEDS
from fidelity_figures import AGREEMENT
from fidelity_films import random_weights
from fidelity_mask import Course, GradientGraph, Plan, Question, follow, rows_of

OUT = Path("bench/fidelity_random.jsonl")
BETA, STEPS, ROWS = 0.1, 10, 64  # beta as published for general models
CHEAP_ROWS = (10, 4, 2)


def main() -> None:
    """Measure every image and mask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="vit-b-32")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    graph, question = random_weights(options.preset, options.images, options.threads)
    with OUT.open("a", encoding="utf-8") as lines:
        for image in range(options.images):
            for shape in ("channel", "token"):
                place = {"preset": options.preset, "image": image, "shape": shape}
                for entry in measured(graph, rows_of(question, image, 1), shape):
                    lines.write(json.dumps(place | entry) + "\n")
                lines.flush()


def measured(graph: GradientGraph, question: Question, shape: str) -> list[dict[str, object]]:
    """One entry for each cheap plan: agreement with the mean of the reference seeds, read at the same step."""
    wide = Plan(shape=shape, beta=BETA, rows=ROWS, steps=STEPS)
    reference = np.mean([follow(graph, question, wide, seed).bits for seed in REFERENCE_SEEDS], axis=0)
    entries = []
    for rows in CHEAP_ROWS:
        for is_antithetic in (False, True):
            plan = replace(wide, rows=rows, is_antithetic=is_antithetic)
            courses = [follow(graph, question, plan, seed) for seed in SEEDS]
            for updates in (STEPS // 2 - 1, STEPS - 1, STEPS):
                entries.append(
                    {"plan": plan.name, "updates": updates} | _agreement(courses, reference[updates], updates)
                )
    return entries


def _agreement(courses: list[Course], reference: np.ndarray, updates: int) -> dict[str, object]:
    maps = [course.bits[updates, :, 1:] for course in courses]
    return {
        name: round(float(np.mean([agree(each, reference[:, 1:]) for each in maps])), 3)
        for name, agree in AGREEMENT.items()
    }


if __name__ == "__main__":
    main()

"""Chooses the block and betas of the demo's recipe on validation phantoms, and writes down the whole sweep."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

from transformers import CLIPModel, CLIPTokenizer

from m2ib_export.demo.attribution import BottleneckPlan
from m2ib_export.demo.corpus import VALIDATION_SEED
from m2ib_export.demo.evaluate import MASK_SHAPES, STEPS, load_checkpoint, maps_of
from m2ib_export.demo.metric import lift, named_brighter, pointing
from m2ib_export.demo.trial import Trial, make_trial, pair_films, text_embeddings

BLOCKS = (0, 1, 2, 3, 4)
BETAS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
FINER = ((0, "channel", 5.0), (1, "channel", 5.0), (2, "channel", 5.0))  # between the two best
PAIR_OFFSET = 500_000
CASE_SEED = 2


def sweep(checkpoint: Path, out: Path, films: int, rows: int) -> None:
    """Try every block, beta and mask shape on two-finding validation films; write one JSON line each."""
    model, tokenizer = load_checkpoint(checkpoint)
    trial = make_trial(pair_films(VALIDATION_SEED + PAIR_OFFSET, films), CASE_SEED)
    with out.open("w", encoding="utf-8") as lines:
        for block, shape, beta in (*product(BLOCKS, MASK_SHAPES, BETAS), *FINER):
            plan = BottleneckPlan(beta=beta, mask_shape=shape, steps=STEPS, rows=rows)
            for entry in measured(model, tokenizer, trial, block, plan):
                lines.write(json.dumps({"films": films, "rows": rows} | entry) + "\n")
            lines.flush()


def measured(
    model: CLIPModel, tokenizer: CLIPTokenizer, trial: Trial, block: int, plan: BottleneckPlan
) -> list[dict[str, Any]]:
    """One entry for each number of steps."""
    if trial.other_covers is None:
        raise ValueError("the sweep needs films of two findings")
    texts = text_embeddings(model, tokenizer, trial.phrases)
    entries = []
    for steps, (bits, cosine, total) in zip(plan.steps, maps_of(model, trial, texts, block, plan), strict=True):
        scores = {
            "pointing": pointing(bits, trial.covers),
            "lift": lift(bits, trial.covers),
            "named": named_brighter(bits, trial.covers, trial.other_covers, peak=True),
        }
        place = {"block": block, "mask_shape": plan.mask_shape, "beta": plan.beta, "steps": steps}
        figures = {name: round(float(values.mean()), 3) for name, values in scores.items()}
        entries.append(place | figures | {"cosine": round(float(cosine), 3), "bits": round(float(total), 1)})
    return entries

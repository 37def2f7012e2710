"""Measures a checkpoint on held-out phantoms: how well it reads, and how well M2IB shows what a phrase names."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from m2ib_export.demo.attribution import (
    BottleneckPlan,
    attribute,
    image_embeddings,
    vision_hidden,
    vision_tail,
)
from m2ib_export.demo.corpus import TEST_SEED, render_films
from m2ib_export.demo.metric import Scores, figure, lift, named_brighter, pointing
from m2ib_export.demo.reading import reading_figures
from m2ib_export.demo.trial import Trial, first, make_trial, pair_films, text_embeddings
from m2ib_export.demo.wording import wording_figures

STEPS = (10, 20)
ROWS = 10
CHUNK = 25  # films optimised at once
CONTROL_FILMS = 200
WORDING_FILMS = 200
PAIR_OFFSET, WORDING_OFFSET = 500_000, 700_000  # keep the seeds of the three sets apart
MASK_SHAPES = ("channel", "token")
SHARP = BottleneckPlan(beta=5.0, mask_shape="channel", steps=STEPS, rows=ROWS)  # costs twice the recipe's steps
CASE_SEED = 1


def load_checkpoint(checkpoint: Path) -> tuple[CLIPModel, CLIPTokenizer]:
    """The frozen model and its tokeniser."""
    model = CLIPModel.from_pretrained(checkpoint, local_files_only=True).train(False).requires_grad_(False)
    return model, CLIPTokenizer.from_pretrained(checkpoint, local_files_only=True)


def evaluate_checkpoint(checkpoint: Path, out: Path, count: int) -> None:
    """Measure a checkpoint by its own recipe on `count` mixed and `count` two-finding films; write JSON."""
    model, tokenizer = load_checkpoint(checkpoint)
    recipe = json.loads((checkpoint / "m2ib.json").read_text(encoding="utf-8"))
    films = render_films(range(TEST_SEED, TEST_SEED + count))
    pairs = pair_films(TEST_SEED + PAIR_OFFSET, count)
    mixed = make_trial(films, CASE_SEED)
    figures = {
        "films": {"mixed": count, "two_findings": count, "wording": WORDING_FILMS, "first_seed": TEST_SEED},
        "machine": {"torch": torch.__version__, "python": platform.python_version()},
        "reading": reading_figures(model, tokenizer, films),
        "localisation": localisation_figures(model, tokenizer, mixed, recipe),
        "absent_phrase": absent_figures(model, tokenizer, mixed, recipe),
        "two_findings": localisation_figures(model, tokenizer, make_trial(pairs, CASE_SEED), recipe),
        "untouched": untouched_figures(model, tokenizer, mixed),
        "wording": text_figures(model, tokenizer, recipe),
    }
    out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def plans_of(recipe: dict[str, Any]) -> dict[str, BottleneckPlan]:
    """The settings to measure: the recipe's for each mask shape, read up to its steps, and a sharper one."""
    plans = {}
    for shape in MASK_SHAPES:
        settings = recipe["defaults"][shape]
        steps = tuple(steps for steps in STEPS if steps <= settings["steps"])
        plans[shape] = BottleneckPlan(beta=settings["beta"], mask_shape=shape, steps=steps, rows=ROWS)
    return plans | {"channel_sharp": SHARP}


def text_figures(model: CLIPModel, tokenizer: CLIPTokenizer, recipe: dict[str, Any]) -> dict[str, Any]:
    """Text maps of every setting at the recipe's text block."""
    block, seed = recipe["text_layer"], TEST_SEED + WORDING_OFFSET
    return {
        name: {"beta": plan.beta} | wording_figures(model, tokenizer, seed, WORDING_FILMS, block, plan)
        for name, plan in plans_of(recipe).items()
    }


def localisation_figures(
    model: CLIPModel, tokenizer: CLIPTokenizer, trial: Trial, recipe: dict[str, Any]
) -> dict[str, Any]:
    """Every setting at the recipe's block, and the token norm."""
    block = recipe["vision_layer"]
    norms = vision_hidden(model, trial.pixels, block)[:, 1:].square().sum(dim=2)
    figures: dict[str, Any] = {"token_norm": map_figures(norms, trial)}
    for name, plan in plans_of(recipe).items():
        figures[name] = {"beta": plan.beta, **by_steps(model, tokenizer, trial, block, plan, trial.phrases)}
    return figures


def absent_figures(model: CLIPModel, tokenizer: CLIPTokenizer, trial: Trial, recipe: dict[str, Any]) -> dict[str, Any]:
    """The control: maps for a finding that is absent, scored against the one that is there."""
    control, block = first(trial, CONTROL_FILMS), recipe["vision_layer"]
    return {
        name: {"beta": plan.beta, **by_steps(model, tokenizer, control, block, plan, control.absent_phrases)}
        for name, plan in plans_of(recipe).items()
    }


def untouched_figures(model: CLIPModel, tokenizer: CLIPTokenizer, trial: Trial) -> dict[str, Any]:
    """Cosines of unmasked films with phrases of findings they show and do not show."""
    images = image_embeddings(model, trial.pixels)
    pairs = (trial.phrases, trial.absent_phrases)
    present, absent = ((images * text_embeddings(model, tokenizer, phrases)).sum(dim=1) for phrases in pairs)
    return {
        "present": round(float(present.mean()), 3),
        "absent": round(float(absent.mean()), 3),
        "present_higher": asdict(figure(np.asarray((present > absent).double()))),
    }


def by_steps(
    model: CLIPModel,
    tokenizer: CLIPTokenizer,
    trial: Trial,
    block: int,
    plan: BottleneckPlan,
    phrases: tuple[str, ...],
) -> dict[str, Any]:
    """Figures of one plan, by number of steps."""
    texts = text_embeddings(model, tokenizer, phrases)
    return {
        f"steps_{steps}": map_figures(bits, trial) | {"cosine": round(float(cosine), 3), "bits": round(float(total), 1)}
        for steps, (bits, cosine, total) in zip(plan.steps, maps_of(model, trial, texts, block, plan), strict=True)
    }


def maps_of(
    model: CLIPModel, trial: Trial, texts: Tensor, block: int, plan: BottleneckPlan
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Per number of steps: maps in bits [N, 64], mean cosine and mean total of bits. Films go in chunks."""
    parts = []
    for start in range(0, len(texts), CHUNK):
        hidden = vision_hidden(model, trial.pixels[start : start + CHUNK], block)
        parts.append(attribute(vision_tail(model, block), hidden, texts[start : start + CHUNK], plan))
    readings = []
    for position in range(len(plan.steps)):
        bits = torch.cat([part[position].bits[:, 1:] for part in parts])
        cosine = torch.cat([part[position].cosine for part in parts]).mean()
        readings.append((bits, cosine, bits.sum(dim=1).mean()))
    return readings


def map_figures(patches: Tensor, trial: Trial) -> dict[str, Any]:
    """Every localisation figure of maps [N, 64]."""
    scores: dict[str, Scores] = {"pointing": pointing(patches, trial.covers), "lift": lift(patches, trial.covers)}
    if trial.other_covers is not None:
        for name, peak in (("named_brighter_peak", True), ("named_brighter_mean", False)):
            scores[name] = named_brighter(patches, trial.covers, trial.other_covers, peak=peak)
    figures: dict[str, Any] = {name: asdict(figure(values)) for name, values in scores.items()}
    figures["by_kind"] = by_kind(scores, trial.kinds)
    return figures


def by_kind(scores: dict[str, Scores], kinds: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Means for each kind of the named finding."""
    rows = {kind: [row for row, other in enumerate(kinds) if other == kind] for kind in sorted(set(kinds))}
    return {
        kind: {"films": len(chosen)} | {name: round(float(values[chosen].mean()), 3) for name, values in scores.items()}
        for kind, chosen in rows.items()
    }

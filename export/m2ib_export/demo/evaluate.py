"""Measures a checkpoint on held-out phantoms: how well it reads, and how well M2IB shows what a phrase names."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection
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
from m2ib_export.demo.corpus import TEST_SEED, FilmSet, render_films
from m2ib_export.demo.metric import Scores, figure, lift, named_brighter, pointing
from m2ib_export.demo.reading import reading_figures
from m2ib_export.demo.trial import Trial, make_trial, pair_films, text_embeddings
from m2ib_export.demo.wording import wording_figures

STEPS = (10, 20)
ROWS = 10
CHUNK = 25  # films optimised at once
WORDING_FILMS = 200
PAIR_OFFSET, WORDING_OFFSET = 500_000, 700_000  # keep the seeds of the three sets apart
MASK_SHAPES = ("channel", "token")
PARTS = ("localisation", "absent_phrase", "two_findings", "wording")  # of a setting's figures
PAPERS = BottleneckPlan(beta=1.0, mask_shape="channel", steps=STEPS, rows=ROWS)  # its beta for chest films
CASE_SEED = 1


def load_checkpoint(checkpoint: Path) -> tuple[CLIPModel, CLIPTokenizer]:
    """The frozen model and its tokeniser."""
    model = CLIPModel.from_pretrained(checkpoint, local_files_only=True).train(False).requires_grad_(False)
    return model, CLIPTokenizer.from_pretrained(checkpoint, local_files_only=True)


def evaluate_checkpoint(checkpoint: Path, out: Path, count: int) -> None:
    """Measure a checkpoint by its own recipe on `count` mixed and `count` two-finding films; write JSON."""
    model, tokenizer = load_checkpoint(checkpoint)
    recipe = read_recipe(checkpoint)
    films = mixed_films(count)
    mixed, pairs = make_trial(films, CASE_SEED), pair_trial(count)
    block = recipe["vision_layer"]
    figures = {
        "films": {"mixed": count, "two_findings": count, "wording": WORDING_FILMS, "first_seed": TEST_SEED},
        "machine": {"torch": torch.__version__, "python": platform.python_version()},
        "reading": reading_figures(model, tokenizer, films),
        "localisation": {"token_norm": norm_figures(model, mixed, block)},
        "absent_phrase": {},
        "two_findings": {"token_norm": norm_figures(model, pairs, block)},
        "untouched": untouched_figures(model, tokenizer, mixed),
        "wording": {},
    }
    for name, plan in plans_of(recipe).items():
        figures = with_setting(figures, name, setting_figures(model, tokenizer, mixed, pairs, recipe, plan))
    write_figures(out, figures)


def evaluate_again(checkpoint: Path, out: Path, settings: Collection[str], parts: Collection[str]) -> None:
    """Measure some of `plans_of` and `PARTS` anew, on as many films as the figures in `out` tell of; keep the rest.

    The figures are written after each setting.
    """
    model, tokenizer = load_checkpoint(checkpoint)
    recipe = read_recipe(checkpoint)
    figures = json.loads(out.read_text(encoding="utf-8"))
    count = figures["films"]["mixed"]
    mixed, pairs = make_trial(mixed_films(count), CASE_SEED), pair_trial(count)
    for name in settings:
        measured = setting_figures(model, tokenizer, mixed, pairs, recipe, plans_of(recipe)[name], parts)
        figures = with_setting(figures, name, measured)
        write_figures(out, figures)


def read_recipe(checkpoint: Path) -> dict[str, Any]:
    """The export's settings beside a checkpoint."""
    recipe: dict[str, Any] = json.loads((checkpoint / "m2ib.json").read_text(encoding="utf-8"))
    return recipe


def write_figures(out: Path, figures: dict[str, Any]) -> None:
    """Write figures as JSON."""
    out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def mixed_films(count: int) -> FilmSet:
    """`count` test films drawn as in training."""
    return render_films(range(TEST_SEED, TEST_SEED + count))


def pair_trial(count: int) -> Trial:
    """`count` test films with two findings each, with their phrases."""
    return make_trial(pair_films(TEST_SEED + PAIR_OFFSET, count), CASE_SEED)


def plans_of(recipe: dict[str, Any]) -> dict[str, BottleneckPlan]:
    """The settings to measure: the recipe's beta for each mask shape, and the paper's. Each is read at `STEPS`."""
    plans = {
        shape: BottleneckPlan(beta=recipe["defaults"][shape]["beta"], mask_shape=shape, steps=STEPS, rows=ROWS)
        for shape in MASK_SHAPES
    }
    return plans | {"channel_paper": PAPERS}


def with_setting(figures: dict[str, Any], name: str, measured: dict[str, Any]) -> dict[str, Any]:
    """Figures with those of one setting put in, or in the place of its former ones. measured: part -> figures."""
    return figures | {part: figures[part] | {name: values} for part, values in measured.items()}


def setting_figures(
    model: CLIPModel,
    tokenizer: CLIPTokenizer,
    mixed: Trial,
    pairs: Trial,
    recipe: dict[str, Any],
    plan: BottleneckPlan,
    parts: Collection[str] = PARTS,
) -> dict[str, Any]:
    """What is measured of one setting, by the part of the figures that it belongs to."""
    maps = {
        "localisation": (mixed, mixed.phrases),
        "absent_phrase": (mixed, mixed.absent_phrases),
        "two_findings": (pairs, pairs.phrases),
    }
    figures = {
        part: by_steps(model, tokenizer, trial, recipe["vision_layer"], plan, phrases)
        for part, (trial, phrases) in maps.items()
        if part in parts
    }
    if "wording" in parts:
        seed = TEST_SEED + WORDING_OFFSET
        figures["wording"] = wording_figures(model, tokenizer, seed, WORDING_FILMS, recipe["text_layer"], plan)
    return {part: {"beta": plan.beta} | values for part, values in figures.items()}


def norm_figures(model: CLIPModel, trial: Trial, block: int) -> dict[str, Any]:
    """The squared norm of the patches after a block, which knows no phrase, scored as a map."""
    return map_figures(vision_hidden(model, trial.pixels, block)[:, 1:].square().sum(dim=2), trial)


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

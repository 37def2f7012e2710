"""Measures text maps: which half of 'A and B' keeps the information when the film shows only one of the two."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from m2ib_export.demo.attribution import BottleneckPlan, attribute, image_embeddings, text_hidden, text_tail
from m2ib_export.demo.batch import normalised
from m2ib_export.demo.corpus import render_films
from m2ib_export.demo.finding import Finding, sample_findings
from m2ib_export.demo.metric import Scores, figure
from m2ib_export.demo.phrase import plain_phrase
from m2ib_export.demo.trial import absent_finding

SINGLE_STREAM = 6


def single_of(seed: int) -> tuple[Finding, ...]:
    """The one finding of a seed."""
    return sample_findings(np.random.default_rng([seed, SINGLE_STREAM]), count=1)


def wording_scores(
    model: CLIPModel, tokenizer: CLIPTokenizer, first_seed: int, count: int, block: int, plan: BottleneckPlan
) -> list[Scores]:
    """Per number of steps, one score a film: 1 if the words of the finding shown hold more bits a word, else 0.

    The phrase joins the plain phrases of the film's finding and of an absent kind, in random order.
    """
    films = render_films(range(first_seed, first_seed + count), single_of)
    images = image_embeddings(model, normalised(torch.from_numpy(films.images).float().div(255)))
    rng = np.random.default_rng(first_seed)
    scores: list[list[float]] = [[] for _ in plan.steps]
    for row in range(count):
        shown = films.findings(row)
        halves = [plain_phrase(shown[0]), plain_phrase(absent_finding(shown, rng))]
        shown_first = bool(rng.random() < 0.5)
        ordered = halves if shown_first else halves[::-1]
        for position, bits in enumerate(text_bits(model, tokenizer, ordered, images[row], block, plan)):
            gap = bits[0] - bits[1] if shown_first else bits[1] - bits[0]
            scores[position].append(float(gap > 0))
    return [np.array(values) for values in scores]


def text_bits(
    model: CLIPModel, tokenizer: CLIPTokenizer, halves: list[str], image: Tensor, block: int, plan: BottleneckPlan
) -> list[tuple[float, float]]:
    """Mean bits a word in the first and the second half of 'first and second', per number of steps."""
    token_ids = tokenizer(" and ".join(halves), return_tensors="pt")["input_ids"]
    joint = 1 + len(tokenizer.tokenize(halves[0]))  # position of 'and', after the start token
    hidden = text_hidden(model, token_ids, block)
    readings = attribute(text_tail(model, block), hidden, image[None], plan)
    return [(float(r.bits[0, 1:joint].mean()), float(r.bits[0, joint + 1 : -1].mean())) for r in readings]


def wording_figures(
    model: CLIPModel, tokenizer: CLIPTokenizer, first_seed: int, count: int, block: int, plan: BottleneckPlan
) -> dict[str, Any]:
    """Mean and interval by number of steps."""
    scores = wording_scores(model, tokenizer, first_seed, count, block, plan)
    return {f"steps_{steps}": asdict(figure(values)) for steps, values in zip(plan.steps, scores, strict=True)}

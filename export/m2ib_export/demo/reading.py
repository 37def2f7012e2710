"""Measures how well the demo model matches films and phrases. A phrase is right if all it claims is true."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from m2ib_export.demo.attribution import image_embeddings
from m2ib_export.demo.batch import make_batch, normalised
from m2ib_export.demo.corpus import FilmSet
from m2ib_export.demo.finding import ALL_FINDINGS
from m2ib_export.demo.metric import Scores, figure
from m2ib_export.demo.phrase import NORMAL_PHRASES, Caption, is_true, plain_phrase, wordings
from m2ib_export.demo.trial import text_embeddings

IN_BATCH = 100
CAPTION_SEED = 1


def plain_captions() -> list[Caption]:
    """One phrase for each finding and one for a normal film."""
    captions = [Caption(text=plain_phrase(finding), claims=(finding,)) for finding in ALL_FINDINGS]
    return [*captions, Caption(text=NORMAL_PHRASES[0], claims=())]


def full_captions() -> list[Caption]:
    """Every full phrase for each finding and every one for a normal film."""
    captions = [Caption(text=text, claims=(finding,)) for finding in ALL_FINDINGS for text in wordings(finding)]
    return captions + [Caption(text=text, claims=()) for text in NORMAL_PHRASES]


def film_embeddings(model: CLIPModel, films: FilmSet) -> Tensor:
    """Unit embeddings of all films: [films, projection]."""
    return image_embeddings(model, normalised(torch.from_numpy(np.array(films.images)).float().div(255)))


def hits(model: CLIPModel, tokenizer: CLIPTokenizer, films: FilmSet, captions: list[Caption], images: Tensor) -> Scores:
    """Which of the five nearest captions are true, nearest first: [films, 5], 0 or 1."""
    texts = text_embeddings(model, tokenizer, tuple(caption.text for caption in captions))
    nearest = (images @ texts.T).topk(5, dim=1).indices.tolist()
    return np.array(
        [[is_true(captions[i], films.findings(row)) for i in order] for row, order in enumerate(nearest)], float
    )


def reading_scores(model: CLIPModel, tokenizer: CLIPTokenizer, films: FilmSet) -> dict[str, float]:
    """Share of films whose nearest plain phrase is true, and of films with a true one among the nearest five."""
    found = hits(model, tokenizer, films, plain_captions(), film_embeddings(model, films))
    return {"top1": round(float(found[:, 0].mean()), 4), "top5": round(float(found.max(axis=1).mean()), 4)}


def reading_figures(model: CLIPModel, tokenizer: CLIPTokenizer, films: FilmSet) -> dict[str, Any]:
    """Retrieval among the plain phrases, among all full phrases, and among the captions of 100 films."""
    images = film_embeddings(model, films)
    figures: dict[str, Any] = {}
    for name, captions in (("plain", plain_captions()), ("all_wordings", full_captions())):
        found = hits(model, tokenizer, films, captions, images)
        figures[name] = {
            "phrases": len(captions),
            "chance_top1": round(chance(captions, films), 3),
            "top1": asdict(figure(found[:, 0])),
            "top5": asdict(figure(found.max(axis=1))),
            "top1_by_number_of_findings": by_count(found[:, 0], films),
        }
    return figures | {"in_batch_of_100": in_batch(model, tokenizer, films, images)}


def chance(captions: list[Caption], films: FilmSet) -> float:
    """Share of phrases that are true of a film, on average."""
    rows = range(len(films.images))
    return float(np.mean([is_true(caption, films.findings(row)) for row in rows for caption in captions]))


def by_count(hits: Scores, films: FilmSet) -> dict[str, float]:
    """Share of hits among films with no, one, two and three findings."""
    counts = (films.codes >= 0).sum(axis=1)
    return {str(n): round(float(hits[counts == n].mean()), 3) for n in np.unique(counts)}


def in_batch(model: CLIPModel, tokenizer: CLIPTokenizer, films: FilmSet, images: Tensor) -> dict[str, Any]:
    """Nearest of 100 captions, one a film: is it the film's own, and is it true of the film?"""
    own, true = [], []
    rng = np.random.default_rng(CAPTION_SEED)
    for start in range(0, len(images) - IN_BATCH + 1, IN_BATCH):
        batch = make_batch(films, np.arange(start, start + IN_BATCH), rng, jitter=False)
        texts = text_embeddings(model, tokenizer, tuple(batch.texts[:IN_BATCH]))
        nearest = (images[start : start + IN_BATCH] @ texts.T).argmax(dim=1)
        own += (nearest == torch.arange(IN_BATCH)).tolist()
        true += batch.truths[torch.arange(IN_BATCH), nearest].tolist()
    return {"own": asdict(figure(np.array(own, float))), "true": asdict(figure(np.array(true, float)))}

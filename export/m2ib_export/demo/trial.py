"""Draws the questions of an evaluation: films, the finding a phrase names, another in the film, one that is absent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from m2ib_export.demo.batch import normalised
from m2ib_export.demo.corpus import FilmSet, render_films
from m2ib_export.demo.finding import ALL_FINDINGS, Finding, sample_findings
from m2ib_export.demo.phrase import pick, wordings

PAIR_STREAM = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """N questions.

    pixels: [N, 3, 128, 128]; phrases: full phrases of the named findings; absent_phrases: of findings of another
    kind than any in the film; covers: named masks [N, 32, 32] in 0..1; other_covers: masks of the film's second
    finding, None unless every film has two.
    """

    pixels: Tensor
    phrases: tuple[str, ...]
    absent_phrases: tuple[str, ...]
    covers: Tensor
    other_covers: Tensor | None
    kinds: tuple[str, ...]


def pair_films(first_seed: int, count: int) -> FilmSet:
    """Films of exactly two findings."""
    return render_films(range(first_seed, first_seed + count), pair_of)


def pair_of(seed: int) -> tuple[Finding, ...]:
    """The two findings of one seed."""
    return sample_findings(np.random.default_rng([seed, PAIR_STREAM]), count=2)


def make_trial(films: FilmSet, seed: int) -> Trial:
    """Ask each film with findings about one of them, drawn evenly, in a wording drawn evenly."""
    rng = np.random.default_rng(seed)
    rows = [row for row in range(len(films.images)) if films.findings(row)]
    named = [int(rng.integers(len(films.findings(row)))) for row in rows]
    asked = [films.findings(row)[position] for row, position in zip(rows, named, strict=True)]
    covers = torch.from_numpy(np.asarray(films.covers[rows])).float().div(255)
    in_pairs = all(len(films.findings(row)) == 2 for row in rows)
    order = torch.arange(len(rows))
    return Trial(
        pixels=normalised(torch.from_numpy(np.asarray(films.images[rows])).float().div(255)),
        phrases=tuple(pick(wordings(finding), rng) for finding in asked),
        absent_phrases=tuple(pick(wordings(absent_finding(films.findings(row), rng)), rng) for row in rows),
        covers=covers[order, torch.tensor(named)],
        other_covers=covers[order, 1 - torch.tensor(named)] if in_pairs else None,
        kinds=tuple(finding.kind.value for finding in asked),
    )


def absent_finding(findings: tuple[Finding, ...], rng: np.random.Generator) -> Finding:
    """A finding whose kind the film does not show."""
    shown = {finding.kind for finding in findings}
    choices = [finding for finding in ALL_FINDINGS if finding.kind not in shown]
    return choices[int(rng.integers(len(choices)))]


def first(trial: Trial, count: int) -> Trial:
    """The first questions of a trial."""
    return Trial(
        pixels=trial.pixels[:count],
        phrases=trial.phrases[:count],
        absent_phrases=trial.absent_phrases[:count],
        covers=trial.covers[:count],
        other_covers=None if trial.other_covers is None else trial.other_covers[:count],
        kinds=trial.kinds[:count],
    )


@torch.no_grad()
def text_embeddings(model: CLIPModel, tokenizer: CLIPTokenizer, phrases: tuple[str, ...]) -> Tensor:
    """Unit embeddings of phrases: [N, projection]."""
    tokens = tokenizer(list(phrases), padding=True, truncation=True, return_tensors="pt")
    embeddings = model.text_projection(model.text_model(**tokens).pooler_output)
    return torch.nn.functional.normalize(embeddings, dim=-1)

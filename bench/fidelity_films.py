"""Owns the questions of the fidelity study: phantom films and phrases for the demo, noise images for random weights."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize

from fidelity_mask import GradientGraph, Question, open_gradient
from m2ib.v1 import manifest_pb2 as pb
from m2ib_export import demo
from m2ib_export.demo.attribution import image_embeddings, vision_hidden
from m2ib_export.demo.batch import normalised
from m2ib_export.demo.corpus import TEST_SEED, VALIDATION_SEED, render_films
from m2ib_export.demo.evaluate import CASE_SEED, PAIR_OFFSET, WORDING_OFFSET, load_checkpoint
from m2ib_export.demo.phrase import plain_phrase
from m2ib_export.demo.recipe import RECIPE
from m2ib_export.demo.trial import Trial, absent_finding, make_trial, pair_films, text_embeddings
from m2ib_export.demo.wording import single_of
from m2ib_export.families import OriginalModel, load_original
from m2ib_export.geometry import Layers, resolve_layers
from m2ib_export.signature import signatures

CHECKPOINT = Path(demo.__file__).parent / "checkpoint"
DEMO_LAYERS = Layers(vision=RECIPE.vision_layer, text=RECIPE.text_layer)
SETS = {  # first seed, case seed; the blocks and betas of the recipe were chosen on the first 48 of validation
    "validation": (VALIDATION_SEED + PAIR_OFFSET, 2),
    "test": (TEST_SEED + PAIR_OFFSET, CASE_SEED),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TextQuestion:
    """Texts of one length: "A and B" of plain phrases, beside a film that shows only one of the two.

    Attributes:
        question: the texts.
        halves: bool [2, N, tokens], the words of the half that the film shows, and those of the other.
    """

    question: Question
    halves: torch.Tensor


def two_finding_trial(name: str, count: int) -> Trial:
    """The first films of a set, each asked about one of its two findings."""
    first_seed, case_seed = SETS[name]
    return make_trial(pair_films(first_seed, count), case_seed)


def image_question(trial: Trial) -> Question:
    """The trial's films at the demo's image bottleneck, against the named phrase."""
    model, tokenizer = load_checkpoint(CHECKPOINT)
    features = torch.cat([vision_hidden(model, part, DEMO_LAYERS.vision) for part in trial.pixels.split(50)])
    return Question(features=features, target=text_embeddings(model, tokenizer, trial.phrases))


def demo_graph(side: str, threads: int) -> GradientGraph:
    """The demo's gradient graph of one side, "vision" or "text"."""
    return _graph(load_original("clip", CHECKPOINT), DEMO_LAYERS, side, threads)


def _graph(original: OriginalModel, layers: Layers, side: str, threads: int) -> GradientGraph:
    split, table = original.split(layers), signatures(original.geometry)
    if side == "vision":
        return open_gradient(split.vision_tail, table[pb.GRAPH_ROLE_VISION_TAIL_GRAD], threads)
    return open_gradient(split.text_tail, table[pb.GRAPH_ROLE_TEXT_TAIL_GRAD], threads)


def text_questions(count: int) -> Iterator[TextQuestion]:
    """The model card's question of the text side on its first films, by length of the text."""
    model, tokenizer = load_checkpoint(CHECKPOINT)
    original = load_original("clip", CHECKPOINT)
    first_seed = TEST_SEED + WORDING_OFFSET
    films = render_films(range(first_seed, first_seed + count), single_of)
    images = image_embeddings(model, normalised(torch.from_numpy(films.images).float().div(255)))
    rng = np.random.default_rng(first_seed)
    by_length: dict[int, list[tuple[int, list[int], int, bool]]] = {}
    for row in range(count):
        shown = films.findings(row)
        pair = [plain_phrase(shown[0]), plain_phrase(absent_finding(shown, rng))]
        is_first = bool(rng.random() < 0.5)
        ordered = pair if is_first else pair[::-1]
        token_ids = tokenizer(" and ".join(ordered))["input_ids"]
        joint = 1 + len(tokenizer.tokenize(ordered[0]))  # where "and" stands, after the start token
        by_length.setdefault(len(token_ids), []).append((row, token_ids, joint, is_first))
    for length, entries in sorted(by_length.items()):
        token_ids = torch.tensor([entry[1] for entry in entries])
        attention_mask = torch.ones_like(token_ids)
        features = original.text_features(token_ids, attention_mask, DEMO_LAYERS.text)
        pooled = torch.full((len(entries),), length - 1)
        context = {"attention_mask": attention_mask, "pooled_position": pooled}
        target = images[[entry[0] for entry in entries]]
        halves = torch.stack([_halves(length, joint, is_first) for _, _, joint, is_first in entries], dim=1)
        yield TextQuestion(question=Question(features=features, target=target, context=context), halves=halves)


def _halves(length: int, joint: int, is_first: bool) -> torch.Tensor:
    position = torch.arange(length)
    pair = [(position >= 1) & (position < joint), (position > joint) & (position < length - 1)]
    return torch.stack(pair if is_first else pair[::-1])


def random_weights(preset: str, count: int, threads: int) -> tuple[GradientGraph, Question]:
    """A full-size model with random weights: noise images against the embeddings of random texts."""
    from checkpoints import write_checkpoint  # noqa: PLC0415 from tests/, only on the path when asked for

    with tempfile.TemporaryDirectory() as folder:
        original = load_original("clip", write_checkpoint(Path(folder) / "checkpoint", preset))
    geometry = original.geometry
    layers = resolve_layers(geometry, vision=None, text=None)
    generator = torch.Generator().manual_seed(5)
    side = geometry.vision.image_size
    pixels = torch.randn((count, geometry.vision.channels, side, side), generator=generator)
    token_ids = torch.randint(300, 3000, (count, 12), generator=generator)
    token_ids[:, 0], token_ids[:, -1] = geometry.text.vocabulary_size - 2, geometry.text.vocabulary_size - 1
    with torch.no_grad():
        features = original.image_features(pixels, layers.vision)
        target = normalize(original.embed_texts(token_ids, torch.ones_like(token_ids)), dim=-1)
    return _graph(original, layers, "vision", threads), Question(features=features, target=target)

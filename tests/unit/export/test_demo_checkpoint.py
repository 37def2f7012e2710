"""The committed demo checkpoint: an ordinary CLIP, small, and able to tell findings apart."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from m2ib_export.demo import CHECKPOINT
from m2ib_export.demo.anatomy import Side, Zone
from m2ib_export.demo.attribution import (
    BottleneckPlan,
    attribute,
    image_embeddings,
    text_hidden,
    text_tail,
    vision_hidden,
    vision_tail,
)
from m2ib_export.demo.batch import normalised
from m2ib_export.demo.corpus import render_films
from m2ib_export.demo.evaluate import maps_of, pair_trial
from m2ib_export.demo.finding import Finding, Kind
from m2ib_export.demo.metric import lift, named_brighter, pointing
from m2ib_export.demo.phrase import all_phrases
from m2ib_export.demo.trial import text_embeddings
from m2ib_export.demo.vocabulary import learn_tokenizer
from m2ib_export.recipe import EFFORTS, parse_recipe

LIMIT_BYTES = 12_000_000
HELD_OUT_SEED = 9_000_000
NODULE = Finding(kind=Kind.NODULE, side=Side.RIGHT, zone=Zone.UPPER)
EFFUSION = Finding(kind=Kind.EFFUSION, side=Side.LEFT)


@pytest.fixture(scope="module")
def model() -> CLIPModel:
    torch.set_num_threads(1)
    return CLIPModel.from_pretrained(CHECKPOINT, local_files_only=True).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return AutoTokenizer.from_pretrained(CHECKPOINT, local_files_only=True)


def films_of(finding: Finding, count: int) -> torch.Tensor:
    films = render_films(range(HELD_OUT_SEED, HELD_OUT_SEED + count), lambda _: (finding,))
    return normalised(torch.from_numpy(films.images).float() / 255)


def test_weights_are_small_enough_for_the_repository() -> None:
    assert (CHECKPOINT / "model.safetensors").stat().st_size < LIMIT_BYTES


def test_text_pools_at_the_tokenisers_end_token(model: CLIPModel, tokenizer: CLIPTokenizer) -> None:
    assert model.config.text_config.eos_token_id == tokenizer.eos_token_id
    assert model.config.text_config.eos_token_id != 2  # the value at which pooling takes the largest id
    alone = text_embeddings(model, tokenizer, ("right upper zone nodule",))
    padded = text_embeddings(model, tokenizer, ("right upper zone nodule", "there is a mass in the left lower lobe"))
    assert torch.allclose(alone[0], padded[0], atol=1e-5)


def test_known_words_are_whole_tokens_and_any_text_is_encodable(tokenizer: CLIPTokenizer) -> None:
    words = {word for phrase in all_phrases() for word in phrase.replace("-", " ").replace(",", " ").split()}
    assert [word for word in words if len(tokenizer.tokenize(word)) != 1] == []
    odd = tokenizer("Größe 12 µm — 東京 😀")["input_ids"]
    assert tokenizer.decode(odd[1:-1]).replace(" ", "") == "größe12µm—東京😀"


def test_tokeniser_can_be_learned_again(tokenizer: CLIPTokenizer) -> None:
    assert learn_tokenizer(all_phrases()).get_vocab() == tokenizer.get_vocab()


def test_image_processor_agrees_with_training(model: CLIPModel) -> None:
    processor = CLIPImageProcessor.from_pretrained(CHECKPOINT, local_files_only=True)
    grey = np.full((128, 128, 3), 128, np.uint8)
    processed = torch.from_numpy(np.asarray(processor(grey, return_tensors="np")["pixel_values"]))
    assert torch.allclose(processed, normalised(torch.full((1, 128, 128), 128 / 255)), atol=1e-5)


def test_embeddings_separate_two_findings(model: CLIPModel, tokenizer: CLIPTokenizer) -> None:
    texts = text_embeddings(model, tokenizer, ("right upper zone nodule", "left pleural effusion"))
    for row, finding in enumerate((NODULE, EFFUSION)):
        cosines = image_embeddings(model, films_of(finding, 12)) @ texts.T
        assert (cosines[:, row] > cosines[:, 1 - row]).float().mean() >= 0.9


def test_recipe_fits_the_model(model: CLIPModel) -> None:
    recipe = json.loads((CHECKPOINT / "m2ib.json").read_text(encoding="utf-8"))
    assert 0 <= recipe["vision_layer"] < model.config.vision_config.num_hidden_layers - 1
    assert 0 <= recipe["text_layer"] < model.config.text_config.num_hidden_layers - 1
    assert recipe["fit"] == "letterbox"
    assert set(parse_recipe(recipe).efforts) <= set(EFFORTS)
    texts = (CHECKPOINT / recipe["reference_texts"]).read_text(encoding="utf-8").splitlines()
    assert 40 <= len(set(texts)) == len(texts) <= 80


def test_tower_split_at_any_block_is_the_tower(model: CLIPModel, tokenizer: CLIPTokenizer) -> None:
    pixels = films_of(NODULE, 2)
    whole = model.visual_projection(model.vision_model(pixels).pooler_output)
    for block in range(5):
        assert torch.allclose(vision_tail(model, block)(vision_hidden(model, pixels, block)), whole, atol=1e-4)
    token_ids = tokenizer("right upper zone nodule", return_tensors="pt")["input_ids"]
    told = model.text_projection(model.text_model(input_ids=token_ids).pooler_output)
    assert torch.allclose(text_tail(model, 0)(text_hidden(model, token_ids, 0)), told, atol=1e-4)


@pytest.mark.parametrize("mask_shape", ["channel", "token"])
def test_films_optimised_together_are_as_if_alone(model: CLIPModel, tokenizer: CLIPTokenizer, mask_shape: str) -> None:
    texts = text_embeddings(model, tokenizer, ("right upper zone nodule",)).repeat(2, 1)
    film = vision_hidden(model, films_of(NODULE, 1), 2)
    hidden = torch.cat([film, film * 1.5])
    plan = BottleneckPlan(beta=0.3, mask_shape=mask_shape, steps=(1, 3), rows=2)
    together, alone = (attribute(vision_tail(model, 2), rows, texts[: len(rows)], plan) for rows in (hidden, film))
    assert [len(reading.bits) for reading in together] == [2, 2]
    # The first step reads the initial mask, whatever the noise: the same for both.
    assert torch.allclose(together[0].bits[0], alone[0].bits[0], rtol=1e-5)
    keep = 1 / (1 + math.exp(-5.0))
    nats = 0.5 * ((keep * film[0, 1:]).square() + (1 - keep) ** 2 - 1) - math.log(1 - keep)
    assert torch.allclose(together[0].bits[0, 1:], nats.sum(dim=1) / math.log(2), rtol=1e-4)


def test_map_points_at_the_named_finding_with_the_token_mask(model: CLIPModel, tokenizer: CLIPTokenizer) -> None:
    recipe = json.loads((CHECKPOINT / "m2ib.json").read_text(encoding="utf-8"))
    films = render_films(range(HELD_OUT_SEED, HELD_OUT_SEED + 6), lambda _: (NODULE, EFFUSION))
    pixels = normalised(torch.from_numpy(films.images).float() / 255)
    covers = torch.from_numpy(films.covers[:, 0]).float() / 255
    plan = BottleneckPlan(beta=recipe["defaults"]["token"]["beta"], mask_shape="token", steps=(20,), rows=4)
    texts = text_embeddings(model, tokenizer, ("right upper zone nodule",)).repeat(6, 1)
    block = recipe["vision_layer"]
    (reading,) = attribute(vision_tail(model, block), vision_hidden(model, pixels, block), texts, plan)
    assert pointing(reading.bits[:, 1:], covers).mean() > 0.6
    assert lift(reading.bits[:, 1:], covers).mean() > 5


def test_map_of_the_specific_effort_points_at_the_named_finding(model: CLIPModel, tokenizer: CLIPTokenizer) -> None:
    """The bounds leave the rounding of another machine some films: here they are .975, 15.8 and .95."""
    recipe = json.loads((CHECKPOINT / "m2ib.json").read_text(encoding="utf-8"))
    effort = recipe["defaults"]["efforts"]["specific"]
    beta, steps, rows = (effort["settings"][name] for name in ("beta", "steps", "samples"))
    plan = BottleneckPlan(beta=beta, mask_shape=effort["mask_shape"], steps=(steps,), rows=rows)
    trial = pair_trial(40)  # test films of two findings, the first of those that the model card counts
    texts = text_embeddings(model, tokenizer, trial.phrases)
    ((bits, _, _),) = maps_of(model, trial, texts, recipe["vision_layer"], plan)
    assert pointing(bits, trial.covers).mean() >= 0.85
    assert lift(bits, trial.covers).mean() > 10
    assert trial.other_covers is not None
    assert named_brighter(bits, trial.covers, trial.other_covers, peak=False).mean() >= 0.85

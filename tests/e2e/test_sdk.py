"""The real client with the real server: what the fake cannot promise for it."""

import time

import numpy as np
import pytest
from PIL import Image

from m2ib_client import AsyncClient, Client, InvalidRequestError, Pair
from serving import running_server

TEXTS = ("a cat", "a dog and a cat", "two birds", "a small red house", "a cat", "")
OPTIONS = {"model": "tiny", "steps": 3, "samples": 4}


def picture(seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 48), dtype=np.uint8))


@pytest.fixture(scope="module")
def client(server):
    with Client(server.address, timeout=120) as client:
        yield client


def test_many_pairs_are_explained_as_they_are_one_by_one(client):
    image = picture()
    results = list(client.explain_many([(image, text) for text in TEXTS], **OPTIONS))
    assert [result.index for result in results] == list(range(len(TEXTS)))
    assert isinstance(results[-1].error, InvalidRequestError)
    for result in results[:-1]:
        alone = client.explain(image, result.pair.text, **OPTIONS)
        np.testing.assert_allclose(result.explanation.image.grid_bits, alone.image.grid_bits, rtol=1e-3, atol=1e-3)
    assert results[4].explanation.provenance.image_features_cached or results[4].explanation.provenance.shared


def test_pairs_as_they_finish_are_each_answered_once(client):
    pairs = [Pair(picture(seed % 3), f"a cat {seed}", str(seed), {"seed": seed}) for seed in range(20)]
    results = list(client.explain_many(pairs, ordered=False, **OPTIONS))
    assert sorted(result.index for result in results) == list(range(20))
    assert all(result.explanation.provenance.settings.seed == int(result.pair.id) for result in results)


async def test_asynchronous_pairs_are_explained_too(server):
    async def pairs():
        for seed in range(6):
            yield picture(seed), "a cat"

    async with AsyncClient(server.address, timeout=120) as client:
        results = [result async for result in client.explain_many(pairs(), **OPTIONS)]
    assert [result.error for result in results] == [None] * 6


def test_an_image_that_the_server_let_go_of_is_sent_again(tiny_package, tmp_path):
    with (
        running_server(tiny_package, tmp_path, "--upload-seconds", "0.3") as forgetful,
        Client(forgetful.address, timeout=120) as client,
    ):
        handle = client.upload(picture())
        first = client.explain(handle, "a cat", steps=2, samples=2)
        time.sleep(0.6)
        again = client.explain(handle, "a cat", steps=2, samples=2)
    assert np.array_equal(first.image.grid_bits, again.image.grid_bits)


def test_a_partial_and_a_repeated_explanation_say_what_they_are(client):
    partial = client.explain(picture(), "a cat", model="tiny", steps=1000, samples=60, on_deadline="partial", timeout=2)
    assert partial.partial
    assert partial.text is None
    repeated = client.explain(picture(), "a cat", repeats=3, **OPTIONS)
    assert not repeated.partial
    assert repeated.image.grid_std_bits.shape == repeated.image.grid_bits.shape
    assert -1 <= repeated.image.stability <= 1


@pytest.mark.parametrize("effort", ["published", "fast", "specific", "thorough"])
def test_every_effort_is_known_to_the_model_and_obeyed(client, effort):
    (model,) = [model for model in client.models() if model.name == "tiny"]
    said = model.defaults.efforts[effort]
    settings = client.explain(picture(), "a cat", model="tiny", effort=effort).provenance.settings
    assert settings.effort == effort
    assert (settings.mask_shape, settings.text_mask_shape) == (said.mask_shape, said.text_mask_shape)
    assert settings.repeats == said.repeats
    assert (settings.steps, settings.samples) == (said.settings.steps, said.settings.samples)

"""Laws of batching: a job's map is its own, alone, first, last or among jobs of every other kind."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from m2ib_server.methods import M2IBSettings, MaskShape, Side, explain, score
from stages import open_stage

SETTINGS = M2IBSettings(
    beta=1.0, text_beta=0.3, steps=10, samples=10, learning_rate=1.0, mask_shape=MaskShape.CHANNEL, seed=1
)
TEXTS = {"tiny": ("a cat and a dog", "a cat", "two dogs, a cat and a bird"), "demo": ("left pleural effusion", "mass")}
COMPANY = {
    "steps": replace(SETTINGS, steps=3, seed=5),
    "rows": replace(SETTINGS, samples=3, seed=6),
    "beta and mask": replace(SETTINGS, beta=0.1, mask_shape=MaskShape.TOKEN, seed=7),
    "repeats": replace(SETTINGS, samples=2, repeats=3, seed=8),
    "an equal one with another seed": replace(SETTINGS, seed=9),
}


@pytest.fixture(scope="module", params=["tiny", "demo"])
def stage(request, tiny_package, demo_package):
    """An engine and the inputs: an image, another image, texts of several lengths."""
    stage = open_stage({"tiny": tiny_package, "demo": demo_package}[request.param])
    model = stage.model
    pixels = [torch.randn(model.model_input.shape, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    images = [model.image_input(each.numpy()) for each in pixels]
    texts = [model.text_input(model.tokeniser.encode(text, truncate=False)) for text in TEXTS[request.param]]
    yield stage, images, texts
    stage.engine.close()


def normalised(outcome, side):
    bits = outcome.course[side][-1].bits.numpy()
    return (bits - bits.min()) / (bits.max() - bits.min())


@pytest.mark.parametrize("shape", list(MaskShape))
@pytest.mark.parametrize("place", ["first", "last", "middle"])
def test_a_map_is_the_same_alone_and_in_company(stage, shape, place):
    stage, (image, other), texts = stage
    settings = replace(SETTINGS, mask_shape=shape)
    (alone,) = stage.run(explain(image, texts[0], settings, tuple(Side)))
    company = [explain(other, texts[-1], each, tuple(Side)) for each in COMPANY.values()]
    company += [explain(image, texts[1], settings, (Side.TEXT,)), score([other], texts, rows=40)]
    index = {"first": 0, "last": len(company), "middle": 3}[place]
    company.insert(index, explain(image, texts[0], settings, tuple(Side)))
    together = stage.run(*company)[index]
    for side in Side:
        expected, seen = normalised(alone, side), normalised(together, side)
        assert np.abs(seen - expected).max() <= 1e-4
        assert spearmanr(seen, expected).statistic > 0.9999


def test_a_partly_cut_batch_changes_nothing(stage):
    stage, (image, _), texts = stage
    settings = replace(SETTINGS, samples=64)  # more rows than one call takes
    alone, again = stage.run(
        explain(image, texts[0], settings, tuple(Side)), explain(image, texts[0], settings, tuple(Side))
    )
    for side in Side:
        assert np.abs(normalised(alone, side) - normalised(again, side)).max() <= 1e-4

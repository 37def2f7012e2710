"""Laws of batching: a job's map is its own, alone, first, last or among jobs of every other kind."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from m2ib_server.methods import M2IBSettings, MaskShape, Side, explain, score
from packages import export
from stages import open_stage

SETTINGS = M2IBSettings(
    beta=1.0,
    text_beta=0.3,
    steps=10,
    samples=10,
    learning_rate=1.0,
    mask_shape=MaskShape.CHANNEL,
    text_mask_shape=MaskShape.CHANNEL,
    seed=1,
)
UNCUT_ROWS = 64  # more than one call takes by default
TINY_TEXTS = ("a cat and a dog", "a cat", "two dogs, a cat and a bird")
DEMO_TEXTS = ("left pleural effusion", "mass")
HALVES = ("fp16", "bf16")
COMPANY = {
    "steps": replace(SETTINGS, steps=3, seed=5),
    "rows": replace(SETTINGS, samples=3, seed=6),
    "beta and mask": replace(SETTINGS, beta=0.1, mask_shape=MaskShape.TOKEN, text_mask_shape=MaskShape.TOKEN, seed=7),
    "a text mask of its own": replace(SETTINGS, text_mask_shape=MaskShape.TOKEN, seed=10),
    "repeats": replace(SETTINGS, samples=2, repeats=3, seed=8),
    "an equal one with another seed": replace(SETTINGS, seed=9),
}


@pytest.fixture(scope="module", params=["tiny", "demo", *HALVES])
def package(request, tiny_package, demo_package, tiny_checkpoint, tmp_path_factory, kept_packages):
    """Packages in fp32, and the tiny one in half precision."""
    if request.param in HALVES:
        flags = ("--name", "tiny", "--version", "1", "--precision", request.param)
        return export(tiny_checkpoint, tmp_path_factory.mktemp("half") / request.param, *flags, kept=kept_packages)
    return {"tiny": tiny_package, "demo": demo_package}[request.param]


@pytest.fixture(scope="module")
def stage(package):
    """An engine that keeps nothing, so that heads and targets are evaluated anew for every job."""
    stage = open_stage(package, cache_bytes=0)
    yield stage
    stage.engine.close()


@pytest.fixture(scope="module")
def uncut_stage(package):
    """An engine that takes the rows of the law below in one call."""
    stage = open_stage(package, cache_bytes=0, max_rows=UNCUT_ROWS)
    yield stage
    stage.engine.close()


@pytest.fixture(scope="module")
def images(stage):
    """Two images of noise."""
    shape = stage.model.model_input.shape
    pixels = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    return [stage.model.image_input(each.numpy()) for each in pixels]


@pytest.fixture(scope="module")
def texts(stage, package):
    """Texts of several lengths."""
    model, chosen = stage.model, DEMO_TEXTS if package.name == "demo" else TINY_TEXTS
    return [model.text_input(model.tokeniser.encode(text, truncate=False)) for text in chosen]


def normalised(outcome, side):
    bits = outcome.course[side][-1].bits.numpy()
    return (bits - bits.min()) / (bits.max() - bits.min())


@pytest.mark.parametrize("shape", list(MaskShape))
@pytest.mark.parametrize("place", ["first", "last", "middle"])
def test_a_map_is_the_same_alone_and_in_company(stage, images, texts, shape, place):
    image, other = images
    settings = replace(SETTINGS, mask_shape=shape, text_mask_shape=shape)
    (alone,) = stage.run(explain(image, texts[0], settings, tuple(Side)))
    company = [explain(other, texts[-1], each, tuple(Side)) for each in COMPANY.values()]
    company += [explain(image, texts[1], settings, (Side.TEXT,)), score({0: other}, texts, rows=40)]
    index = {"first": 0, "last": len(company), "middle": 3}[place]
    company.insert(index, explain(image, texts[0], settings, tuple(Side)))
    together = stage.run(*company)[index]
    for side in Side:
        expected, seen = normalised(alone, side), normalised(together, side)
        assert np.abs(seen - expected).max() <= 1e-4
        assert spearmanr(seen, expected).statistic > 0.9999


def test_a_partly_cut_batch_changes_nothing(stage, uncut_stage, images, texts):
    def methods():
        yield explain(images[0], texts[0], replace(SETTINGS, samples=UNCUT_ROWS), tuple(Side))
        yield explain(images[1], texts[0], SETTINGS, tuple(Side))  # shares a call with the last rows of the first

    uncut = [uncut_stage.run(method)[0] for method in methods()]
    for cut, expected in zip(stage.run(*methods()), uncut, strict=True):
        for side in Side:
            assert np.abs(normalised(cut, side) - normalised(expected, side)).max() <= 1e-4

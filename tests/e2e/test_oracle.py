"""The served map against M2IB written a second time on the original model, fed the same noise."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from transformers import AutoTokenizer, CLIPModel

from checkpoints import write_checkpoint
from m2ib_client import Client
from oracle import OracleSettings, image_information, similarity, text_information
from packages import export
from serving import running_server

TEXT = {"tiny": "a cat and a dog", "demo": "right upper zone nodule", "vit-b-32": "an opacity in the left lower lung"}
MAX_DIFFERENCE = 1e-3
MIN_RANK_CORRELATION = 0.999


def normalised(values):
    low, high = values.min(), values.max()
    return (values - low) / (high - low)


def assert_same_map(ours, oracle):
    ours, oracle = np.asarray(ours, dtype=np.float64), np.asarray(oracle, dtype=np.float64)
    assert np.abs(normalised(ours) - normalised(oracle)).max() < MAX_DIFFERENCE
    assert spearmanr(ours, oracle).statistic > MIN_RANK_CORRELATION


def assert_served_equals_oracle(address, checkpoint, name, mask_shape, text_mask_shape):
    model = CLIPModel.from_pretrained(checkpoint, attn_implementation="eager").eval().requires_grad_(False)
    size = model.config.vision_config.image_size
    pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(5))
    ids = torch.tensor([AutoTokenizer.from_pretrained(checkpoint)(TEXT[name]).input_ids])
    with Client(address, timeout=300) as client:
        described = client.model(name)
        served = client.explain(
            pixels[0].numpy(),
            TEXT[name],
            model=name,
            mask_shape=mask_shape,
            text_mask_shape=text_mask_shape,
            seed=11,
            steps=10,
            samples=10,
            outputs=(),
        )
    settings = {"steps": 10, "samples": 10, "seed": 11}
    used = served.provenance.settings
    settings |= {"learning_rate": used.learning_rate}
    assert served.similarity == pytest.approx(similarity(model, pixels, ids), abs=1e-5)

    own = OracleSettings(layer=described.vision.layer, beta=used.beta, mask_shape=mask_shape, **settings)
    image = image_information(model, pixels, ids, own)
    assert_same_map(served.image.grid_bits.ravel(), image[1:])
    text_shape = text_mask_shape or mask_shape
    own = OracleSettings(layer=described.text.layer, beta=used.text_beta, mask_shape=text_shape, **settings)
    text = text_information(model, pixels, ids, own)
    assert [token.token_id for token in served.tokens] == ids[0].tolist()
    assert_same_map([token.bits for token in served.tokens], text)


SHAPES = [("channel", None), ("token", None), ("channel", "token"), ("token", "channel")]


@pytest.mark.parametrize(("mask_shape", "text_mask_shape"), SHAPES)
@pytest.mark.parametrize("name", ["tiny", "demo"])
def test_served_maps_equal_the_oracle(server, tiny_checkpoint, demo_checkpoint, name, mask_shape, text_mask_shape):
    checkpoint = {"tiny": tiny_checkpoint, "demo": demo_checkpoint}[name]
    assert_served_equals_oracle(server.address, checkpoint, name, mask_shape, text_mask_shape)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_served_maps_equal_the_oracle_at_full_size(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "checkpoint", "vit-b-32")
    package = export(checkpoint, tmp_path / "package", "--name", "vit-b-32", "--version", "1")
    with running_server(package, tmp_path) as server:
        for mask_shape in ("channel", "token"):
            assert_served_equals_oracle(server.address, checkpoint, "vit-b-32", mask_shape, None)

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from m2ib_export.errors import CheckpointInvalid
from m2ib_export.families import load_original


@pytest.fixture
def copied(tiny_checkpoint, tmp_path):
    return shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")


def change_config(directory, **changes):
    document = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    (directory / "config.json").write_text(json.dumps({**document, **changes}), encoding="utf-8")


def test_an_unknown_family_is_refused(tiny_checkpoint):
    with pytest.raises(CheckpointInvalid, match="model_type: seen 'bert'; allowed: clip"):
        load_original("bert", tiny_checkpoint)


def test_a_checkpoint_without_weights_is_refused(copied):
    (copied / "model.safetensors").unlink()
    with pytest.raises(CheckpointInvalid, match="weights: seen OSError"):
        load_original("clip", copied)


def test_missing_tensors_are_refused_instead_of_drawn_at_random(copied):
    tensors = load_file(copied / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointInvalid, match=r"1 missing or misshapen tensors, the first visual_projection\.weight"):
        load_original("clip", copied)


def test_misshapen_tensors_are_refused(copied):
    change_config(copied, projection_dim=48)
    with pytest.raises(CheckpointInvalid, match="weights: seen"):
        load_original("clip", copied)


def test_features_then_tail_is_the_whole_model(tiny_checkpoint):
    original = load_original("clip", tiny_checkpoint)
    pixels = torch.randn(2, 3, 32, 32)
    embedding = original.image_tail(original.image_features(pixels, 1), 1)
    torch.testing.assert_close(embedding, original.embed_images(pixels), rtol=1e-4, atol=1e-5)


def test_the_pooled_token_is_the_tokenisers_end(tiny_checkpoint):
    original = load_original("clip", tiny_checkpoint)
    assert original.end_token_id(tokeniser_end=799, highest_token=799) == 799
    with pytest.raises(CheckpointInvalid, match="seen texts that end with token 5; allowed: token 799"):
        original.end_token_id(tokeniser_end=5, highest_token=799)


def test_a_legacy_model_pools_at_the_highest_token(copied):
    document = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    document["text_config"]["eos_token_id"] = 2
    (copied / "config.json").write_text(json.dumps(document), encoding="utf-8")
    original = load_original("clip", copied)
    assert original.end_token_id(tokeniser_end=799, highest_token=799) == 799
    with pytest.raises(CheckpointInvalid, match="allowed: token 801"):
        original.end_token_id(tokeniser_end=799, highest_token=801)

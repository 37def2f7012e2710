"""Builds the demo's CLIP and writes it as an ordinary Hugging Face checkpoint."""

from __future__ import annotations

from pathlib import Path

from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from m2ib_export.demo.corpus import INPUT_SIDE
from m2ib_export.demo.vocabulary import MAX_TOKENS

WIDTH, HEADS, PATCH_SIDE = 128, 4, 16
VISION_BLOCKS, TEXT_BLOCKS = 6, 3
PIXEL_MEAN, PIXEL_STD = 0.45, 0.27  # of phantom films, used for all three equal colour channels


def build_model(tokenizer: CLIPTokenizer) -> CLIPModel:
    """A freshly initialised CLIP for 128-pixel films; the text side pools at the tokeniser's end token."""
    tower = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": HEADS}
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": MAX_TOKENS,
        "num_hidden_layers": TEXT_BLOCKS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "projection_dim": WIDTH,
    }
    vision = {
        "image_size": INPUT_SIDE,
        "patch_size": PATCH_SIDE,
        "num_hidden_layers": VISION_BLOCKS,
        "projection_dim": WIDTH,
    }
    return CLIPModel(CLIPConfig(text_config=tower | text, vision_config=tower | vision, projection_dim=WIDTH))


def save_checkpoint(folder: Path, model: CLIPModel, tokenizer: CLIPTokenizer) -> None:
    """Write weights, configuration, tokeniser and image processor."""
    model.save_pretrained(folder)
    tokenizer.backend_tokenizer.no_padding()  # the padding of the last call is no part of the tokeniser
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(
        size={"shortest_edge": INPUT_SIDE},
        crop_size={"height": INPUT_SIDE, "width": INPUT_SIDE},
        image_mean=[PIXEL_MEAN] * 3,
        image_std=[PIXEL_STD] * 3,
    ).save_pretrained(folder)

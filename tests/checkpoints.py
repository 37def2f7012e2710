"""Builds CLIP checkpoints with random weights and a small real tokeniser, offline, for tests and benchmarks."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import CLIPConfig, CLIPModel

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
CORPUS = (
    "a photo of a cat and a dog on a red sofa in the morning light",
    "an opacity in the left lower lung with a small pleural effusion",
    "a chest radiograph without any sign of pneumonia or pneumothorax",
    "the heart is enlarged and the ribs are intact on both sides",
    "an old guitar leaning against a white wall in a library full of books",
)
TINY_VOCABULARY = 800
FULL_VOCABULARY = 49408


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderPreset:
    """One encoder's shape: blocks, channels, heads."""

    depth: int
    width: int
    heads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One checkpoint's shape; sizes in pixels, lengths and vocabulary in tokens."""

    vision: EncoderPreset
    text: EncoderPreset
    image_size: int
    patch_size: int
    embedding_width: int
    context_length: int = 77
    vocabulary_size: int = FULL_VOCABULARY
    activation: str = "quick_gelu"


PRESETS = {
    "tiny": Preset(
        vision=EncoderPreset(depth=3, width=32, heads=4),
        text=EncoderPreset(depth=3, width=24, heads=3),
        image_size=32,
        patch_size=8,
        embedding_width=16,
        context_length=24,
        vocabulary_size=TINY_VOCABULARY,
    ),
    "tiny-gelu": Preset(
        vision=EncoderPreset(depth=4, width=24, heads=2),
        text=EncoderPreset(depth=2, width=32, heads=2),
        image_size=24,
        patch_size=6,
        embedding_width=24,
        context_length=24,
        vocabulary_size=TINY_VOCABULARY,
        activation="gelu",
    ),
    "vit-b-32": Preset(
        vision=EncoderPreset(depth=12, width=768, heads=12),
        text=EncoderPreset(depth=12, width=512, heads=8),
        image_size=224,
        patch_size=32,
        embedding_width=512,
    ),
    "vit-b-16": Preset(
        vision=EncoderPreset(depth=12, width=768, heads=12),
        text=EncoderPreset(depth=12, width=512, heads=8),
        image_size=224,
        patch_size=16,
        embedding_width=512,
    ),
    "vit-l-14": Preset(
        vision=EncoderPreset(depth=24, width=1024, heads=16),
        text=EncoderPreset(depth=12, width=768, heads=12),
        image_size=224,
        patch_size=14,
        embedding_width=768,
    ),
}


def write_checkpoint(directory: Path, preset: str, *, seed: int = 0, is_legacy: bool = False) -> Path:
    """Write a checkpoint of a preset's shape, its weights drawn from the seed, and return the directory.

    is_legacy: pool at the highest token id, as checkpoints with `eos_token_id` 2 do.
    """
    shape = PRESETS[preset]
    directory.mkdir(parents=True, exist_ok=True)
    tokeniser = build_tokeniser(shape.vocabulary_size)
    tokeniser.save(str(directory / "tokenizer.json"))
    start, end = tokeniser.encode("").ids
    config = _config(shape, start=start, end=2 if is_legacy else end)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPModel(config)
        _tell_inputs_apart(model)
    model.save_pretrained(directory)
    (directory / "preprocessor_config.json").write_text(json.dumps(_preprocessor(shape), indent=2))
    return directory


def build_tokeniser(vocabulary_size: int) -> Tokenizer:
    """Build a byte-level BPE in CLIP's form, the same each time; start and end token have the last two ids."""
    merges = _merges()
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*symbols, *(symbol + WORD_END for symbol in symbols), *(left + right for left, right in merges)]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    vocabulary |= {START: vocabulary_size - 2, END: vocabulary_size - 1}
    model = BPE(vocabulary, merges, end_of_word_suffix=WORD_END, continuing_subword_prefix="", unk_token=END)
    tokeniser = Tokenizer(model)
    tokeniser.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    split = pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True)
    tokeniser.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokeniser.decoder = decoders.ByteLevel()
    tokeniser.add_special_tokens([START, END])
    tokeniser.post_processor = processors.RobertaProcessing(
        (END, vocabulary_size - 1), (START, vocabulary_size - 2), trim_offsets=False, add_prefix_space=False
    )
    return tokeniser


def _merges() -> list[tuple[str, str]]:
    """Grow every word of the corpus from its first letter, one letter a merge."""
    merges: dict[tuple[str, str], None] = {}
    for word in " ".join(CORPUS).split():
        symbols = [*word[:-1], word[-1] + WORD_END]
        grown = symbols[0]
        for symbol in symbols[1:]:
            merges[grown, symbol] = None
            grown += symbol
    return list(merges)


def _config(shape: Preset, *, start: int, end: int) -> CLIPConfig:
    return CLIPConfig(
        projection_dim=shape.embedding_width,
        vision_config={
            **_encoder(shape.vision, shape),
            "image_size": shape.image_size,
            "patch_size": shape.patch_size,
        },
        text_config={
            **_encoder(shape.text, shape),
            "max_position_embeddings": shape.context_length,
            "vocab_size": shape.vocabulary_size,
            "bos_token_id": start,
            "eos_token_id": end,
        },
    )


def _encoder(encoder: EncoderPreset, shape: Preset) -> dict[str, object]:
    return {
        "hidden_size": encoder.width,
        "intermediate_size": 4 * encoder.width,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.heads,
        "projection_dim": shape.embedding_width,
        "hidden_act": shape.activation,
    }


def _preprocessor(shape: Preset) -> dict[str, object]:
    return {
        "do_center_crop": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "crop_size": {"height": shape.image_size, "width": shape.image_size},
        "size": {"shortest_edge": shape.image_size},
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "image_processor_type": "CLIPImageProcessor",
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
    }


@torch.no_grad()
def _tell_inputs_apart(model: CLIPModel) -> None:
    """Give norms and biases values of their own and raise small weights, so that every term shows in a comparison."""
    for name, parameter in model.named_parameters():
        if "norm" in name or "layrnorm" in name or name.endswith("bias"):
            parameter.add_(0.1 * torch.randn_like(parameter))
        if name.endswith(("token_embedding.weight", "patch_embedding.weight", "position_embedding.weight")):
            parameter.mul_(5)

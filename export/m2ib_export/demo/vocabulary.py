"""Learns the demo's tokeniser: CLIP's own byte-level scheme, with merges from the phrases alone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import cast

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
MAX_TOKENS = 32
WORD_PATTERN = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def learn_tokenizer(phrases: Iterable[str], merges: int = 1000) -> CLIPTokenizer:
    """Learn byte-pair merges until every word of the phrases is one token, or `merges` are made.

    The vocabulary is laid out as CLIP's: bytes, bytes that end a word, merges, the two special tokens. Every text
    can be encoded, because every byte is there in both forms.
    """
    learned = learn_merges(phrases, merges)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *(first + second for first, second in learned)]
    pieces = [*dict.fromkeys(pieces), START, END]
    return CLIPTokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)},
        merges=cast("list[str]", learned),  # pairs are what the tokeniser takes, its annotation lags
        bos_token=START,
        eos_token=END,
        pad_token=END,
        unk_token=END,
        model_max_length=MAX_TOKENS,
    )


def learn_merges(phrases: Iterable[str], limit: int) -> list[tuple[str, str]]:
    """The merges in the order in which they were learned."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD_PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=512 + limit,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        min_frequency=1,
        show_progress=False,
    )
    tokenizer.train_from_iterator(phrases, trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(str(first), str(second)) for first, second in merges]

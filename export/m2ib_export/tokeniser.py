"""Owns the package's tokeniser: one file of the tokenizers library, without padding or truncation of its own."""

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import CLIPTokenizer

from m2ib_export.errors import CheckpointInvalid

FILE = "tokenizer.json"
PARTS = ("vocab.json", "merges.txt")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBatch:
    """Texts as token ids and attention mask, int64 [batch, tokens], padded on the right."""

    token_ids: Tensor
    attention_mask: Tensor


class Tokeniser:
    """A tokeniser that frames each text with a start and an end token."""

    def __init__(self, tokeniser: Tokenizer) -> None:
        """Take a tokeniser of the tokenizers library; its padding and truncation are switched off.

        Raises:
            CheckpointInvalid: the tokeniser does not frame an empty text with exactly two tokens.
        """
        tokeniser.no_padding()
        tokeniser.no_truncation()
        frame = tokeniser.encode("").ids
        if len(frame) != 2:
            seen = f"{len(frame)} tokens for an empty text"
            raise CheckpointInvalid("tokeniser", seen=seen, allowed="2, a start and an end token")
        self._tokeniser = tokeniser
        self.start_token_id, self.end_token_id = frame

    @property
    def highest_token_id(self) -> int:
        """The highest id that a text can have."""
        return max(self._tokeniser.get_vocab(with_added_tokens=True).values())

    def encode(self, text: str) -> list[int]:
        """Return the text's token ids, start and end token included."""
        return list(self._tokeniser.encode(text).ids)

    def to_json(self) -> str:
        """Write the tokeniser in the format of tokenizer.json."""
        return str(self._tokeniser.to_str())


def read_tokeniser(directory: Path) -> Tokeniser:
    """Read tokenizer.json, or build it from vocab.json and merges.txt as transformers does.

    Raises:
        CheckpointInvalid: there is neither, or it cannot be read.
    """
    try:
        if (directory / FILE).exists():
            return Tokeniser(Tokenizer.from_file(str(directory / FILE)))
        if all((directory / part).exists() for part in PARTS):
            return Tokeniser(_build(directory))
    except CheckpointInvalid:
        raise
    except Exception as cause:  # the tokenizers library raises bare Exception
        raise CheckpointInvalid("tokeniser", seen=f"{type(cause).__name__}: {cause}", allowed=FILE) from cause
    raise CheckpointInvalid("tokeniser", seen="no file", allowed=f"{FILE}, or {' and '.join(PARTS)}")


def _build(directory: Path) -> Tokenizer:
    tokeniser: Tokenizer = CLIPTokenizer.from_pretrained(directory, local_files_only=True).backend_tokenizer
    return tokeniser


def pad(sequences: list[list[int]], *, padding: int) -> TokenBatch:
    """Pad sequences of token ids on the right to the length of the longest."""
    longest = max(len(sequence) for sequence in sequences)
    token_ids = torch.full((len(sequences), longest), padding, dtype=torch.int64)
    attention_mask = torch.zeros((len(sequences), longest), dtype=torch.int64)
    for row, sequence in enumerate(sequences):
        token_ids[row, : len(sequence)] = torch.tensor(sequence)
        attention_mask[row, : len(sequence)] = 1
    return TokenBatch(token_ids=token_ids, attention_mask=attention_mask)

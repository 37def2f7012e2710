"""Owns the reference texts: the built-in lists, the reading of a list and its embedding by the original model."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import normalize

from m2ib_export.errors import ReferenceTextsInvalid
from m2ib_export.families import OriginalModel
from m2ib_export.tokeniser import Tokeniser, pad

BUILT_IN = {"general": "reference_texts_general.txt", "radiology": "reference_texts_radiology.txt"}
BATCH = 16


def read_reference_texts(source: str) -> tuple[str, ...]:
    """Read a built-in list by its name, or a UTF-8 file with one text a line; empty lines are skipped.

    Raises:
        ReferenceTextsInvalid: the file cannot be read, has no text or has a text twice.
    """
    try:
        if source in BUILT_IN:
            content = files("m2ib_export").joinpath(BUILT_IN[source]).read_text(encoding="utf-8")
        else:
            content = Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        allowed = f"{', '.join(BUILT_IN)}, or a UTF-8 file with one text a line"
        raise ReferenceTextsInvalid(source, seen=type(cause).__name__, allowed=allowed) from cause
    texts = tuple(line.strip() for line in content.splitlines() if line.strip())
    if not texts:
        raise ReferenceTextsInvalid(source, seen="no text", allowed="at least one")
    if len(set(texts)) != len(texts):
        repeats = len(texts) - len(set(texts))
        raise ReferenceTextsInvalid(source, seen=f"{repeats} lines that repeat another", allowed="each text once")
    return texts


def embed_reference_texts(
    texts: tuple[str, ...], *, source: str, tokeniser: Tokeniser, original: OriginalModel
) -> npt.NDArray[np.float32]:
    """Embed texts with the original model -> normalised embeddings [count, embedding width].

    Raises:
        ReferenceTextsInvalid: a text is longer than the model's context.
    """
    sequences = [tokeniser.encode(text) for text in texts]
    limit = original.geometry.text.context_length
    for line, sequence in enumerate(sequences, start=1):
        if len(sequence) > limit:
            seen = f"{len(sequence)} tokens in text {line}"
            raise ReferenceTextsInvalid(source, seen=seen, allowed=f"at most {limit}")
    embeddings = []
    for first in range(0, len(sequences), BATCH):
        batch = pad(sequences[first : first + BATCH], padding=tokeniser.end_token_id)
        embeddings.append(original.embed_texts(batch.token_ids, batch.attention_mask))
    return normalize(torch.cat(embeddings), dim=-1).numpy()

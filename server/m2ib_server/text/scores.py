"""Lays information per token out over the caller's text, per token and per word."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from .tokeniser import EncodedText, Span
from .words import Word, group_words


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenScore:
    """The information one token lets through.

    text: as the caller wrote it, empty for a special token.
    span: None for a special token.
    bits: >= 0.
    normalised: in [0, 1] over the tokens that are not special, 0 for a special one.
    """

    text: str = field(repr=False)
    token_id: int = field(repr=False)
    span: Span | None
    bits: float
    normalised: float
    special: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WordScore:
    """The information one word lets through.

    text: as the caller wrote it.
    bits: summed over the word's tokens, >= 0.
    normalised: in [0, 1] over the words.
    """

    text: str = field(repr=False)
    span: Span
    bits: float
    normalised: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TextScores:
    """One entry per token in the model's order, one per word in the order of the text."""

    tokens: tuple[TokenScore, ...]
    words: tuple[WordScore, ...]


def score_text(encoded: EncodedText, bits: Sequence[float]) -> TextScores:
    """Score tokens and words; `bits` has one value per token, special tokens included.

    Normalisation is min-max, tokens among tokens and words among words; all 0 where all are equal.

    Raises:
        ValueError: another number of values, or one that is negative or not finite.
    """
    if len(bits) != encoded.tokens_kept:
        raise ValueError(f"{len(bits)} values for {encoded.tokens_kept} tokens")
    if not all(math.isfinite(value) and value >= 0 for value in bits):
        raise ValueError("information is finite and not negative")
    return TextScores(tokens=_score_tokens(encoded, bits), words=_score_words(group_words(encoded), bits))


def _score_tokens(encoded: EncodedText, bits: Sequence[float]) -> tuple[TokenScore, ...]:
    own = [position for position, span in enumerate(encoded.spans) if span is not None]
    normalised = dict(zip(own, _min_max([bits[position] for position in own]), strict=True))
    return tuple(
        TokenScore(
            text=encoded.text[span.start : span.end] if span else "",
            token_id=encoded.token_ids[position],
            span=span,
            bits=float(bits[position]),
            normalised=normalised.get(position, 0.0),
            special=span is None,
        )
        for position, span in enumerate(encoded.spans)
    )


def _score_words(words: Sequence[Word], bits: Sequence[float]) -> tuple[WordScore, ...]:
    sums = [math.fsum(bits[position] for position in word.positions) for word in words]
    return tuple(
        WordScore(text=word.text, span=word.span, bits=total, normalised=normalised)
        for word, total, normalised in zip(words, sums, _min_max(sums), strict=True)
    )


def _min_max(values: Sequence[float]) -> list[float]:
    low, high = min(values), max(values)
    return [(value - low) / (high - low) if high > low else 0.0 for value in values]

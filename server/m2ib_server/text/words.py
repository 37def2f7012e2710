"""Groups tokens into the words that a reader sees. Knows no scores.

A word is a run of tokens without white space between them. Punctuation and symbols at either end of such a run are
entries of their own, so that `opacity,` scores `opacity` apart from the comma; within a run they belong to the word,
as in `x-ray`, `3.5` and `don't`.
"""

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from .tokeniser import EncodedText, Span

_WORD_CATEGORIES = {"L", "N", "M"}  # letters, numbers, marks


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """One entry: where it stands, and the positions of its tokens in the model's order.

    text: as the caller wrote it.
    """

    text: str = field(repr=False)
    span: Span
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Placed:
    """A token that is not special: its position among all tokens, and its span."""

    position: int
    span: Span
    is_wordlike: bool


def group_words(encoded: EncodedText) -> tuple[Word, ...]:
    """Group the tokens that are not special into words; each belongs to exactly one, in the order of the text."""
    placed = [
        _Placed(position, span, _is_wordlike(encoded.text[span.start : span.end]))
        for position, span in enumerate(encoded.spans)
        if span is not None
    ]
    return tuple(_word(encoded.text, group) for run in _runs(placed) for group in _split_ends(run))


def _is_wordlike(text: str) -> bool:
    return any(unicodedata.category(character)[0] in _WORD_CATEGORIES for character in text)


def _runs(placed: Iterable[_Placed]) -> Iterator[list[_Placed]]:
    """Split where something lies between two tokens."""
    run: list[_Placed] = []
    for token in placed:
        if run and token.span.start > max(before.span.end for before in run):
            yield run
            run = []
        run.append(token)
    if run:
        yield run


def _split_ends(run: list[_Placed]) -> Iterator[list[_Placed]]:
    """Split a run into leading punctuation, the word and trailing punctuation, leaving out what is empty."""
    wordlike = [index for index, token in enumerate(run) if token.is_wordlike]
    first, last = (wordlike[0], wordlike[-1]) if wordlike else (len(run), len(run))

    def part(numbered: tuple[int, _Placed]) -> int:
        return 0 if numbered[0] < first else 1 if numbered[0] <= last else 2

    for _, group in groupby(enumerate(run), key=part):
        yield [token for _, token in group]


def _word(text: str, group: list[_Placed]) -> Word:
    span = Span(start=min(token.span.start for token in group), end=max(token.span.end for token in group))
    positions = tuple(token.position for token in group)
    return Word(text=text[span.start : span.end], span=span, positions=positions)

"""Expands segmented palette lookup tables, PS3.3 C.7.9.2. Bounded: no table grows beyond what its descriptor says."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from .refusal import undecodable

_DISCRETE, _LINEAR, _INDIRECT = 0, 1, 2


def expand_segments(words: Sequence[int], count: int, *, word_bytes: int) -> NDArray[np.uint16]:
    """Expand to `count` entries: uint16 [count].

    words: opcodes, lengths and entries as stored, each `word_bytes` long.

    Raises:
        ImageUndecodable: a segment is unknown or reaches beyond the words, or the table has another length.
    """
    entries: list[int] = []
    for opcode, operand in _segments(words, 0, len(words), word_bytes):
        entries.extend(_steps(entries, operand) if opcode == _LINEAR else operand)
        if len(entries) > count:
            break
    if len(entries) != count:
        raise undecodable("a segmented palette of another length than its descriptor's")
    return np.array(entries, dtype=np.uint16)


def _segments(
    words: Sequence[int], start: int, most: int, word_bytes: int, *, is_copy: bool = False
) -> Iterator[tuple[int, Sequence[int]]]:
    """Yield up to `most` segments from word `start`: entries of a discrete one, (length, end) of a linear one."""
    at = start
    for _ in range(most):
        if at + 2 >= len(words):  # nothing, or the padding of an odd number of bytes
            return
        opcode, length = words[at], words[at + 1]
        if opcode == _DISCRETE:
            yield opcode, words[at + 2 : at + 2 + length]
            at += 2 + length
        elif opcode == _LINEAR and length > 0:
            yield opcode, (length, words[at + 2])
            at += 3
        elif opcode == _INDIRECT and not is_copy and at + 3 < len(words):
            yield from _segments(words, _target(words, at, word_bytes), length, word_bytes, is_copy=True)
            at += 4
        else:
            raise undecodable("a segmented palette with an unknown segment")


def _target(words: Sequence[int], at: int, word_bytes: int) -> int:
    """Where an indirect segment points: its last two words are a byte offset, the less significant one first."""
    return (words[at + 2] | words[at + 3] << (8 * word_bytes)) // word_bytes


def _steps(entries: list[int], operand: Sequence[int]) -> list[int]:
    """A straight line from the entry before to the end, which is its last entry."""
    if not entries:
        raise undecodable("a segmented palette that starts with a line")
    length, end = operand
    line = np.linspace(entries[-1], end, length + 1)[1:]
    return [int(entry) for entry in np.rint(line)]

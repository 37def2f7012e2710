"""Remembers how long answers take to write, so that a partial answer can be ready before its deadline."""

from collections import deque

_REMEMBERED = 8
_LEAST_SECONDS = 0.05  # to pack and send even the smallest answer


class AnswerPace:
    """Seconds per pixel of the original, by what an answer carries."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._observed: dict[frozenset[int], deque[float]] = {}

    def observe(self, outputs: frozenset[int], pixels: int, seconds: float) -> None:
        """Learn from an answer with these outputs for an image of so many pixels."""
        self._observed.setdefault(outputs, deque(maxlen=_REMEMBERED)).append(seconds / pixels)

    def seconds(self, outputs: frozenset[int], pixels: int) -> float:
        """Estimate, from the slowest seen lately."""
        return _LEAST_SECONDS + pixels * max(self._observed.get(outputs, ()), default=0.0)

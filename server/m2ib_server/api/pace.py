"""Remembers how long answers take to write, so that a partial answer can be ready before its deadline."""

from collections import deque

_REMEMBERED = 8
_LEAST_SECONDS = 0.05  # to pack and send even the smallest answer
_MOST_SHARE = 0.25  # of the time that is left: what is guessed must not eat what it is for


class AnswerPace:
    """Seconds that writing takes, by what an answer carries; pictures and maps by the original's size as well."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self._observed: dict[frozenset[int], deque[tuple[int, float]]] = {}

    def observe(self, outputs: frozenset[int], pixels: int, seconds: float) -> None:
        """Learn from an answer with these outputs for an image of so many pixels."""
        self._observed.setdefault(outputs, deque(maxlen=_REMEMBERED)).append((pixels, seconds))

    def seconds(self, outputs: frozenset[int], pixels: int, *, left: float) -> float:
        """Estimate, from the slowest seen lately, at most a quarter of the seconds that are left."""
        grows = bool(outputs)
        seen = [
            seconds * max(1.0, pixels / observed if grows else 1.0)
            for observed, seconds in self._observed.get(outputs, ())
        ]
        return min(_LEAST_SECONDS + max(seen, default=0.0), _MOST_SHARE * max(0.0, left))

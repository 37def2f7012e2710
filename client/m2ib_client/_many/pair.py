"""Owns what goes into `explain_many` and what comes out of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from m2ib_client._errors import InvalidRequestError
from m2ib_client._options import ExplainOptions, ImageSource
from m2ib_client._results import Explanation

ALLOWED_PAIRS = "(image, text), (id, image, text) or a Pair"


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """An image and a text to explain.

    `id` is the caller's own name for the pair and never leaves this machine; `options` are this pair's own and go
    before those of the call.
    """

    image: ImageSource
    text: str
    id: str = ""
    options: ExplainOptions = field(default_factory=ExplainOptions)


PairSource: TypeAlias = Pair | tuple[ImageSource, str] | tuple[str, ImageSource, str]
"""What `explain_many` takes for a pair: an image and a text, the same after an id of the caller's own, or a `Pair`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ManyResult:
    """What came of one pair: an explanation or an error, the other one is None.

    `index` is the pair's place in what was given, from 0. Of what was no pair at all, `pair.image` is the thing
    itself. `error` is what `explain` would have raised.
    """

    index: int
    pair: Pair
    explanation: Explanation | None
    error: Exception | None

    @property
    def id(self) -> str:
        """The caller's own name for the pair."""
        return self.pair.id

    def explained(self) -> Explanation:
        """Return the explanation; raise the error where there is none."""
        if self.explanation is None:
            raise self.error or AssertionError("a result is an explanation or an error")
        return self.explanation


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyProgress:
    """How far `explain_many` is: pairs that are done, those of them that failed, and all if that is known."""

    done: int
    failed: int
    total: int | None


ProgressOption: TypeAlias = bool | Callable[[ManyProgress], None] | None
"""How to tell of progress: a function to call after every pair, True for a bar at a terminal."""


def read_pair(given: object) -> Pair:
    """Return the pair that the caller gave.

    Raises:
        InvalidRequestError: it is none.
    """
    if isinstance(given, Pair):
        return given
    if not isinstance(given, tuple):
        raise InvalidRequestError.of("pairs", seen=f"a {type(given).__name__}", allowed=ALLOWED_PAIRS)
    match given:
        case (image, text):
            return Pair(image, text)
        case (str(name), image, text):
            return Pair(image, text, name)
    raise InvalidRequestError.of(
        "pairs", seen=f"a tuple of {', '.join(type(part).__name__ for part in given)}", allowed=ALLOWED_PAIRS
    )

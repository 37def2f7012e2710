"""What a row of the hostile corpus says: a file, and what must come of it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The file is rendered and explained.

    Attributes:
        source: where the grey scale came from, as Rendering.window_source.
        inverted: whether the grey scale was inverted.
    """

    source: str
    inverted: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """The file is refused.

    Attributes:
        reason: ErrorInfo's.
        said: what the refusal says beside the field's name.
    """

    reason: str
    said: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A file that servers of this kind are known to fall over.

    Attributes:
        make: makes the file.
        then: what must come of it.
        frame: the frame to ask for; None for none.
    """

    make: Callable[[], bytes]
    then: Shown | Refused
    frame: int | None = None

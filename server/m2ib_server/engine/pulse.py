"""Owns what a compute thread tells of itself while it works, for whoever watches over it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulse:
    """A compute thread at one moment. Times are in nanoseconds on the monotonic clock.

    Attributes:
        is_alive: whether the thread runs.
        beat_ns: when it last looked for work: between rounds, and every few seconds without work.
        busy_since_ns: when the round or the tidying up that it is in began; None between them.
        step_ns: when a round last advanced a job, or there was none to advance.
        has_work: whether there are jobs.
    """

    is_alive: bool
    beat_ns: int
    busy_since_ns: int | None
    step_ns: int
    has_work: bool

"""Learns what a row costs in each graph, so that a job's time can be estimated before it is admitted."""

import statistics
from collections import deque
from collections.abc import Mapping

from m2ib_server.package import Role

_REMEMBERED = 15  # enough for a median that a busy moment does not move


class CostModel:
    """Seconds per row by model and graph. Written by the compute thread, read by any."""

    def __init__(self) -> None:
        """Know nothing yet: what was never seen costs nothing, so that it is never refused."""
        self._observed: dict[tuple[str, Role], deque[float]] = {}
        self._row_seconds: dict[tuple[str, Role], float] = {}

    def observe(self, model: str, role: Role, *, rows: int, seconds: float) -> None:
        """Learn from one call of a graph of the model with that digest."""
        observed = self._observed.setdefault((model, role), deque(maxlen=_REMEMBERED))
        observed.append(seconds / rows)
        self._row_seconds[model, role] = statistics.median(observed)

    def seconds(self, model: str, rows: Mapping[Role, int]) -> float:
        """Estimate the time that rows of several graphs take, from the median of what was seen lately."""
        return sum(count * self._row_seconds.get((model, role), 0.0) for role, count in rows.items() if count > 0)

    def forget(self, model: str) -> None:
        """Forget a model that has gone; the compute thread's alone, as `observe` is."""
        for known in [known for known in self._observed if known[0] == model]:
            del self._observed[known]
            del self._row_seconds[known]

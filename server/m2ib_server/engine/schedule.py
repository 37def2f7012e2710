"""Decides which jobs run and which evaluations share one call. Pure: knows nothing of threads, clocks or devices."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from m2ib_server.methods import Evaluation
from m2ib_server.settings import EngineLimits

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """An evaluation that a running job waits for.

    Attributes:
        model: the digest of the job's model.
        evaluation: what to evaluate.
    """

    model: str
    evaluation: Evaluation


def admit(waiting: Sequence[Item], running: int, limits: EngineLimits) -> Sequence[Item]:
    """Return the waiting jobs that may start now, oldest first."""
    return waiting[: max(0, limits.max_running - running)]


def batches(pending: Sequence[Pending], max_rows: int) -> list[list[int]]:
    """Group pending evaluations, by index, into calls: one graph, one shape, at most `max_rows` rows, order kept.

    An evaluation with more rows than that is a call of its own.
    """
    groups: dict[Hashable, list[list[int]]] = {}
    rows: dict[Hashable, int] = {}
    for index, item in enumerate(pending):
        key = _call(item)
        if key not in groups or rows[key] + item.evaluation.rows > max_rows:
            groups.setdefault(key, []).append([])
            rows[key] = 0
        groups[key][-1].append(index)
        rows[key] += item.evaluation.rows
    return sorted((group for calls in groups.values() for group in calls), key=lambda group: group[0])


def _call(item: Pending) -> Hashable:
    shapes = tuple((name, tuple(tensor.shape[1:])) for name, tensor in sorted(item.evaluation.inputs.items()))
    return item.model, item.evaluation.role, shapes

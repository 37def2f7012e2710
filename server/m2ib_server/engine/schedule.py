"""Decides which jobs run next and which evaluations share one call. Pure: knows nothing of threads, clocks or devices.

The policy: the jobs of a class share the device evenly, counted in rows; a round is at most `max_rows` rows long, so
that a larger step takes several. Interactive jobs come before bulk jobs, of which the longest neglected one has a turn
in any case once none of them has had one for `bulk_patience_ms`.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from m2ib_server.methods import Evaluation
from m2ib_server.settings import EngineLimits


class Priority(StrEnum):
    """The classes of jobs, the first one first."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A job as the policy sees it.

    Attributes:
        priority: its class.
        rows: the rows that are left of its step.
        step_rows: the rows of its whole step, which it holds in memory once it runs.
        share: the rows that it has had, on the scale of `entry_share`.
        idle_since_ns: when it arrived or last advanced.
    """

    priority: Priority
    rows: int
    step_rows: int
    share: int = 0
    idle_since_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What happens next.

    Attributes:
        starting: indices of the waiting jobs that now run.
        advancing: indices, into the running jobs followed by the starting ones, of the jobs that have a turn: at most
            `max_rows` rows of their step.
    """

    starting: tuple[int, ...]
    advancing: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """An evaluation that a running job waits for.

    Attributes:
        model: the digest of the job's model.
        evaluation: what to evaluate.
    """

    model: str
    evaluation: Evaluation


def next_round(
    waiting: Sequence[Contender],
    running: Sequence[Contender],
    now_ns: int,
    limits: EngineLimits,
    *,
    bulk_served_ns: int = 0,
) -> Round:
    """Choose the jobs that start, oldest first, and those that have a turn, at most `limits.max_rows` rows in all.

    `bulk_served_ns`: when any bulk job last had a turn; 0 for never.
    """
    starting = _starting(waiting, running, limits)
    entering = [_entered(waiting[index], running) for index in starting]
    contenders = [*running, *entering]
    order = _order(contenders, _neglected_bulk(contenders, now_ns, bulk_served_ns, limits))
    advancing: list[int] = []
    left = limits.max_rows
    for index in order:
        rows = min(contenders[index].rows, limits.max_rows)
        if rows <= left:
            advancing.append(index)
            left -= rows
    return Round(starting=tuple(starting), advancing=tuple(advancing))


def entry_share(priority: Priority, running: Sequence[Contender]) -> int:
    """Return the share with which a job enters its class: the least of those there, so that it has no head start."""
    return min((one.share for one in running if one.priority is priority), default=0)


def finish_seconds(
    own: float,
    priority: Priority,
    others: Sequence[tuple[Priority, float]],
    *,
    bulk_turn: float = 0.0,
    bulk_patience: float = 1.0,
) -> float:
    """Estimate how long a new job takes under the policy.

    Args:
        own: the seconds it would take alone.
        priority: its class.
        others: the class of each admitted job and the seconds that it would still take alone.
        bulk_turn: the seconds that a turn of a bulk job takes; 0 where there is none.
        bulk_patience: the seconds after which bulk has a turn in any case.
    """
    ahead = sum(left for other, left in others if priority is Priority.BULK and other is Priority.INTERACTIVE)
    beside = sum(min(left, own) for other, left in others if other is priority)
    if priority is Priority.BULK:
        return ahead + beside + own
    turns_between = 1 + math.floor((beside + own) / bulk_patience)  # the first may be due when the job arrives
    bulk_left = sum(left for other, left in others if other is Priority.BULK)
    return beside + own + min(bulk_left, turns_between * bulk_turn)


def batches(pending: Sequence[Pending], max_rows: int) -> list[list[int]]:
    """Group indices of pending evaluations into calls: one graph, one shape, at most `max_rows` rows, order kept."""
    calls: list[list[int]] = []
    open_calls: dict[Hashable, tuple[list[int], int]] = {}
    for index, item in enumerate(pending):
        key, rows = _call(item), item.evaluation.rows
        call, used = open_calls.get(key, ([], max_rows))
        if used + rows > max_rows:
            call, used = [], 0
            calls.append(call)
        call.append(index)
        open_calls[key] = call, used + rows
    return calls


def _starting(waiting: Sequence[Contender], running: Sequence[Contender], limits: EngineLimits) -> list[int]:
    """Return who starts: the oldest of each class, as long as there are not too many.

    Jobs whose step is larger than a round wait for one another as well, so that their memory is bounded; no other job
    waits for them.
    """
    starting: list[int] = []
    for priority in Priority:
        sizes = [one.step_rows for one in running if one.priority is priority]
        free, large_rows = limits.max_running - len(sizes), sum(size for size in sizes if size > limits.max_rows)
        is_held_up = False
        for index, one in enumerate(waiting):
            if one.priority is not priority or free <= 0:
                continue
            if one.step_rows > limits.max_rows:
                is_held_up |= large_rows > 0 and large_rows + one.step_rows > limits.max_large_rows
                if is_held_up:
                    continue
                large_rows += one.step_rows
            free -= 1
            starting.append(index)
    return sorted(starting)


def _entered(one: Contender, running: Sequence[Contender]) -> Contender:
    return replace(one, share=entry_share(one.priority, running))


def _order(contenders: Sequence[Contender], neglected: int | None) -> list[int]:
    """Return who may have a turn, first come first: one class, the better one, and a neglected bulk job before it.

    Bulk does not fill up the rounds of interactive jobs: on a device where rows cost time, they would pay for it.
    """
    best = min((one.priority for one in contenders), key=list(Priority).index, default=None)
    order = [index for index, one in enumerate(contenders) if one.priority is best and index != neglected]
    order.sort(key=lambda index: (contenders[index].share, index))
    return order if neglected is None else [neglected, *order]


def _neglected_bulk(
    contenders: Sequence[Contender], now_ns: int, bulk_served_ns: int, limits: EngineLimits
) -> int | None:
    """Return the bulk job that has waited longest for a turn, if it and its whole class have waited too long.

    The class, or else many bulk jobs would each be too long without a turn, and leave no round to the others.
    """
    bulk = [index for index, one in enumerate(contenders) if one.priority is Priority.BULK]
    oldest = min(bulk, key=lambda index: contenders[index].idle_since_ns, default=None)
    patience_ns = limits.bulk_patience_ms * 1_000_000
    if oldest is None or now_ns - max(contenders[oldest].idle_since_ns, bulk_served_ns) < patience_ns:
        return None
    return oldest


def _call(item: Pending) -> Hashable:
    shapes = tuple((name, tuple(tensor.shape[1:])) for name, tensor in sorted(item.evaluation.inputs.items()))
    return item.model, item.evaluation.role, shapes

"""Decides whether a newcomer is admitted beside the jobs there are. Pure: knows nothing of locks or clocks."""

from collections.abc import Callable

from m2ib_server.engine.schedule import Priority
from m2ib_server.errors import QueueFull, WaitTooLong
from m2ib_server.settings import EngineLimits


def check_admission(
    priority: Priority,
    limits: EngineLimits,
    *,
    depth: int,
    wait_seconds: float,
    until_room: Callable[[], float],
) -> None:
    """Refuse a job for which there is no room, or which would wait for too long.

    Args:
        priority: its class.
        limits: the bounds.
        depth: jobs of its class that wait.
        wait_seconds: how long it is estimated to wait for the others.
        until_room: estimates when one more may wait, in seconds; asked only where there is no room now.

    Raises:
        QueueFull: as many jobs of its class wait as may.
        WaitTooLong: it would wait for longer than its class may.
    """
    if depth >= limits.max_waiting:
        raise QueueFull(depth=depth, limit=limits.max_waiting, retry_seconds=until_room())
    if wait_seconds > (limit := longest_wait(priority, limits)):
        raise WaitTooLong(wait=wait_seconds, limit=limit)


def longest_wait(priority: Priority, limits: EngineLimits) -> float:
    """Return how long a job of a class may be estimated to wait, in seconds."""
    return limits.max_bulk_wait_seconds if priority is Priority.BULK else limits.max_wait_seconds

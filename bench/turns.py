"""Lets contenders take turns, so that a busy machine slows all of them alike."""

import time
from collections.abc import Callable, Mapping

Contender = Callable[[], object]


def take_turns(contenders: Mapping[str, Contender], *, rounds: int, warm_up: int = 1) -> dict[str, list[float]]:
    """Run every contender once a round and return the seconds of each round.

    warm_up: rounds before those, which fill caches and are not counted. Every second round runs in reverse
    order, so that nobody always follows the same neighbour.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(-warm_up, rounds):
        order = list(contenders) if turn % 2 == 0 else list(contenders)[::-1]
        for name in order:
            started = time.perf_counter()
            contenders[name]()
            taken = time.perf_counter() - started
            if turn >= 0:
                seconds[name].append(taken)
    return seconds

"""Owns the faults that the fake was told to play, and whose turn it is."""

import threading
from collections import deque

from m2ib_client._errors import M2IBError
from m2ib_client.testing._failure import STATUS_BY_ERROR

NO_BREAK = (-1, M2IBError("never raised"))


class Faults:
    """The faults to come: of calls, uploads, single pairs and batches under way; safe to share between threads."""

    def __init__(self) -> None:
        """Plan none."""
        self._calls: deque[M2IBError] = deque()
        self._uploads: deque[M2IBError] = deque()
        self._pairs: deque[M2IBError] = deque()
        self._breaks: deque[tuple[int, M2IBError]] = deque()
        self._lock = threading.Lock()

    def plan_calls(self, error: M2IBError, times: int) -> None:
        """Let so many of the next calls fail."""
        with self._lock:
            self._calls.extend([_checked(error)] * times)

    def plan_uploads(self, error: M2IBError, times: int) -> None:
        """Let so many of the next uploads fail."""
        with self._lock:
            self._uploads.extend([_checked(error)] * times)

    def plan_pairs(self, error: M2IBError, times: int) -> None:
        """Let so many of the next pairs fail."""
        with self._lock:
            self._pairs.extend([_checked(error)] * times)

    def plan_break(self, error: M2IBError, after: int) -> None:
        """Let a batch end after so many answers, once those planned before have had their turn."""
        with self._lock:
            self._breaks.append((after, _checked(error)))

    def play_call(self) -> None:
        """Raise the fault of the call that begins, if it has one."""
        self._play(self._calls)

    def play_upload(self) -> None:
        """Raise the fault of the upload that begins, if it has one."""
        self._play(self._uploads)

    def play_pair(self) -> None:
        """Raise the fault of the pair that begins, if it has one."""
        self._play(self._pairs)

    def next_break(self) -> tuple[int, M2IBError]:
        """Return after how many answers the batch that begins ends, and with what; -1 for never."""
        with self._lock:
            return self._breaks.popleft() if self._breaks else NO_BREAK

    def _play(self, planned: deque[M2IBError]) -> None:
        with self._lock:
            error = planned.popleft() if planned else None
        if error is not None:
            raise error


def _checked(error: M2IBError) -> M2IBError:
    if type(error) not in STATUS_BY_ERROR:
        raise ValueError(f"a server cannot cause {type(error).__name__}")
    return error

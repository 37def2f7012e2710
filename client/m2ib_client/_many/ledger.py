"""Decides what of many pairs is read, sent, sent again and given out. Knows nothing of threads, tasks or channels.

Every pair is in one place at a time: waiting, under way or finished; it is finished once. Times are seconds on
any clock that never goes back.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from m2ib.v1 import attribution_pb2
from m2ib_client._errors import DeadlineError, IncompatibleServerError, M2IBError, TransientError
from m2ib_client._handle import ImageHandle
from m2ib_client._many.pair import ManyProgress, ManyResult, Pair
from m2ib_client._results import Explanation
from m2ib_client._uploads import is_forgotten

MAX_ATTEMPTS = 10
MAX_RENEWALS = 2
# Breaks in a row: a server that has answered may be starting again, one that never has is hardly there.
MAX_BREAKS = 7
MAX_FIRST_BREAKS = 2
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0
MAX_HELD_BYTES = 256 * 1024 * 1024


@dataclass(slots=True, eq=False)
class Entry:
    """A pair on its way. `image` is sent by name if there is one; `request` then has the place for the name."""

    index: int
    pair: Pair
    request: attribution_pb2.ExplainRequest
    image: ImageHandle | None
    size_bytes: int
    attempts: int = 1
    renewals: int = 0


def pause_seconds(error: M2IBError, attempts: int) -> float:
    """Return how long to wait before the next attempt: what the server asks for, else twice as long each time."""
    asked = error.retry_after_seconds if isinstance(error, TransientError) else None
    return min(FIRST_PAUSE_SECONDS * 2 ** (attempts - 1), LONGEST_PAUSE_SECONDS) if asked is None else asked


class Ledger:
    """The state of one `explain_many`."""

    def __init__(self, *, ordered: bool, ahead: int, timeout: float | None) -> None:
        """Begin with nothing.

        `ahead` is how many pairs may be read beyond the last one that was given out; `timeout` how long the server
        may answer none of those under way, in seconds.
        """
        self.fault: Exception | None = None
        self._ordered = ordered
        self._ahead = ahead
        self._timeout = timeout
        self._waiting: list[tuple[float, int, Entry]] = []
        self._under_way: dict[int, Entry] = {}
        self._finished: dict[int, ManyResult] = {}
        self._read = self._given = self._done = self._failed = 0
        self._held_bytes = 0
        self._breaks = 0
        self._resume_at = self._heard_at = float("-inf")
        self._is_read_out = self._is_alive = False

    @property
    def next_index(self) -> int:
        """The place of the next pair to read."""
        return self._read

    @property
    def may_read(self) -> bool:
        """True while there is room for another pair."""
        has_room = self._read - self._given < self._ahead and self._held_bytes < MAX_HELD_BYTES
        return has_room and not self._is_read_out

    @property
    def is_over(self) -> bool:
        """True when every pair was given out, or nothing more can come."""
        is_empty = not (self._waiting or self._under_way or self._finished)
        return self.fault is not None or (self._is_read_out and is_empty)

    def progress(self, total: int | None) -> ManyProgress:
        """Return how far it is."""
        return ManyProgress(done=self._done, failed=self._failed, total=total)

    def enter(self, entry: Entry, now: float) -> None:
        """Take a pair that was read."""
        self._read += 1
        self._held_bytes += entry.size_bytes
        heapq.heappush(self._waiting, (now, entry.index, entry))

    def weigh(self, entry: Entry, size_bytes: int) -> None:
        """Note how large a pair has become since it was read."""
        self._held_bytes += size_bytes - entry.size_bytes
        entry.size_bytes = size_bytes

    def refuse(self, result: ManyResult) -> None:
        """Take a pair that was read and cannot be sent."""
        self._read += 1
        self._finish(result)

    def end_reading(self) -> None:
        """Note that there are no more pairs."""
        self._is_read_out = True

    def next_due(self, now: float) -> Entry | None:
        """Return the next pair to send now, if there is one; it is then under way."""
        if not self._waiting or now < max(self._resume_at, self._waiting[0][0]):
            return None
        _, _, entry = heapq.heappop(self._waiting)
        if not self._under_way:
            self._heard_at = now
        self._under_way[entry.index] = entry
        return entry

    def answer(self, index: int, outcome: Explanation | M2IBError, now: float) -> Entry | None:
        """Take the server's answer to a pair; return the pair if its image has to be sent again.

        Raises:
            IncompatibleServerError: no such pair is under way.
        """
        self._heard_at, self._breaks, self._is_alive = now, 0, True
        if index not in self._under_way:
            raise IncompatibleServerError("the server answers a pair that is not under way")
        entry = self._under_way[index]
        if isinstance(outcome, M2IBError):
            self.fail(entry, outcome, now)
            return entry if entry.image is not None and is_forgotten(outcome) else None
        self._close(entry, outcome, None)
        return None

    def fail(self, entry: Entry, error: M2IBError, now: float) -> None:
        """Take a pair's failure: it waits for another attempt if one may help, else it is finished."""
        if isinstance(error, TransientError) and entry.attempts < MAX_ATTEMPTS:
            self._put_back(entry, now + pause_seconds(error, entry.attempts))
            entry.attempts += 1
        elif is_forgotten(error) and entry.image is not None and entry.renewals < MAX_RENEWALS:
            self._put_back(entry, now)
            entry.renewals += 1
        else:
            self._close(entry, None, error)

    def break_off(self, error: Exception, now: float) -> None:
        """Note that the stream ended: what has no answer waits for the next one, a bounded number of times."""
        most = MAX_BREAKS if self._is_alive else MAX_FIRST_BREAKS
        if not isinstance(error, TransientError) or self._breaks == most:
            self.fault = error
            return
        self._breaks += 1
        self._resume_at = now + pause_seconds(error, self._breaks)
        for entry in list(self._under_way.values()):
            self.fail(entry, error, now)

    def note_time(self, now: float) -> None:
        """Note the time: a server that has been silent for too long is at fault."""
        if self._timeout is not None and self._under_way and now - self._heard_at >= self._timeout:
            self.fault = DeadlineError(f"the server answered none of the pairs under way for {self._timeout:g} s")

    def wait_seconds(self, now: float) -> float | None:
        """Return until when there is nothing to do but wait for answers; None for without end."""
        ends = [max(self._resume_at, self._waiting[0][0])] if self._waiting else []
        if self._timeout is not None and self._under_way:
            ends.append(self._heard_at + self._timeout)
        return max(0.0, min(ends) - now) if ends else None

    def take(self) -> ManyResult | None:
        """Return the next result to give out: the next pair's if in order, else the first that came."""
        index = self._given if self._ordered else next(iter(self._finished), -1)
        if index not in self._finished:
            return None
        self._given += 1
        return self._finished.pop(index)

    def take_rest(self) -> Iterator[ManyResult]:
        """Yield what is finished but has not had its turn; for the end after a fault."""
        for index in sorted(self._finished) if self._ordered else list(self._finished):
            self._given += 1
            yield self._finished.pop(index)

    def _put_back(self, entry: Entry, due: float) -> None:
        del self._under_way[entry.index]
        heapq.heappush(self._waiting, (due, entry.index, entry))

    def _close(self, entry: Entry, explanation: Explanation | None, error: Exception | None) -> None:
        del self._under_way[entry.index]
        self._held_bytes -= entry.size_bytes
        self._finish(ManyResult(index=entry.index, pair=entry.pair, explanation=explanation, error=error))

    def _finish(self, result: ManyResult) -> None:
        self._done += 1
        self._failed += result.error is not None
        self._finished[result.index] = result

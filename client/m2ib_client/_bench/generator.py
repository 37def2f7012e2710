"""Makes the calls of a plan when they are due, however slow the answers are, and notes what came of each."""

import asyncio
import statistics
import time
from collections.abc import Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeAlias

from m2ib_client._async_client import AsyncClient
from m2ib_client._bench.material import Material
from m2ib_client._bench.outcome import CANCELLED_HERE, NOT_SENT, OK, Outcome, status_of
from m2ib_client._bench.schedule import Arrival
from m2ib_client._errors import IncompatibleServerError, M2IBError
from m2ib_client._options import ExplainOptions
from m2ib_client._results import Explanation

USUAL_SECONDS = 1.0
RECENT = 50

Noted: TypeAlias = Callable[[Outcome], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How the calls are made: with which options, until when, and how many of them at once at most.

    `deadline` is each call's, in seconds. A call that is due while `cap` of them are open is not made: it protects this
    machine and the server, and the report says how often.
    """

    options: ExplainOptions
    deadline: float
    cap: int


class Generator:
    """One load test; `outcomes` grows while it runs, so one that is broken off can be reported too.

    `peak_open` is how many calls were open at once at most, `seconds` how long the test took.
    """

    def __init__(self, client: AsyncClient, material: Material, terms: Terms, noted: Noted = lambda _: None) -> None:
        """Prepare; nothing is called before `run`. `noted` is told of every outcome."""
        self.outcomes: list[Outcome] = []
        self.peak_open = 0
        self.seconds = 0.0
        self._client = client
        self._material = material
        self._terms = terms
        self._noted = noted
        self._began = 0.0
        self._open = 0
        self._recent: list[float] = []

    async def run(self, arrivals: Iterable[Arrival]) -> None:
        """Make the calls and wait for the last answer; cancelling this cancels what is under way."""
        self._began = time.monotonic()
        try:
            async with asyncio.TaskGroup() as calls:
                for arrival in arrivals:
                    await asyncio.sleep(arrival.at - self._now())
                    self._start(arrival, calls)
        finally:
            self.seconds = self._now()

    def _start(self, arrival: Arrival, calls: asyncio.TaskGroup) -> None:
        if self._open >= self._terms.cap:
            now = self._now()
            self._note(Outcome(arrival=arrival, began_at=now, ended_at=now, status=NOT_SENT))
            return
        self._open += 1
        self.peak_open = max(self.peak_open, self._open)
        calls.create_task(self._call(arrival)).add_done_callback(self._close)

    def _close(self, _: asyncio.Task[None]) -> None:
        self._open -= 1

    async def _call(self, arrival: Arrival) -> None:
        image = await asyncio.to_thread(self._material.encoded, arrival.image)
        began_at, status, reason, explanation = self._now(), OK, "", None
        try:
            async with asyncio.timeout(self._patience(arrival)):
                explanation = await self._explain(arrival, image)
        except TimeoutError:
            status = CANCELLED_HERE
        except M2IBError as error:
            status, reason = status_of(error)
        self._note(
            Outcome(
                arrival=arrival,
                began_at=began_at,
                ended_at=self._now(),
                status=status,
                reason=reason,
                explanation=explanation,
            )
        )

    async def _explain(self, arrival: Arrival, image: bytes) -> Explanation:
        options: ExplainOptions = {**self._terms.options, "priority": arrival.priority}
        text = self._material.texts[arrival.text]
        if not arrival.is_streamed:
            return await self._client.explain(image, text, timeout=self._terms.deadline, **options)
        events = self._client.explain_stream(image, text, timeout=self._terms.deadline, **options)
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Explanation):
                    return event
        raise IncompatibleServerError("the stream ended without an explanation")

    def _patience(self, arrival: Arrival) -> float | None:
        """Return after how many seconds a call is cancelled: a share of what calls took lately."""
        if arrival.cancel_after is None:
            return None
        usual = statistics.median(self._recent) if self._recent else USUAL_SECONDS
        return arrival.cancel_after * min(usual, self._terms.deadline)

    def _note(self, outcome: Outcome) -> None:
        if outcome.status == OK:
            self._recent = [*self._recent[1 - RECENT :], outcome.ended_at - outcome.began_at]
        self.outcomes.append(outcome)
        self._noted(outcome)

    def _now(self) -> float:
        return time.monotonic() - self._began

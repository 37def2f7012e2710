"""Owns which requests of one stream are under way, and when no more are read. Knows nothing of what they ask for."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

from m2ib_server.api.call import Call
from m2ib_server.api.reception import Reception
from m2ib_server.errors import Draining, ServiceError

Wire = TypeVar("Wire")
Answer = Callable[[Wire], Coroutine[Any, Any, None]]  # raises nothing, and releases its place when it is done with


class SideBySide(Generic[Wire]):
    """The requests of one stream. At most `max_in_flight` are under way; the next one is read when a place is free.

    Once the server drains, or the gate refuses one of them, no further one is read: those that were taken are answered,
    and the stream ends with that.
    """

    def __init__(self, reception: Reception, *, max_in_flight: int) -> None:
        """Have so many places."""
        self._reception = reception
        self._places = asyncio.Semaphore(max_in_flight)
        self._under_way: set[asyncio.Task[None]] = set()
        self._taking: asyncio.Task[None] | None = None
        self._refusal: ServiceError | None = None

    async def serve(self, wires: AsyncIterator[Wire], answer: Answer[Wire]) -> None:
        """Begin an answer to each request; return once all have ended.

        Raises:
            Draining: the server began to drain before the client had sent everything.
            ServiceError: the gate's refusal.
        """
        taking = self._taking = asyncio.create_task(self._take(wires, answer))
        try:
            with self._reception.lifecycle.telling_of_drain(self._drain):
                await asyncio.wait([taking])
            if not taking.cancelled():
                taking.result()
            await asyncio.gather(*self._under_way)
        finally:
            left = [taking, *self._under_way]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        if self._refusal is not None:
            raise self._refusal

    @asynccontextmanager
    async def observed(self, call: Call) -> AsyncIterator[None]:
        """Tell the observers of a request's begin and end; ask the gate again, as the stream may outlast a token.

        Raises:
            ServiceError: the gate refuses the caller by now, and so it does whatever would come after this request.
        """
        async with self._reception.observed(call):
            try:
                call.readmit()
            except ServiceError as refusal:
                self._stop(refusal)
                raise
            yield

    def release(self) -> None:
        """Free a place: a request is done with."""
        self._places.release()

    def _drain(self) -> None:
        assert self._taking is not None, "only a stream that is served is told"
        if not self._taking.done():  # else the client has sent everything, and gets everything
            self._stop(Draining())

    def _stop(self, refusal: ServiceError) -> None:
        """Read no further request, also where the client is waited for; what was taken goes on."""
        assert self._taking is not None, "only a stream that is served is stopped"
        self._refusal = self._refusal or refusal
        self._taking.cancel()

    async def _take(self, wires: AsyncIterator[Wire], answer: Answer[Wire]) -> None:
        await self._places.acquire()
        async for wire in wires:
            if self._refusal is not None:  # it came at the very moment
                return
            request = asyncio.create_task(answer(wire))
            self._under_way.add(request)
            request.add_done_callback(self._under_way.discard)
            await self._places.acquire()

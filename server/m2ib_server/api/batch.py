"""Runs many requests of one stream side by side: answers come as they finish, a bad one does not end the others."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from m2ib.v1 import attribution_pb2 as pb
from m2ib_server.api.call import Call
from m2ib_server.api.explainer import Explainer
from m2ib_server.api.reception import Reception, status_of
from m2ib_server.api.side_by_side import SideBySide
from m2ib_server.engine import Priority
from m2ib_server.errors import InvalidField

MAX_ID_CHARACTERS = 256


class Batch:
    """One stream of requests. At most `max_in_flight` are under way; the next one is read when one is answered."""

    def __init__(self, explainer: Explainer, reception: Reception, call: Call, *, max_in_flight: int) -> None:
        """Prepare a batch for one call."""
        self._explainer = explainer
        self._call = call
        self._pairs: SideBySide[pb.ExplainBatchRequest] = SideBySide(reception, max_in_flight=max_in_flight)
        self._answers: asyncio.Queue[pb.ExplainBatchResponse | None] = asyncio.Queue()

    async def answers(self, requests: AsyncIterator[pb.ExplainBatchRequest]) -> AsyncGenerator[pb.ExplainBatchResponse]:
        """Read requests and yield answers until every request is answered.

        Raises:
            Draining: those that were taken are answered; whoever has more to ask, asks another server.
            ServiceError: the gate admits the caller no more.
        """
        serving = asyncio.create_task(self._serve(requests))
        try:
            while (answered := await self._answers.get()) is not None:
                yield answered
                self._pairs.release()  # only now: a reader that is slow to take answers is given no more
            await serving
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    async def _serve(self, requests: AsyncIterator[pb.ExplainBatchRequest]) -> None:
        try:
            await self._pairs.serve(requests, self._explain)
        finally:
            self._answers.put_nowait(None)

    async def _explain(self, wire: pb.ExplainBatchRequest) -> None:
        call = self._call.part("pair")
        answered = pb.ExplainBatchResponse(id=wire.id)
        try:
            async with self._pairs.observed(call):
                _check_id(wire.id)
                explanation = await self._explainer.explain(wire.request, call, Priority.BULK)
            answered.explanation.CopyFrom(explanation)
        except Exception as error:
            # the same fields and numbers as google.rpc.Status, so that the wire has no need of its file
            answered.status.ParseFromString(status_of(error, call).SerializeToString())
        self._answers.put_nowait(answered)


def _check_id(name: str) -> None:
    if len(name) > MAX_ID_CHARACTERS:
        raise InvalidField("id", seen=f"{len(name)} characters", allowed=f"at most {MAX_ID_CHARACTERS} characters")

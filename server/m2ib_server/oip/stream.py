"""Runs the requests of one ModelStreamInfer side by side: answers come as they finish, a bad one ends no other."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

from m2ib.oip import inference_pb2 as oip
from m2ib_server.api.batch import MAX_ID_CHARACTERS
from m2ib_server.api.call import Call
from m2ib_server.api.reception import Reception, status_of
from m2ib_server.api.side_by_side import SideBySide
from m2ib_server.oip.answer import write_fault, write_final

ERRORS_END_THE_STREAM = "triton_grpc_error"  # the header by which a caller wants a status in place of a message
MAX_UNREAD = 8  # messages that are ready and not yet taken by the reader

Tell = Callable[[oip.ModelStreamInferResponse], Awaitable[None]]  # waits for a reader that is slow
Infer = Callable[[oip.ModelInferRequest, Call, Tell], Awaitable[oip.ModelInferResponse]]


class InferStream:
    """One stream of requests. At most `max_in_flight` are under way; the next one is read when one is answered."""

    def __init__(self, infer: Infer, reception: Reception, call: Call, *, max_in_flight: int) -> None:
        """Prepare a stream for one call; `infer` answers one request."""
        self._infer = infer
        self._call = call
        self._requests: SideBySide[oip.ModelInferRequest] = SideBySide(reception, max_in_flight=max_in_flight)
        self._unread = asyncio.Semaphore(MAX_UNREAD)
        self._messages: asyncio.Queue[oip.ModelStreamInferResponse | Exception | None] = asyncio.Queue()

    async def answers(
        self, wires: AsyncIterator[oip.ModelInferRequest]
    ) -> AsyncGenerator[oip.ModelStreamInferResponse]:
        """Read requests and yield messages until every request is answered.

        Raises:
            Draining: those that were taken are answered; whoever has more to ask, asks another server.
            ServiceError: the gate admits the caller no more.
            Exception: that of a request, where the caller wants errors to end the stream.
        """
        serving = asyncio.create_task(self._serve(wires))
        try:
            while (message := await self._messages.get()) is not None:
                if isinstance(message, Exception):
                    raise message
                yield message
                self._unread.release()
            await serving
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    async def _serve(self, wires: AsyncIterator[oip.ModelInferRequest]) -> None:
        try:
            await self._requests.serve(wires, self._answer)
        finally:
            self._messages.put_nowait(None)

    async def _answer(self, wire: oip.ModelInferRequest) -> None:
        call = self._call.part("request")
        try:
            async with self._requests.observed(call):
                answer = await self._infer(wire, call, self._tell)
            message = write_final(answer)
        except Exception as error:
            if ERRORS_END_THE_STREAM in self._call.flags:
                self._messages.put_nowait(error)
                return
            request_id = wire.id if len(wire.id) <= MAX_ID_CHARACTERS else ""  # one that was refused is not sent back
            message = write_fault(status_of(error, call).message, request_id)
        await self._tell(message)
        self._requests.release()

    async def _tell(self, message: oip.ModelStreamInferResponse) -> None:
        await self._unread.acquire()
        self._messages.put_nowait(message)

"""Runs `explain_many` on an event loop: one task reads the pairs, one receives the answers of a stream."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import grpc.aio

from m2ib.v1 import attribution_pb2
from m2ib_client._channel import TimeLeft
from m2ib_client._ending import translated_stream
from m2ib_client._errors import BusyError, M2IBError, NotFoundError, UnavailableError
from m2ib_client._many.ledger import MAX_RENEWALS, Entry
from m2ib_client._many.pair import ManyResult, PairSource
from m2ib_client._many.run import FINISH_SECONDS, Answer, Run, Terms, clock, telling
from m2ib_client._many.wire import batch_request
from m2ib_client._uploads import AsyncUploads

if TYPE_CHECKING:
    from m2ib.v1 import attribution_pb2_grpc

OpenStub: TypeAlias = Callable[[], Awaitable["attribution_pb2_grpc.AttributionServiceAsyncStub"]]


class Given(NamedTuple):
    """A pair that the caller gave."""

    pair: object


class GivenAll(NamedTuple):
    """The end of the caller's pairs; an error of the caller's own if that ended them."""

    error: Exception | None


Event: TypeAlias = Answer | Exception | Given | GivenAll


class Stream:
    """One stream to the server; its answers, and at last the error that ended it, go into the inbox."""

    def __init__(self, inbox: "asyncio.Queue[Event]") -> None:
        """Prepare; nothing is sent before `start`."""
        self._inbox = inbox
        self._outbox: asyncio.Queue[attribution_pb2.ExplainBatchRequest | None] = asyncio.Queue()
        self._reader: asyncio.Task[None] | None = None

    def start(self, stub: "attribution_pb2_grpc.AttributionServiceAsyncStub", timeout: float | None) -> None:
        """Begin the call and receive."""
        call = stub.ExplainBatch(self._requests(), timeout=timeout)
        self._reader = asyncio.create_task(self._receive(call))

    def send(self, request: attribution_pb2.ExplainBatchRequest) -> None:
        """Send a request when the channel takes it."""
        self._outbox.put_nowait(request)

    async def finish(self) -> None:
        """Tell the server that no more comes, and let it end the stream."""
        self._outbox.put_nowait(None)
        if self._reader is not None:
            await asyncio.wait([self._reader], timeout=FINISH_SECONDS)

    async def cancel(self) -> None:
        """End the stream, on the server too, and the tasks with it. May be called after its end."""
        self._outbox.put_nowait(None)
        await _ended(self._reader)

    async def _requests(self) -> AsyncIterator[attribution_pb2.ExplainBatchRequest]:
        while (request := await self._outbox.get()) is not None:
            yield request

    async def _receive(self, call: "grpc.aio.StreamStreamCall[attribution_pb2.ExplainBatchRequest, Answer]") -> None:
        try:
            with translated_stream(call):
                async for answer in call:
                    self._inbox.put_nowait(answer)
            self._inbox.put_nowait(UnavailableError("the server ended the stream before its last answer"))
        except Exception as error:  # it is raised where the answers are read
            self._inbox.put_nowait(error)
        finally:
            call.cancel()


class Source:
    """The caller's pairs; each one that is asked for goes into the inbox. Reads them all in one task."""

    def __init__(self, pairs: Iterable[PairSource] | AsyncIterable[PairSource], inbox: "asyncio.Queue[Event]") -> None:
        """Prepare; nothing is read before it is asked for."""
        self._pairs = pairs
        self._inbox = inbox
        self._demand = asyncio.Semaphore(0)
        self._reader: asyncio.Task[None] | None = None
        self._is_asked = False

    def ask(self) -> None:
        """Read another pair, unless one is being read."""
        if not self._is_asked:
            self._is_asked = True
            self._demand.release()
        if self._reader is None:
            self._reader = asyncio.create_task(self._read())

    def note_given(self) -> None:
        """Note that what was asked for has come."""
        self._is_asked = False

    async def cancel(self) -> None:
        """End the reading. May be called after its end."""
        await _ended(self._reader)

    async def _read(self) -> None:
        try:
            await self._demand.acquire()
            async for pair in _lifted(self._pairs):
                self._inbox.put_nowait(Given(pair))
                await self._demand.acquire()
            self._inbox.put_nowait(GivenAll(None))
        except Exception as error:  # the caller's own, raised when what is under way is answered
            self._inbox.put_nowait(GivenAll(error))


class LoopedRun(Run):
    """One `explain_many` of the asyncio client."""

    def __init__(
        self,
        terms: Terms,
        pairs: Iterable[PairSource] | AsyncIterable[PairSource],
        open_stub: OpenStub,
        uploads: AsyncUploads,
    ) -> None:
        """Begin; nothing is read or sent before the first result is asked for."""
        super().__init__(terms, pairs, uploads.names)
        self._open_stub = open_stub
        self._uploads = uploads
        self._inbox: asyncio.Queue[Event] = asyncio.Queue()
        self._source = Source(pairs, self._inbox)
        self._stream: Stream | None = None

    async def results(self) -> AsyncGenerator[ManyResult, None]:
        """Yield the results; leaving early ends the stream."""
        try:
            with telling(self.terms.progress) as teller:
                while not self.ledger.is_over:
                    result = self.ledger.take()
                    if result is not None:
                        yield self.checked(result)
                    else:
                        await self._advance()
                        self.tell(teller)
                for result in self.ledger.take_rest():
                    yield self.checked(result)
            if self._stream is not None and self.ledger.fault is None:
                await self._stream.finish()
        finally:
            await self._source.cancel()
            await self._drop_stream()
        self.raise_fault()

    async def _advance(self) -> None:
        """Do the next thing: send what is due, or ask for a pair and wait for it or for an answer."""
        entry = self.ledger.next_due(clock())
        if entry is not None:
            await self._send(entry)
            return
        if self.ledger.may_read:
            self._source.ask()
        event = await self._wait()
        if isinstance(event, Given):
            self._source.note_given()
            self.enter(await asyncio.to_thread(self.prepare, event.pair))
        elif isinstance(event, GivenAll):
            self.end_reading(event.error)
        elif not self.note(event):
            await self._drop_stream()

    async def _send(self, entry: Entry) -> None:
        stub = await self._open_stub()
        try:
            message = await self._message(entry)
        except M2IBError as error:
            self.fail(entry, error)
            return
        if self._stream is None:
            self._stream = Stream(self._inbox)
            self._stream.start(stub, self.left.seconds())
        self._stream.send(message)

    async def _message(self, entry: Entry) -> attribution_pb2.ExplainBatchRequest:
        """Return the message for a pair; its image is uploaded first if the server has no name for it yet."""
        if entry.image is not None:
            if entry.renewals == MAX_RENEWALS:  # a proxy may send uploads and streams to different servers
                return self.inline(entry, entry.image, NotFoundError("image: the server keeps no upload of it"))
            try:
                entry.request.image.handle = await self._uploads.name(entry.image, TimeLeft(self.terms.timeout))
            except BusyError as refusal:
                return self.inline(entry, entry.image, refusal)
        return batch_request(entry)

    async def _wait(self) -> Event | None:
        try:
            async with asyncio.timeout(self.ledger.wait_seconds(clock())):
                return await self._inbox.get()
        except TimeoutError:
            return None

    async def _drop_stream(self) -> None:
        if self._stream is not None:
            stream, self._stream = self._stream, None
            await stream.cancel()


async def _lifted(pairs: Iterable[PairSource] | AsyncIterable[PairSource]) -> AsyncIterator[PairSource]:
    """Yield the pairs; those of a plain iterable are read on the loop."""
    if isinstance(pairs, AsyncIterable):
        async for pair in pairs:
            yield pair
    else:
        for pair in pairs:
            yield pair


async def _ended(task: "asyncio.Task[None] | None") -> None:
    """End a task and wait for its end."""
    if task is not None:
        task.cancel()
        await asyncio.wait([task])

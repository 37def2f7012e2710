"""Runs `explain_many` for threads: the caller's own reads and sends, one more receives the answers of a stream."""

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeAlias

from m2ib.v1 import attribution_pb2, attribution_pb2_grpc
from m2ib_client._channel import TimeLeft
from m2ib_client._errors import BusyError, M2IBError, NotFoundError, UnavailableError
from m2ib_client._many.ledger import MAX_RENEWALS, Entry
from m2ib_client._many.pair import ManyResult, PairSource
from m2ib_client._many.run import FINISH_SECONDS, Answer, Run, Terms, clock, telling
from m2ib_client._many.wire import batch_request
from m2ib_client._status import translated
from m2ib_client._uploads import Uploads

Stub: TypeAlias = attribution_pb2_grpc.AttributionServiceStub


class Stream:
    """One stream to the server; its answers, and at last the error that ended it, go into the inbox."""

    def __init__(self, stub: Stub, timeout: float | None, inbox: "queue.SimpleQueue[Answer | Exception]") -> None:
        """Begin the call; nothing is received before `start`."""
        self._outbox: queue.SimpleQueue[attribution_pb2.ExplainBatchRequest | None] = queue.SimpleQueue()
        self._call: Any = stub.ExplainBatch(iter(self._outbox.get, None), timeout=timeout)
        self._reader = threading.Thread(target=_receive, args=(self._call, inbox), name="m2ib-answers", daemon=True)

    def start(self) -> None:
        """Begin to receive."""
        self._reader.start()

    def send(self, request: attribution_pb2.ExplainBatchRequest) -> None:
        """Send a request when the channel takes it."""
        self._outbox.put(request)

    def finish(self) -> None:
        """Tell the server that no more comes, and let it end the stream."""
        self._outbox.put(None)
        self._reader.join(FINISH_SECONDS)

    def cancel(self) -> None:
        """End the stream, on the server too, and the threads with it. May be called after its end."""
        self._outbox.put(None)
        self._call.cancel()
        self._reader.join()


def _receive(call: Iterable[Answer], inbox: "queue.SimpleQueue[Answer | Exception]") -> None:
    try:
        with translated():
            for answer in call:
                inbox.put(answer)
        inbox.put(UnavailableError("the server ended the stream before its last answer"))
    except Exception as error:  # it is raised where the answers are read
        inbox.put(error)


class ThreadedRun(Run):
    """One `explain_many` of the synchronous client."""

    def __init__(
        self, terms: Terms, pairs: Iterable[PairSource], open_stub: Callable[[], Stub], uploads: Uploads
    ) -> None:
        """Begin; nothing is read or sent before the first result is asked for."""
        super().__init__(terms, pairs, uploads.names)
        self._pairs = iter(pairs)
        self._open_stub = open_stub
        self._uploads = uploads
        self._inbox: queue.SimpleQueue[Answer | Exception] = queue.SimpleQueue()
        self._stream: Stream | None = None

    def results(self) -> Generator[ManyResult, None, None]:
        """Yield the results; leaving early ends the stream."""
        try:
            with telling(self.terms.progress) as teller:
                while not self.ledger.is_over:
                    result = self.ledger.take()
                    if result is not None:
                        yield self.checked(result)
                    else:
                        self._advance()
                        self.tell(teller)
                for result in self.ledger.take_rest():
                    yield self.checked(result)
            if self._stream is not None and self.ledger.fault is None:
                self._stream.finish()
        finally:
            self._drop_stream()
        self.raise_fault()

    def _advance(self) -> None:
        """Do the next thing: send what is due, note what came, read a pair, or wait for an answer."""
        entry = self.ledger.next_due(clock())
        if entry is not None:
            self._send(entry)
        elif not self._inbox.empty():
            self._note(self._inbox.get())
        elif self.ledger.may_read:
            self._read()
        else:
            self._note(self._wait())

    def _read(self) -> None:
        try:
            given = next(self._pairs)
        except StopIteration:
            self.end_reading(None)
        except Exception as error:  # the caller's own, raised when what is under way is answered
            self.end_reading(error)
        else:
            self.enter(self.prepare(given))

    def _send(self, entry: Entry) -> None:
        stub = self._open_stub()
        try:
            message = self._message(entry)
        except M2IBError as error:
            self.fail(entry, error)
            return
        if self._stream is None:
            self._stream = Stream(stub, self.left.seconds(), self._inbox)
            self._stream.start()
        self._stream.send(message)

    def _message(self, entry: Entry) -> attribution_pb2.ExplainBatchRequest:
        """Return the message for a pair; its image is uploaded first if the server has no name for it yet."""
        if entry.image is not None:
            if entry.renewals == MAX_RENEWALS:  # a proxy may send uploads and streams to different servers
                return self.inline(entry, entry.image, NotFoundError("image: the server keeps no upload of it"))
            try:
                entry.request.image.handle = self._uploads.name(entry.image, TimeLeft(self.terms.timeout))
            except BusyError as refusal:
                return self.inline(entry, entry.image, refusal)
        return batch_request(entry)

    def _wait(self) -> Answer | Exception | None:
        try:
            return self._inbox.get(timeout=self.ledger.wait_seconds(clock()))
        except queue.Empty:
            return None

    def _note(self, event: Answer | Exception | None) -> None:
        if not self.note(event):
            self._drop_stream()

    def _drop_stream(self) -> None:
        if self._stream is not None:
            self._stream.cancel()
            self._stream = None

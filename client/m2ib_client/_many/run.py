"""Owns what both shells of `explain_many` share: the options of a run and the course of its answers."""

import time
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from m2ib.v1 import attribution_pb2
from m2ib_client import _channel
from m2ib_client._errors import InvalidRequestError, M2IBError
from m2ib_client._handle import ImageHandle
from m2ib_client._many.images import RepeatedImages
from m2ib_client._many.ledger import Entry, Ledger
from m2ib_client._many.pair import ManyProgress, ManyResult, ProgressOption
from m2ib_client._many.wire import inline_request, prepare, read_answer
from m2ib_client._options import ExplainOptions
from m2ib_client._request import explain_request
from m2ib_client._uploads import Names

DEFAULT_AHEAD = 64
FINISH_SECONDS = 2.0
PROBE = ImageHandle.of(b"")

Answer: TypeAlias = attribution_pb2.ExplainBatchResponse
clock = time.monotonic


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The options of one `explain_many`; `timeout` and `total_timeout` are in seconds, None for none.

    `max_message_bytes` is the largest request of one pair.
    """

    options: ExplainOptions
    ordered: bool
    return_errors: bool
    progress: ProgressOption
    ahead: int
    timeout: float | None
    total_timeout: float | None
    max_message_bytes: int = _channel.MAX_MESSAGE_BYTES

    def __post_init__(self) -> None:
        """Refuse at once what no pair could be sent with.

        Raises:
            InvalidRequestError: a number or an option cannot be meant.
            TypeError: there is no such option.
        """
        if not isinstance(self.ahead, int) or self.ahead < 1:
            raise InvalidRequestError.of("ahead", seen=repr(self.ahead), allowed="a whole number from 1")
        _channel.checked_timeout(self.total_timeout)
        explain_request(PROBE, "", **self.options)


class Run:
    """The course of one `explain_many`: pairs in, answers noted, results out."""

    def __init__(self, terms: Terms, pairs: object, names: Names) -> None:
        """Begin; `names` are those of the images on the server."""
        self.terms = terms
        self.ledger = Ledger(ordered=terms.ordered, ahead=terms.ahead, timeout=terms.timeout)
        self.left = _channel.TimeLeft(terms.total_timeout)
        self.source_error: Exception | None = None
        self._names = names
        self._images = RepeatedImages()
        self._total = len(pairs) if isinstance(pairs, Sized) else None
        self._told: ManyProgress | None = None

    def prepare(self, given: object) -> Entry | ManyResult:
        """Return what the caller gave as a pair, ready to be sent, or the result of one that cannot be."""
        terms = self.terms
        return prepare(self.ledger.next_index, given, terms.options, self._images, terms.max_message_bytes)

    def enter(self, prepared: Entry | ManyResult) -> None:
        """Take a pair that was read."""
        if isinstance(prepared, Entry):
            self.ledger.enter(prepared, clock())
        else:
            self.ledger.refuse(prepared)

    def end_reading(self, error: Exception | None) -> None:
        """Note the end of the pairs, which may be an error of the caller's own."""
        self.source_error = error
        self.ledger.end_reading()

    def note(self, event: Answer | Exception | None) -> bool:
        """Take an answer, the end of the stream or nothing in time; return whether the stream goes on."""
        now = clock()
        if isinstance(event, Answer):
            entry = self.ledger.answer(*read_answer(event), now)
            if entry is not None and entry.image is not None:
                self._names.forget(entry.image, entry.request.image.handle)
        elif event is not None:
            self.ledger.break_off(event, now)
            return False
        else:
            self.ledger.note_time(now)
        return True

    def inline(self, entry: Entry, image: ImageHandle, refusal: M2IBError) -> attribution_pb2.ExplainBatchRequest:
        """Return the message for a pair whose image the server does not keep: it goes within the request.

        Raises:
            M2IBError: the refusal itself, where no request can hold the image.
        """
        message = inline_request(entry, image)
        size_bytes = message.request.ByteSize()
        if size_bytes > self.terms.max_message_bytes:
            raise refusal
        self.ledger.weigh(entry, size_bytes)
        return message

    def fail(self, entry: Entry, error: M2IBError) -> None:
        """Take a pair whose image could not be sent."""
        self.ledger.fail(entry, error, clock())

    def checked(self, result: ManyResult) -> ManyResult:
        """Return the result; raise its error if the caller asked for that."""
        if result.error is not None and not self.terms.return_errors:
            raise result.error
        return result

    def tell(self, teller: Callable[[ManyProgress], None]) -> None:
        """Tell how far it is, if it has gone on since."""
        progress = self.ledger.progress(self._total)
        if progress != self._told:
            self._told = progress
            teller(progress)

    def raise_fault(self) -> None:
        """Raise what ended the run before its time, if anything did."""
        fault = self.ledger.fault or self.source_error
        if fault is not None:
            raise fault


@contextmanager
def telling(progress: ProgressOption) -> Iterator[Callable[[ManyProgress], None]]:
    """Yield what to tell progress to: the caller's function, a bar, or nobody."""
    if callable(progress):
        yield progress
    elif progress:
        from m2ib_client._many.bar import shown_bar  # noqa: PLC0415 - rich is loaded for those who want a bar

        with shown_bar() as teller:
            yield teller
    else:
        yield lambda _: None

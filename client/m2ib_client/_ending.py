"""Keeps how an asyncio call that sends a stream ended first, which gRPC may overwrite with an error of its own.

Where the server ends a call while a message is being written, `grpc.aio` replaces the status that the server gave
by INTERNAL (https://github.com/grpc/grpc/issues/36066).
"""

from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from m2ib_client._errors import M2IBError, ServerError, UnavailableError
from m2ib_client._status import Metadata, error_of, translated

OVERWRITTEN = "Internal error from Core"


@dataclass(frozen=True, slots=True)
class FirstEnding:
    """The status that a call ended with at first; a `FailedCall`."""

    _code: grpc.StatusCode
    _details: str | None
    _metadata: Metadata | None

    def code(self) -> grpc.StatusCode:
        """Return the status."""
        return self._code

    def details(self) -> str | None:
        """Return the status's text."""
        return self._details

    def trailing_metadata(self) -> Metadata | None:
        """Return what came after the answer."""
        return self._metadata


@contextmanager
def translated_stream(call: grpc.aio.Call) -> Iterator[None]:
    """Raise every failure of a call that sends a stream as an `M2IBError`, as `translated` does for others."""
    first: list[FirstEnding] = []
    call.add_done_callback(lambda ended: first.append(_ending(ended)))
    try:
        with translated():
            yield
    except ServerError as error:
        raise (_first_error(first[0]) if first else error) from error


def _first_error(ending: FirstEnding) -> M2IBError:
    if ending.code() is grpc.StatusCode.INTERNAL and ending.details() == OVERWRITTEN:
        return UnavailableError("the server ended the call while it was sent to, and its reason is lost")
    return error_of(ending)


def _ending(call: Any) -> FirstEnding:
    """Read the ending while it is the first one: within the callback, where waiting would be too late."""
    return FirstEnding(_read(call.code()), _read(call.details()), tuple(_read(call.trailing_metadata()) or ()))


def _read(ready: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of a coroutine that has nothing to wait for."""
    try:
        ready.send(None)
    except StopIteration as end:
        return end.value
    ready.close()
    raise AssertionError("a call that is done knows how it ended")

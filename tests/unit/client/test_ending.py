"""Checks that a call which was sent to while it ended is known by the server's reason, not by gRPC's own."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from m2ib_client import AccessError, M2IBError, ServerError, UnavailableError
from m2ib_client._ending import OVERWRITTEN, translated_stream


class Failure(grpc.RpcError):
    """What `grpc.aio` raises once it has replaced the status."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.INTERNAL

    def details(self) -> str:
        return OVERWRITTEN

    def trailing_metadata(self) -> tuple[()]:
        return ()


class Call:
    """A call that ends with a first status."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        self.first = (code, text)
        self.callbacks: list[Callable[[Any], None]] = []

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self.callbacks.append(callback)

    async def code(self) -> grpc.StatusCode:
        return self.first[0]

    async def details(self) -> str:
        return self.first[1]

    async def trailing_metadata(self) -> None:
        return None

    def end(self) -> None:
        for callback in self.callbacks:
            callback(self)
        raise Failure


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, "not you", AccessError),
        (grpc.StatusCode.UNAVAILABLE, "gone", UnavailableError),
        (grpc.StatusCode.INTERNAL, "a fault of the server's own", ServerError),
        (grpc.StatusCode.INTERNAL, OVERWRITTEN, UnavailableError),
    ],
)
def test_first_ending_is_the_one_that_counts(code: grpc.StatusCode, text: str, kind: type[M2IBError]) -> None:
    call = Call(code, text)
    with pytest.raises(M2IBError) as caught, translated_stream(call):  # type: ignore[arg-type]
        call.end()
    assert type(caught.value) is kind
    assert ("its reason is lost" if text == OVERWRITTEN else text) in str(caught.value)


def test_ending_that_gives_no_callback_is_the_failure_itself() -> None:
    with pytest.raises(ServerError), translated_stream(Call(grpc.StatusCode.OK, "")):  # type: ignore[arg-type]
        raise Failure

import asyncio
import time

import pytest

from m2ib_server.errors import AuditUnavailable
from m2ib_server.sight.audit_writer import AuditWriter

SECONDS = 60


class Head:
    sequence, hash = 0, ""


class UnrotatedFile:
    """A log whose next file cannot be opened once it is full, until the operator has seen to it."""

    head = Head()
    torn = ()

    def __init__(self, *, holds: int) -> None:
        self._left = holds
        self._is_open = False
        self.is_mended = False
        self.kinds: list[str] = []

    def open(self) -> None:
        if self._left < 0 and not self.is_mended:
            raise PermissionError
        self._is_open = True

    def append(self, body) -> None:
        self._left -= 1
        if self._left < 0 and not self.is_mended:
            self._is_open = False
            raise PermissionError
        self.kinds.append(body["kind"])

    def sync(self) -> None:
        assert self._is_open, "the log is open"

    def close(self) -> None:
        self._is_open = False


def put(writer: AuditWriter, number: int) -> asyncio.Future:
    written = asyncio.get_running_loop().create_future()
    writer.put({"kind": "call", "request_id": str(number)}, written)
    return written


def mended(writer: AuditWriter) -> None:
    deadline = time.monotonic() + SECONDS
    while writer.is_failing and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.mark.parametrize("refuses", [True, False])
async def test_a_log_that_cannot_be_continued_amid_a_batch_leaves_nobody_waiting_and_goes_on_once_it_can(refuses):
    file = UnrotatedFile(holds=2)  # the start and one call
    writer = AuditWriter(file, syncs_always=True, refuses=refuses, clock=lambda: 0)  # type: ignore[arg-type]
    writer.start()
    waiting = [put(writer, number) for number in range(5)]
    told = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), SECONDS)
    assert any(isinstance(each, AuditUnavailable) for each in told) is refuses
    file.is_mended = True
    await asyncio.wait_for(asyncio.to_thread(mended, writer), SECONDS)
    await asyncio.wait_for(put(writer, 6), SECONDS)
    writer.close()
    assert file.kinds[-3:] == ["resumed", "call", "stop"]

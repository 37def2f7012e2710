import asyncio
import threading
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


class HangingFile:
    """A log on a disk that takes what is written and lets nobody know, until it is let go."""

    head = Head()
    torn = ()

    def __init__(self) -> None:
        self.goes_on = threading.Event()
        self.goes_on.set()

    def open(self) -> None:
        pass

    def append(self, body) -> None:
        pass

    def sync(self) -> None:
        assert self.goes_on.wait(SECONDS), "the test lets go of the disk"

    def close(self) -> None:
        pass


def put(writer: AuditWriter, number: int) -> asyncio.Future:
    written = asyncio.get_running_loop().create_future()
    writer.put({"kind": "call", "request_id": str(number)}, written)
    return written


def becomes(writer: AuditWriter, *, failing: bool) -> bool:
    deadline = time.monotonic() + SECONDS
    while writer.is_failing is not failing and time.monotonic() < deadline:
        time.sleep(0.05)
    return writer.is_failing is failing


@pytest.mark.parametrize("refuses", [True, False])
async def test_a_log_that_cannot_be_continued_amid_a_batch_leaves_nobody_waiting_and_goes_on_once_it_can(refuses):
    file = UnrotatedFile(holds=2)  # the start and one call
    writer = AuditWriter(file, syncs_always=True, refuses=refuses, clock=lambda: 0)  # type: ignore[arg-type]
    writer.start()
    waiting = [put(writer, number) for number in range(5)]
    told = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), SECONDS)
    assert any(isinstance(each, AuditUnavailable) for each in told) is refuses
    file.is_mended = True
    assert await asyncio.to_thread(becomes, writer, failing=False)
    await asyncio.wait_for(put(writer, 6), SECONDS)
    writer.close()
    assert file.kinds[-3:] == ["resumed", "call", "stop"]


@pytest.mark.parametrize("syncs_always", [True, False], ids=["always", "interval"])
async def test_a_disk_that_hangs_counts_as_one_that_fails_until_it_goes_on(syncs_always):
    file = HangingFile()
    writer = AuditWriter(file, syncs_always=syncs_always, refuses=True, clock=lambda: 0)  # type: ignore[arg-type]
    writer.start()
    file.goes_on.clear()
    written = put(writer, 1)
    assert not writer.is_failing
    assert await asyncio.to_thread(becomes, writer, failing=True)
    assert written.done() is not syncs_always  # who waits for the disk waits on: the record may yet be written
    file.goes_on.set()
    assert await asyncio.to_thread(becomes, writer, failing=False)
    await asyncio.wait_for(written, SECONDS)
    assert writer.lost_calls == 0
    writer.close()

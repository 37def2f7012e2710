"""Writes the audit log on a thread of its own: what waits together is written together and reaches the disk once."""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from m2ib_server.errors import AuditUnavailable
from m2ib_server.sight.audit_chain import Body
from m2ib_server.sight.audit_file import AuditFile
from m2ib_server.sight.audit_record import timestamp
from m2ib_server.telemetry import log_event

CLOSE_SECONDS = 10.0  # how long a disk may keep the server from ending
HANG_SECONDS = 3.0  # from then on a disk that is waited for counts as one that fails
PAUSE_SECONDS = 1.0  # between two syncs, and between two tries to write again


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A record on its way.

    Attributes:
        body: what it says.
        written: told once it is written; None where nobody waits.
        calls: how many calls it speaks of.
    """

    body: Body
    written: asyncio.Future[None] | None
    calls: int


class AuditWriter:
    """The log's one writer. Its methods may be called from any thread."""

    def __init__(self, file: AuditFile, *, syncs_always: bool, refuses: bool, clock: Callable[[], int]) -> None:
        """Write to a file.

        Args:
            file: not yet open.
            syncs_always: whether a record counts as written only once it is on the disk; else the disk is waited for
                once in a while.
            refuses: whether who waits for a record is told when it cannot be written.
            clock: the wall clock, in nanoseconds.
        """
        self.lost_calls = 0  # since the start; any thread may read it
        self._file = file
        self._syncs_always = syncs_always
        self._refuses = refuses
        self._clock = clock
        self._entries: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._has_failed = False
        self._busy_since: float | None = None
        self._unrecorded = 0
        self._unsynced = False
        self._tried = 0.0
        self._thread = threading.Thread(target=self._run, name="m2ib-audit", daemon=True)

    def start(self, **fields: str) -> None:
        """Open the log, record that the server begins, and take records from now on.

        Raises:
            AuditUnusable: the file is no log, or not this server's.
            OSError: it cannot be written.
        """
        self._file.open()
        self._recover()
        self._file.append({"kind": "start", "time": self._now(), **fields})
        self._file.sync()
        self._thread.start()

    def put(self, body: Body, written: asyncio.Future[None] | None = None, *, calls: int = 1) -> None:
        """Write a record of so many calls soon."""
        self._entries.put(Entry(body=body, written=written, calls=calls))

    @property
    def is_failing(self) -> bool:
        """Whether the file could not be written when that was tried last, or hangs; any thread may ask."""
        since = self._busy_since  # the writing thread may set it at any moment
        return self._has_failed or (since is not None and time.monotonic() - since > HANG_SECONDS)

    def close(self) -> None:
        """Write what waits and that the server stops, then close the log."""
        self._entries.put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            log_event("audit log abandoned", level=logging.ERROR)
            return
        if not self._has_failed:
            self._attempt(lambda: self._file.append({"kind": "stop", "time": self._now()}))
            self._attempt(self._file.sync)
        log_event("audit log closed", records=self._file.head.sequence, head=self._file.head.hash)
        self._file.close()

    def _run(self) -> None:
        is_open = True
        while is_open:
            taken = self._take()
            is_open = None not in taken
            entries = [entry for entry in taken if entry is not None]
            if self._has_failed:
                self._retry()
            self._write(entries)
            self._sync_once_in_a_while()

    def _take(self) -> list[Entry | None]:
        """Wait for entries; while there is something else to do, not for ever."""
        pause = PAUSE_SECONDS if self._has_failed or self._unsynced else None
        taken: list[Entry | None] = []
        with suppress(queue.Empty):
            taken.append(self._entries.get(timeout=pause))
            while True:
                taken.append(self._entries.get_nowait())
        return taken

    def _write(self, entries: Sequence[Entry]) -> None:
        written = [entry for entry in entries if self._append(entry)]
        if self._has_failed:  # a file that could not be continued amid the entries: nobody knows what of them it holds
            self._lose(written)
            return
        self._unsynced |= bool(written)
        if written and self._syncs_always:
            self._unsynced = False
            if not self._attempt(self._file.sync):
                self._lose(written)
                return
        _tell(written, None)

    def _append(self, entry: Entry) -> bool:
        if not self._has_failed and self._attempt(lambda: self._file.append(entry.body)):
            return True
        self._lose([entry])
        return False

    def _lose(self, entries: Sequence[Entry]) -> None:
        """Count what could not be recorded, and tell whoever waits for it."""
        for entry in entries:
            self._unrecorded += entry.calls
            self.lost_calls += entry.calls
            request_id = str(entry.body.get("request_id", ""))  # calls that were counted together have none
            log_event("audit record lost", level=logging.ERROR, request_id=request_id, calls=entry.calls)
        _tell(entries, AuditUnavailable() if self._refuses else None)

    def _attempt(self, work: Callable[[], None]) -> bool:
        """Do something with the file, and return whether it went well."""
        self._busy_since = time.monotonic()
        try:
            work()
        except Exception as error:  # whatever it is, the thread that everybody waits for goes on
            if not self._has_failed:
                log_event("audit log unavailable", level=logging.ERROR, error_type=type(error).__name__)
            self._has_failed = True
            self._tried = time.monotonic()
            return False
        finally:
            self._busy_since = None
        return True

    def _retry(self) -> None:
        """Try to write again, at most so often; the first record says how many are missing."""
        if time.monotonic() - self._tried < PAUSE_SECONDS:
            return
        if self._attempt(self._resume):
            log_event("audit log available", unrecorded=self._unrecorded)
            self._has_failed, self._unrecorded, self._unsynced = False, 0, False

    def _resume(self) -> None:
        self._file.open()
        self._recover()
        self._file.append({"kind": "resumed", "time": self._now(), "unrecorded": self._unrecorded})
        self._file.sync()

    def _recover(self) -> None:
        """Account for what a crash or a full disk cut short."""
        if torn := self._file.torn:
            log_event("audit log recovered", level=logging.WARNING, torn=len(torn))
            self._file.append({"kind": "recovery", "time": self._now(), "torn": torn})

    def _sync_once_in_a_while(self) -> None:
        if self._unsynced and not self._has_failed and time.monotonic() - self._tried >= PAUSE_SECONDS:
            self._tried = time.monotonic()
            self._unsynced = not self._attempt(self._file.sync)

    def _now(self) -> str:
        return timestamp(self._clock())


def _tell(entries: Sequence[Entry], fault: AuditUnavailable | None) -> None:
    for entry in entries:
        if entry.written is not None:
            with suppress(RuntimeError):  # the loop has ended, and with it everybody who waited
                entry.written.get_loop().call_soon_threadsafe(_settle, entry.written, fault)


def _settle(written: asyncio.Future[None], fault: AuditUnavailable | None) -> None:
    if written.done():  # the caller has left meanwhile
        return
    if fault is None:
        written.set_result(None)
    else:
        written.set_exception(fault)

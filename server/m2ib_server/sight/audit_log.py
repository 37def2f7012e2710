"""Records every call in the audit log."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import grpc

from m2ib_server import __version__
from m2ib_server.api.call import Call, CallEnd
from m2ib_server.errors import AuditUnavailable, AuditUnusable
from m2ib_server.settings import AuditSettings
from m2ib_server.sight.audit_file import AuditFile
from m2ib_server.sight.audit_key import key_name
from m2ib_server.sight.audit_record import call_record, suppressed_record
from m2ib_server.sight.audit_refusals import FULL, take
from m2ib_server.sight.audit_writer import AuditWriter

LEAST_KEY_BYTES = 32
SUPPRESSED_SECONDS = 1.0  # how long refusals are counted until a record tells of them


class AuditLog:
    """The recorder of calls."""

    def __init__(self, writer: AuditWriter, key: bytes, *, refuses: bool, clock: Callable[[], int]) -> None:
        """Record through a writer that was started; with `refuses` no call begins while it cannot write."""
        self._writer = writer
        self._key = key
        self._refuses = refuses
        self._clock = clock
        self._bucket = FULL
        self._suppressed: Counter[str] = Counter()  # by reason, since the last record of them
        self._suppressed_since_ns = 0
        self.suppressed_calls = 0

    def begun(self, call: Call) -> None:
        """Refuse a call that could not be recorded."""
        if self._refuses and self._writer.is_failing:
            raise AuditUnavailable

    def ended(self, call: Call, end: CallEnd) -> asyncio.Future[None] | None:
        """Record how a call ended; its caller waits for that, unless it has left.

        Refusals of callers who are not known have records up to a rate; beyond it they are counted.
        """
        if end.code == grpc.StatusCode.UNAUTHENTICATED.name and not self._may_record_refusal():
            self._suppress(end.reason)
            return None
        body = call_record(call, end, self._key, now_ns=self._clock())
        if end.code == grpc.StatusCode.CANCELLED.name:
            self._writer.put(body)
            return None
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._writer.put(body, written)
        return written

    @property
    def is_failing(self) -> bool:
        """Whether it could not be written when that was tried last, or its disk hangs."""
        return self._writer.is_failing

    @property
    def lost_calls(self) -> int:
        """How many calls it could not record since the server began."""
        return self._writer.lost_calls

    def close(self) -> None:
        """Write what waits and close the log."""
        self._record_suppressed()
        self._writer.close()

    def _may_record_refusal(self) -> bool:
        left = take(self._bucket, time.monotonic())
        self._bucket = left or self._bucket
        return left is not None

    def _suppress(self, reason: str) -> None:
        """Count a refusal, which a record will tell of soon, whether or not another call comes."""
        if not self._suppressed:
            self._suppressed_since_ns = self._clock()
            asyncio.get_running_loop().call_later(SUPPRESSED_SECONDS, self._record_suppressed)
        self._suppressed[reason] += 1
        self.suppressed_calls += 1

    def _record_suppressed(self) -> None:
        """Record how many refusals were counted, if there are any that no record tells of."""
        if not self._suppressed:
            return
        body = suppressed_record(self._suppressed, began_ns=self._suppressed_since_ns, now_ns=self._clock())
        self._writer.put(body, calls=self._suppressed.total())
        self._suppressed = Counter()


def open_audit_log(settings: AuditSettings) -> AuditLog | None:
    """Return the audit log that the settings ask for, open; None where they ask for none.

    Raises:
        AuditUnusable: the log or the key cannot be used.
    """
    if settings.file is None:
        return None
    key = _read_key(settings.salt_file)
    refuses, clock = settings.refuses, time.time_ns
    file = AuditFile(settings.file, max_bytes=settings.max_bytes)
    writer = AuditWriter(file, syncs_always=settings.syncs_always, refuses=refuses, clock=clock)
    try:
        writer.start(version=__version__, key=key_name(key))
    except OSError as error:
        seen, allowed = f"{type(error).__name__} {error.strerror}", "a file that this server can create and append to"
        raise AuditUnusable(str(settings.file), seen=seen, allowed=allowed) from error
    return AuditLog(writer, key, refuses=refuses, clock=clock)


def _read_key(file: Path | None) -> bytes:
    assert file is not None, "the flags ask for it"
    try:
        key = file.read_bytes()
    except OSError as error:
        raise AuditUnusable(str(file), seen=f"{error.strerror}", allowed="a file that can be read") from error
    if len(key) < LEAST_KEY_BYTES:
        raise AuditUnusable(str(file), seen=f"{len(key)} bytes", allowed=f"a key of at least {LEAST_KEY_BYTES} bytes")
    return key

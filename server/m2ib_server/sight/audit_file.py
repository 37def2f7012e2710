"""Owns the audit log's file: its lock, what a crash left at its end, appending, rotation. One thread's alone.

Nothing that was written is ever taken away: a line that a crash cut short stays, and the next record accounts for it.
"""

import errno
import fcntl
import io
import os
import stat
from pathlib import Path

from m2ib_server.errors import AuditUnusable
from m2ib_server.sight.audit_chain import START, Body, LineBroken, Link, link, may_be_torn, read_line, torn_entry

MODE = 0o600
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe never waits
_TAIL_BYTES = 1 << 20  # a record has a few thousand bytes at most


class AuditFile:
    """The log `path`, and its earlier parts `path.000001`, `path.000002` and so on, each full when it was put aside."""

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        """Put a file aside once it has `max_bytes`."""
        self.path = path
        self.head = START
        self._max_bytes = max_bytes
        self._file: int | None = None
        self._lock: int | None = None
        self._size_bytes = 0
        self._torn: list[dict[str, object]] = []
        self._ends_a_line = True

    def open(self) -> None:
        """Lock the log and find the chain's head; may be called again after a fault.

        Raises:
            AuditUnusable: another server writes it, or its end is no log's.
            OSError: it cannot be opened.
        """
        self.close_file()
        if self._lock is None:
            self._lock = _locked(self.path.with_name(f"{self.path.name}.lock"))
        file = os.open(self.path, _FLAGS, MODE)
        self._file = file
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise AuditUnusable(self.path.name, seen="no regular file", allowed="a file that can be appended to")
        self._size_bytes = os.fstat(file).st_size
        self._find_head()

    @property
    def torn(self) -> list[dict[str, object]]:
        """What a crash left at the end, for a recovery record to account for: the bytes and SHA-256 of each line."""
        return list(self._torn)

    def append(self, body: Body) -> None:
        """Write one record.

        Raises:
            OSError: it is not written, or not whole; the file has to be opened again.
        """
        if self._size_bytes >= self._max_bytes and self._ends_a_line and not self._torn:
            self._rotate()
        assert self._file is not None, "the log is open"
        self._check_in_place(self._file)
        line, head = link(body, self.head)
        line = line if self._ends_a_line else b"\n" + line
        written = os.write(self._file, line)
        self._size_bytes += written
        if written < len(line):
            if not self._ends_a_line and written == 1:  # a line that has its end was not cut short, it would seem
                os.ftruncate(self._file, self._size_bytes - written)
            raise OSError(errno.ENOSPC, "not the whole record was written")
        self.head, self._torn, self._ends_a_line = head, [], True

    def sync(self) -> None:
        """Wait until what was written is on the disk.

        Raises:
            OSError: whether it is, is not known; the file has to be opened again.
        """
        assert self._file is not None, "the log is open"
        os.fsync(self._file)

    def close_file(self) -> None:
        """Close the file and keep the lock."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def close(self) -> None:
        """Close the file and give the lock back."""
        self.close_file()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _find_head(self) -> None:
        head, self._torn, self._ends_a_line = _end_of(self.path)
        if head is None and (parts := self._parts()):
            head, torn, _ = _end_of(parts[-1])
            if torn or head is None:
                raise _not_a_log(parts[-1])
        if head is not None and head.sequence > self.head.sequence:  # what was written is never written again
            self.head = head

    def _check_in_place(self, file: int) -> None:
        """Refuse to write into a file that was moved or removed, where nobody would find the record."""
        if os.fstat(file).st_ino != self.path.stat().st_ino:
            raise OSError(errno.ENOENT, "the log was moved")

    def _rotate(self) -> None:
        """Put the full file aside, and go on with an empty one, whose first record continues the chain."""
        assert self._file is not None, "the log is open"
        os.fsync(self._file)
        parts = self._parts()
        number = int(parts[-1].suffix[1:]) + 1 if parts else 1
        self.path.rename(self.path.with_name(f"{self.path.name}.{number:06d}"))
        self.open()
        _sync_folder(self.path.parent)

    def _parts(self) -> list[Path]:
        """Return the files that were put aside, oldest first."""
        found = self.path.parent.glob(f"{self.path.name}.*")
        numbered = [part for part in found if part.suffix[1:].isdigit() and part.stem == self.path.name]
        return sorted(numbered, key=lambda part: int(part.suffix[1:]))


def _end_of(path: Path) -> tuple[Link | None, list[dict[str, object]], bool]:
    """Return the last record's link, the lines after it that are none, and whether the file ends with a line's end.

    Raises:
        AuditUnusable: what stands at the end was not cut short by a crash: a record is one write with its line's end
            last, so of what is cut short the end is missing.
    """
    torn: list[bytes] = []
    head: Link | None = None
    lines = _last_lines(path)
    for line in reversed(lines):
        try:
            head = read_line(line if line.endswith(b"\n") else line + b"\n").link
        except LineBroken as error:
            if error.is_json:
                raise _not_a_log(path) from error
            torn.insert(0, line)
        else:
            break
    ends_a_line = not lines or lines[-1].endswith(b"\n")
    is_beyond_reach = head is None and path.stat().st_size > sum(map(len, lines))
    if is_beyond_reach or (torn and ends_a_line) or not _may_be_torn(torn):
        raise _not_a_log(path)
    return head, [torn_entry(line) for line in torn], ends_a_line


def _may_be_torn(lines: list[bytes]) -> bool:
    return all(may_be_torn(line, is_first=number == 0) for number, line in enumerate(lines))


def _last_lines(path: Path) -> list[bytes]:
    """Return the lines at a file's end that are whole within the last bytes; all of them where the file is small."""
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - _TAIL_BYTES))
        lines = io.BytesIO(stream.read()).readlines()
    return lines if size <= _TAIL_BYTES else lines[1:]


def _locked(path: Path) -> int:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise AuditUnusable(
            path.name, seen="a lock that another process holds", allowed="one server for a log"
        ) from None
    return lock


def _sync_folder(folder: Path) -> None:
    """Wait until the folder's names are on the disk."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _not_a_log(path: Path) -> AuditUnusable:
    allowed = "the last line a record; `m2ib-server audit verify` says more, and a log put aside lets a new one begin"
    return AuditUnusable(path.name, seen="an end that is no record and that no crash leaves", allowed=allowed)

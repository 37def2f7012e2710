"""Keeps what was read from files as new as they are; what cannot be read leaves what was there."""

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from m2ib_server.errors import ServiceError
from m2ib_server.telemetry import log_event

Content = TypeVar("Content")
Signature = tuple[tuple[int, int, int] | None, ...]


class Watched(Generic[Content]):
    """What some files hold together. May be asked from any thread."""

    def __init__(self, subject: str, paths: Sequence[Path], read: Callable[[], Content]) -> None:
        """Read the files now; `subject` is what the log calls them, `read` raises a ServiceError about a bad one.

        Raises:
            ServiceError: whatever `read` raises.
        """
        self._subject = subject
        self._paths = tuple(paths)
        self._read = read
        self._lock = threading.Lock()
        self._seen = _signature(self._paths)
        self._content = read()
        self.version = 0

    def current(self) -> Content:
        """Return the content, read again if a file is another than it was.

        A change that cannot be read is logged once and tried again with the next change.
        """
        with self._lock:
            seen = _signature(self._paths)
            if seen != self._seen:
                self._seen = seen
                self._reload()
            return self._content

    def _reload(self) -> None:
        try:
            self._content = self._read()
        except ServiceError as error:
            log_event(
                f"{self._subject} refused, the old stays",
                level=logging.ERROR,
                reason=error.reason,
                error_type=type(error.__cause__ or error).__name__,
            )
        else:
            self.version += 1
            log_event(f"{self._subject} read again")


def _signature(paths: Sequence[Path]) -> Signature:
    """Return what tells one state of the files from the next; a folder of links that is swapped does too."""
    return tuple(_stat(path) for path in paths)


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino

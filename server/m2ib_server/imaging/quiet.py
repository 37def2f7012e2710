"""Keeps in what the decoding libraries say: their warnings, log records and exceptions quote what they read.

Warning filters and loggers are the process's, not the thread's: they are switched when the first decoding
begins and switched back when the last one ends.
"""

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from PIL import Image

from m2ib_server.errors import ImageTooLarge, ServiceError

from .refusal import ENCODED, undecodable

_LIBRARIES = ("pydicom", "PIL", "pylibjpeg", "openjpeg", "rle", "jpeg_ls", "gdcm")
_WARNING_ORIGIN = rf"({'|'.join(_LIBRARIES)}|{__name__.rpartition('.')[0]})(\.|$)"


class _Hush:
    """The switches, and how many decodings are under way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._filter: tuple[object, ...] = ()
        self._propagating: list[logging.Logger] = []

    def enter(self) -> None:
        """Count one more decoding in."""
        with self._lock:
            self._depth += 1
            if self._depth == 1:
                self._switch_on()

    def leave(self) -> None:
        """Count one decoding out."""
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._switch_off()

    def _switch_on(self) -> None:
        # Records of `pydicom.x.y` still reach `pydicom`, and go no further.
        loggers = [logging.getLogger(name) for name in _LIBRARIES]
        self._propagating = [logger for logger in loggers if logger.propagate]
        for logger in self._propagating:
            logger.propagate = False
        warnings.filterwarnings("ignore", module=_WARNING_ORIGIN)
        self._filter = warnings.filters[0]

    def _switch_off(self) -> None:
        for logger in self._propagating:
            logger.propagate = True
        with suppress(ValueError):  # someone reset all filters meanwhile
            warnings.filters.remove(self._filter)  # type: ignore[attr-defined]


_HUSH = _Hush()


@contextmanager
def library_call(seen: str) -> Iterator[None]:
    """Run library code on a caller's bytes in silence; whatever it raises becomes ImageUndecodable(seen).

    The original exception is cut off (`from None`): its text quotes values. Our own faults pass unchanged.

    Raises:
        ImageUndecodable: the library raised.
        ImageTooLarge: Pillow's own limit, which lies above any sensible one of ours, was exceeded.
    """
    _HUSH.enter()
    try:
        yield
    except ServiceError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageTooLarge(ENCODED, seen="more pixels than Pillow takes", allowed="fewer pixels") from None
    except Exception:  # any type: the libraries raise struct.error, SyntaxError, RecursionError and more
        raise undecodable(seen) from None
    except BaseException as fault:
        if not _is_rust_panic(fault):
            raise
        raise undecodable(seen) from None
    finally:
        _HUSH.leave()


def _is_rust_panic(fault: BaseException) -> bool:
    """Tell a panic of a decoder written in Rust, whose type is not importable and is no Exception."""
    return type(fault).__module__ == "pyo3_runtime"

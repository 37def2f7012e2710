"""Silences libtiff, which Pillow decodes compressed TIFF with: it writes its errors onto standard error itself."""

import ctypes
from functools import cache
from pathlib import Path

from PIL import features

_MAPS = Path("/proc/self/maps")  # Linux alone tells there what a process has loaded


@cache
def silence() -> None:
    """Take the error handler away, for the whole process; a broken file is still told by Pillow's exception."""
    if not features.check("libtiff") or not _MAPS.exists():
        return
    mapped = {line.split()[-1] for line in _MAPS.read_text(encoding="utf-8").splitlines() if "/libtiff" in line}
    for path in mapped:
        handler = ctypes.CDLL(path).TIFFSetErrorHandler
        handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        handler(None)

"""Returns free pages of the C heap to the system: torch's tensors come from there, and it keeps what it once had."""

import ctypes


def trim_heap() -> None:
    """Return what is free, where the C library can do so (glibc); elsewhere nothing happens."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)

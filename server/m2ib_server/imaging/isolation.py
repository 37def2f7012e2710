"""Decodes JPEG Lossless in a process of its own, because its only free decoder can end the process it runs in."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from pydicom.uid import UID

from .greyscale import Stored
from .header import PixelLayout
from .refusal import undecodable

_PROGRAM = Path(__file__).with_name("gdcm_child.py")
_TIMEOUT_S = 60.0  # a 100-megapixel film takes a tenth of this


def decode_isolated(frame: bytes, layout: PixelLayout, syntax: UID) -> Stored:
    """Decode one frame to [rows, columns] or [rows, columns, samples], colour as stored.

    Raises:
        ImageUndecodable: the decoder failed, ended early or took longer than a minute.
    """
    command = [sys.executable, "-I", str(_PROGRAM), *_arguments(layout, syntax)]
    try:
        # The arguments are whole numbers and names from our own tables.
        child = subprocess.run(  # noqa: S603
            command, input=frame, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise undecodable("a compressed frame that takes too long to decode") from None
    sample_type = np.dtype(f"{'i' if layout.is_signed else 'u'}{layout.bits_allocated // 8}")
    shape = (layout.rows, layout.columns, *([layout.samples] if layout.samples > 1 else []))
    if child.returncode != 0 or len(child.stdout) != np.prod(shape) * sample_type.itemsize:
        raise undecodable("a compressed frame that is broken or truncated")
    return np.frombuffer(child.stdout, dtype=sample_type).reshape(shape)


def _arguments(layout: PixelLayout, syntax: UID) -> list[str]:
    numbers = (
        layout.columns,
        layout.rows,
        layout.samples,
        layout.bits_allocated,
        layout.bits_stored,
        int(layout.is_signed),
    )
    return [*map(str, numbers), layout.photometric, str(syntax)]

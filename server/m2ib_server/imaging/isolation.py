"""Decodes JPEG Lossless and JPEG-LS in a process of its own: their free decoders can end it, or take for ever."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from pydicom.uid import UID

from .greyscale import Stored
from .header import PixelLayout
from .refusal import undecodable

_PROGRAM = Path(__file__).with_name("gdcm_child.py")
_TIMEOUT_S = 20.0  # many times what the largest film takes
_END_OF_IMAGE = b"\xff\xd9"
_BROKEN = "a compressed frame that is broken or truncated"


def decode_isolated(frame: bytes, layout: PixelLayout, syntax: UID, *, precision: int) -> Stored:
    """Decode one frame to [rows, columns] or [rows, columns, samples], colour as stored.

    precision: the bits of a sample as the frame declares them.

    Raises:
        ImageUndecodable: the frame has no end, or the decoder failed, ended early or took too long.
    """
    if not frame.rstrip(b"\0").endswith(_END_OF_IMAGE):
        raise undecodable(_BROKEN)
    container_bits = 8 if precision <= 8 else 16
    samples = _run(frame, _arguments(layout, syntax, container_bits))
    sample_type = np.dtype(f"{'i' if layout.is_signed else 'u'}{container_bits // 8}")
    shape = (layout.rows, layout.columns, *([layout.samples] if layout.samples > 1 else []))
    if len(samples) != np.prod(shape) * sample_type.itemsize:
        raise undecodable(_BROKEN)
    spare_bits = max(0, container_bits - layout.bits_stored)
    stored = np.frombuffer(samples, dtype=sample_type).reshape(shape)
    extended: Stored = (stored << spare_bits) >> spare_bits  # extends the sign, where there is one
    return extended


def _run(frame: bytes, arguments: list[str]) -> bytes:
    command = [sys.executable, "-I", str(_PROGRAM), *arguments]
    try:
        # The arguments are whole numbers and names from our own tables.
        child = subprocess.run(  # noqa: S603
            command, input=frame, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise undecodable("a compressed frame that takes too long to decode") from None
    if child.returncode != 0:
        raise undecodable(_BROKEN)
    return child.stdout


def _arguments(layout: PixelLayout, syntax: UID, container_bits: int) -> list[str]:
    numbers = (
        layout.columns,
        layout.rows,
        layout.samples,
        container_bits,
        layout.bits_stored,
        int(layout.is_signed),
    )
    return [*map(str, numbers), layout.photometric, str(syntax)]

"""Reads the size that a compressed frame declares, to hold it against the header before anything is decoded.

Sources: ITU-T T.81 B.2 (JPEG), T.87 C.1 (JPEG-LS), T.800 A.4 and A.5.1 (JPEG 2000).
"""

import struct
from dataclasses import dataclass

_SOF_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # F7 is JPEG-LS; C4, C8 and CC start no frame
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_SCAN_MARKERS = {0xDA, 0xD9}
_J2K_START = b"\xff\x4f\xff\x51"
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  "


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameSize:
    """Pixels across, pixels down, components, and bits per component."""

    width: int
    height: int
    components: int
    precision: int


def declared_size(frame: bytes) -> FrameSize | None:
    """Read the size from the frame's first header; None if it is no JPEG, JPEG-LS or JPEG 2000 stream."""
    try:
        if frame.startswith(b"\xff\xd8"):
            return _jpeg_size(frame)
        return _jpeg_2000_size(frame)
    except struct.error:  # the frame ends within its header
        return None


def _jpeg_size(frame: bytes) -> FrameSize | None:
    at = 2
    while True:
        filler, marker = struct.unpack_from(">BB", frame, at)
        if filler != 0xFF or marker in _SCAN_MARKERS:
            return None
        if marker in _SOF_MARKERS:
            precision, height, width, components = struct.unpack_from(">BHHB", frame, at + 4)
            return FrameSize(width=width, height=height, components=components, precision=precision)
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _WITHOUT_LENGTH:
            at += 2
        else:
            at += 2 + struct.unpack_from(">H", frame, at + 2)[0]


def _jpeg_2000_size(frame: bytes) -> FrameSize | None:
    # A JP2 file wraps the code stream in boxes; DICOM asks for the bare stream, but both occur.
    start = frame.find(_J2K_START) if frame.startswith(_JP2_SIGNATURE) else 0
    if start < 0 or frame[start : start + 4] != _J2K_START:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
    components, depth = struct.unpack_from(">HB", frame, start + 40)
    precision = (depth & 0x7F) + 1  # the high bit is the sign
    return FrameSize(width=right - left, height=bottom - top, components=components, precision=precision)

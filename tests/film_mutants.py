"""A hypothesis strategy that breaks a DICOM object element by element: its value, its type, the length it claims."""

import struct
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from fakes.dicom_files import dicom_file
from fakes.image_files import NOISE

_LONG = frozenset({b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UN", b"UT", b"UC", b"UR", b"SV", b"UV"})
_VRS = [b"US", b"SS", b"UL", b"OB", b"OW", b"DS", b"IS", b"CS", b"SQ", b"UN", b"LO", b"FD", b"AT", b"??", b"\0\0"]
_VALUES = [
    *(b"", b"\0", b"\0\0", b"\xff\xff", b"\x01\x00", b"\xff\xff\xff\xff", b"\0" * 8),
    *(b"0", b"-1", b"1", b"NaN", b"inf", b"1e999", b"99999999999999", b"1\\2\\3\\4", b"\\" * 50, b"1.5.2", b" "),
    *(b"MONOCHROME1", b"MONOCHROME2", b"RGB", b"YBR_FULL_422", b"PALETTE COLOR", b"SIGMOID", b"INVERSE", b"Canary"),
    *(b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\xfe\xff\xdd\xe0\0\0\0\0", b"ISO_IR 192", b"9" * 3000),
]
# Those that decide how pixels are read and shown.
_ADDED = [
    *((0x0028, 0x0008), (0x0028, 0x0006), (0x0028, 0x0034), (0x0028, 0x0120), (0x0028, 0x0121), (0x0028, 0x1050)),
    *((0x0028, 0x1051), (0x0028, 0x1052), (0x0028, 0x1053), (0x0028, 0x1056), (0x0028, 0x3000), (0x0028, 0x3010)),
    *((0x0028, 0x1101), (0x0028, 0x1201), (0x2050, 0x0020), (0x7FE0, 0x0008), (0x5200, 0x9229), (0x0008, 0x0005)),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """An element as it stands in a file; `claimed` is the length that it says, its own unless it lies."""

    tag: tuple[int, int]
    vr: bytes
    value: bytes
    claimed: int | None = None

    def encode(self) -> bytes:
        length = len(self.value) if self.claimed is None else self.claimed
        head = struct.pack("<HH", *self.tag) + self.vr
        if self.vr in _LONG:
            return head + b"\0\0" + struct.pack("<I", length) + self.value
        return head + struct.pack("<H", length % 65536) + self.value


_PLAIN = dicom_file(NOISE[..., 0])
_WITH_WINDOW = dicom_file(
    NOISE[..., 0].astype(np.uint16), WindowCenter=128, WindowWidth=256, RescaleSlope=1, RescaleIntercept=0
)
_COLOUR = dicom_file(NOISE)


@st.composite
def films(draw: Any, *, most: int = 4) -> bytes:
    """A Part 10 file of which up to so many elements were changed, added, repeated, moved or left out."""
    preamble, elements = _dissected(draw(st.sampled_from([_PLAIN, _WITH_WINDOW, _COLOUR])))
    for _ in range(draw(st.integers(1, most))):
        _break(draw, elements)
    return preamble + b"".join(element.encode() for element in elements)


def _break(draw: Any, elements: list[Element]) -> None:
    place = draw(st.integers(0, len(elements) - 1))
    chosen = elements[place]
    value = draw(st.sampled_from(_VALUES) | st.binary(max_size=24))
    match draw(st.sampled_from(["value", "value", "add", "add", "type", "length", "drop", "repeat", "move"])):
        case "value":
            elements[place] = replace(chosen, value=value)
        case "add":
            tag = draw(st.sampled_from(_ADDED) | st.tuples(st.integers(0, 65535), st.integers(0, 65535)))
            elements.append(Element(tag=tag, vr=draw(st.sampled_from(_VRS)), value=value))
            elements.sort(key=lambda element: element.tag)
        case "type":
            elements[place] = replace(chosen, vr=draw(st.sampled_from(_VRS)))
        case "length":
            claims = st.sampled_from([0, 1, 3, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF])
            elements[place] = replace(chosen, claimed=draw(claims))
        case "drop" if len(elements) > 1:
            del elements[place]
        case "repeat":
            elements.insert(place, replace(chosen, value=value))
        case "move":
            elements.append(elements.pop(place))


def _dissected(encoded: bytes) -> tuple[bytes, list[Element]]:
    """Return what stands before the data set, and the data set's elements as bytes."""
    start = 144 + int.from_bytes(encoded[140:144], "little")  # the file's meta group says its own length first
    return encoded[:start], _split(encoded[start:])


def _split(body: bytes) -> list[Element]:
    elements, at = [], 0
    while at < len(body):
        tag, vr = struct.unpack_from("<HH", body, at), body[at + 4 : at + 6]
        if vr in _LONG:
            (length,), start = struct.unpack_from("<I", body, at + 8), at + 12
        else:
            (length,), start = struct.unpack_from("<H", body, at + 6), at + 8
        elements.append(Element(tag=tag, vr=vr, value=body[start : start + length]))
        at = start + length
    return elements

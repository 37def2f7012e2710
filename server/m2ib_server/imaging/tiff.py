"""Walks a TIFF's directories before Pillow and libtiff do, and refuses what would cost more than its image.

Both allocate and loop as the directories say, which no limit on an image's width and height bounds: a 16 x 16 image
may have one tile of gigabytes, a page a million strips, a file a million pages. Decodes nothing.

Sources: TIFF 6.0 sections 2 and 15, and the BigTIFF design of libtiff.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from m2ib_server.errors import ImageTooLarge, InvalidField

from .image import ImageLimits
from .quiet import library_call
from .refusal import ENCODED, FRAME, no_such_frame, undecodable

MOST_PAGES = 10_000  # Pillow looks each page up among all before it: 10,000 take a second, 40,000 take twenty
MOST_ENTRIES = 1 << 18  # over all pages; a page has some twenty
MOST_SEGMENTS = 1 << 20  # strips or tiles of a page; 40 megapixels of four planes in tiles of 16 x 16 are 625,000
_STRIP_OFFSETS, _TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS = 273, 322, 323, 324
_BIG = 43
_INTEGERS = {3: "H", 4: "I", 16: "Q"}  # SHORT, LONG, LONG8
_BROKEN = "a broken TIFF file"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """How directories are written: byte order, and the formats of their parts as `struct` names them."""

    order: str
    first: int
    count: str
    entry: str
    pointer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One field of a directory; `value` is its first bytes, or where they stand."""

    kind: int
    count: int
    value: bytes


def check_directories(encoded: bytes, frame: int, limits: ImageLimits) -> None:
    """Check the directories up to the one of `frame`, from 1.

    Raises:
        ImageTooLarge: a tile has more pixels than an image may have.
        ImageUndecodable: the directories are broken, or more or longer than those of any sensible file.
        InvalidField: there is no such frame, or it lies beyond the pages that are read.
    """
    with library_call(_BROKEN):
        entries, page, order = 0, 0, _layout(encoded).order
        for page, directory in enumerate(_directories(encoded), start=1):
            entries += len(directory)
            if entries > MOST_ENTRIES:
                raise undecodable("a TIFF file of too many fields", allowed=f"at most {MOST_ENTRIES} fields")
            _check_page(directory, order, limits)
            if page == frame:
                return
            if page == MOST_PAGES:
                raise InvalidField(FRAME, seen=str(frame), allowed=f"1 to {MOST_PAGES}")
        if page:  # a file without any page is for Pillow to refuse
            raise no_such_frame(frame, frames=page)


def _directories(encoded: bytes) -> Iterator[dict[int, _Entry]]:
    layout = _layout(encoded)
    (at,) = struct.unpack_from(layout.order + layout.pointer, encoded, layout.first)
    seen: set[int] = set()
    while at:
        if at in seen:
            raise undecodable("a TIFF file whose pages follow one another in a circle")
        seen.add(at)
        directory, at = _directory(encoded, at, layout)
        yield directory


def _layout(encoded: bytes) -> _Layout:
    order = "<" if encoded.startswith(b"II") else ">"
    if encoded[3] == _BIG:
        raise undecodable("a big-endian BigTIFF file")  # Pillow and libtiff do not agree on where it begins
    if encoded[2] == _BIG:
        return _Layout(order=order, first=8, count="Q", entry="HHQ8s", pointer="Q")
    return _Layout(order=order, first=4, count="H", entry="HHI4s", pointer="I")


def _directory(encoded: bytes, at: int, layout: _Layout) -> tuple[dict[int, _Entry], int]:
    """Read one directory and where the next one stands, 0 for none."""
    (count,) = struct.unpack_from(layout.order + layout.count, encoded, at)
    start, size = at + struct.calcsize(layout.order + layout.count), struct.calcsize(layout.order + layout.entry)
    if count > MOST_ENTRIES:
        raise undecodable("a TIFF file of too many fields", allowed=f"at most {MOST_ENTRIES} fields")
    directory: dict[int, _Entry] = {}
    for tag, kind, length, value in struct.iter_unpack(
        layout.order + layout.entry, encoded[start : start + count * size]
    ):
        if tag in directory:  # libtiff takes the first and Pillow may take the second
            raise undecodable("a TIFF directory that has a field twice")
        directory[tag] = _Entry(kind=kind, count=length, value=value)
    pointer = layout.order + layout.pointer
    end = start + count * size
    has_next = end + struct.calcsize(pointer) <= len(encoded)  # some writers leave out the last one
    return directory, struct.unpack_from(pointer, encoded, end)[0] if has_next else 0


def _check_page(directory: dict[int, _Entry], order: str, limits: ImageLimits) -> None:
    segments = max((directory[tag].count for tag in (_STRIP_OFFSETS, _TILE_OFFSETS) if tag in directory), default=0)
    if segments > MOST_SEGMENTS:
        raise undecodable(f"a page of {segments} strips or tiles", allowed=f"at most {MOST_SEGMENTS}")
    width, length = (_integer(directory.get(tag), order) for tag in (_TILE_WIDTH, _TILE_LENGTH))
    # A tile is padded to its full size, so it may well be larger than the image. Strips end with the image.
    if width * length > limits.max_pixels:
        seen = f"tiles of {width} x {length} pixels"
        raise ImageTooLarge(ENCODED, seen=seen, allowed=f"at most {limits.max_pixels} pixels")


def _integer(entry: _Entry | None, order: str) -> int:
    """Read one whole number; 0 where there is none."""
    if entry is None:
        return 0
    if entry.kind not in _INTEGERS or entry.count != 1:
        raise undecodable("tiles whose size is no whole number")
    number: int = struct.unpack_from(order + _INTEGERS[entry.kind], entry.value)[0]
    return number

"""Reads lookup tables and palettes from a DICOM header, PS3.3 C.11.1, C.11.2 and C.7.6.3.1.5.

Runs inside `library_call`: pydicom converts elements when they are read, and may raise anything.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from .greyscale import LookupTable
from .palette import expand_segments
from .refusal import undecodable


def read_tables(entries: Sequence[Dataset], ds: Dataset) -> tuple[LookupTable, ...]:
    """Read every table of the items of a ModalityLUTSequence or VOILUTSequence, in order.

    Raises:
        ImageUndecodable: a table is broken.
    """
    return tuple(_table(entry.LUTDescriptor, entry.LUTData, ds) for entry in entries)


def read_palette(ds: Dataset) -> tuple[LookupTable, LookupTable, LookupTable]:
    """Read the red, green and blue tables of PALETTE COLOR, plain or segmented.

    Raises:
        ImageUndecodable: a table is broken.
    """
    red, green, blue = (_palette_table(ds, colour) for colour in ("Red", "Green", "Blue"))
    return red, green, blue


def _palette_table(ds: Dataset, colour: str) -> LookupTable:
    descriptor = ds[f"{colour}PaletteColorLookupTableDescriptor"].value
    segmented = f"Segmented{colour}PaletteColorLookupTableData"
    if segmented not in ds:
        return _table(descriptor, ds[f"{colour}PaletteColorLookupTableData"].value, ds)
    count, first, bits = _described(descriptor)
    word_bytes = 1 if bits <= 8 else 2
    words = np.frombuffer(ds[segmented].value, dtype=_word_type(ds, word_bytes)).tolist()
    return LookupTable(first=first, entries=expand_segments(words, count, word_bytes=word_bytes), bits=bits)


def _table(descriptor: Any, lut_data: Any, ds: Dataset) -> LookupTable:
    count, first, bits = _described(descriptor)
    return LookupTable(first=first, entries=_entries(lut_data, count, ds), bits=bits)


def _described(descriptor: Any) -> tuple[int, int, int]:
    """Entries, first input, depth; 0 entries stand for 65536."""
    count, first, bits = (int(number) for number in descriptor)
    if not 1 <= bits <= 16:
        raise undecodable("a lookup table of unknown depth")
    return count % 65536 or 65536, first, bits


def _entries(lut_data: Any, count: int, ds: Dataset) -> NDArray[np.uint16]:
    if isinstance(lut_data, bytes):  # OW: 16-bit entries, or 8-bit ones two to a word
        word_bytes = 1 if len(lut_data) < 2 * count else 2
        entries = np.frombuffer(lut_data, dtype=_word_type(ds, word_bytes))
    else:
        entries = np.atleast_1d(np.asarray(lut_data, dtype=np.int64)) % 65536
    if len(entries) < count:
        raise undecodable("a lookup table that ends early")
    return entries[:count].astype(np.uint16)


def _word_type(ds: Dataset, word_bytes: int) -> str:
    """The type of one word of an OW value as numpy names it."""
    is_big_endian = ds.original_encoding[1] is False
    return f"{'>' if is_big_endian else '<'}u{word_bytes}"

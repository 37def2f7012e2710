"""Reads DICOM elements at a bounded cost: what pydicom spends grows with a header's elements, not with its bytes.

An empty item of 8 bytes costs pydicom 20 microseconds and 600 bytes of memory, a list of numbers as much for each
number. So reads are counted, only elements that rendering needs are kept, and long values are refused.
"""

import struct
from io import BytesIO

from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_sequence, read_sequence_item
from pydicom.tag import BaseTag
from pydicom.uid import UID, ExplicitVRBigEndian, ImplicitVRLittleEndian

from .refusal import undecodable

MOST_READS = 1 << 18  # pydicom takes some 5 microseconds each; 4,000 frames with functional groups of their own fit
MOST_SEQUENCE_READS = 1 << 15  # of one sequence that is read for one frame
MOST_VALUE_BYTES = 1 << 14  # of an element that is no table: a thousand windows
MOST_TABLE_BYTES = 1 << 18  # 65,536 entries of 16 bits are half of it

_SEQUENCES = (
    "ModalityLUTSequence",
    "PerFrameFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence",
    "VOILUTSequence",
)
_TABLES = tuple(
    f"{segmented}{colour}PaletteColorLookupTableData"
    for segmented in ("", "Segmented")
    for colour in ("Red", "Green", "Blue")
)
_VALUES = (
    "BitsAllocated",
    "BitsStored",
    "BluePaletteColorLookupTableDescriptor",
    "Columns",
    "GreenPaletteColorLookupTableDescriptor",
    "HighBit",
    "ImagerPixelSpacing",
    "Modality",
    "NumberOfFrames",
    "PhotometricInterpretation",
    "PixelAspectRatio",
    "PixelPaddingRangeLimit",
    "PixelPaddingValue",
    "PixelRepresentation",
    "PixelSpacing",
    "PlanarConfiguration",
    "PresentationLUTShape",
    "RedPaletteColorLookupTableDescriptor",
    "RescaleIntercept",
    "RescaleSlope",
    "Rows",
    "SamplesPerPixel",
    "VOILUTFunction",
    "WindowCenter",
    "WindowWidth",
)
HEADER = tuple(int(tag_for_keyword(keyword) or 0) for keyword in (*_SEQUENCES, *_TABLES, *_VALUES))
_LONGEST = {int(tag_for_keyword(keyword) or 0): MOST_VALUE_BYTES for keyword in (*_VALUES, "LUTDescriptor")} | {
    int(tag_for_keyword(keyword) or 0): MOST_TABLE_BYTES for keyword in (*_TABLES, "LUTData")
}
_CHARACTER_SETS = (b"\x08\x00\x05\x00", b"\x00\x08\x00\x05")
_ITEM, _UNDEFINED = (0xFFFE, 0xE000), 0xFFFFFFFF


class BoundedStream(BytesIO):
    """Bytes that may be read a number of times; pydicom reads once or more for each element and item."""

    def __init__(self, encoded: bytes, *, most_reads: int = MOST_READS) -> None:
        """Read `encoded`."""
        super().__init__(encoded)
        self._left = most_reads
        self._before = b""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read on.

        Raises:
            ImageUndecodable: once too often, or a list of character sets too long to be one.
        """
        self._left -= 1
        if self._left < 0:
            raise undecodable("a DICOM header of too many elements", allowed="fewer elements and items")
        # pydicom takes this one element apart at once, wherever it stands.
        if (size or 0) > MOST_VALUE_BYTES and self._before.startswith(_CHARACTER_SETS):
            raise undecodable("a DICOM element of a length that it cannot have")
        chunk = super().read(size)
        self._before = chunk[:4] if len(chunk) == 8 else self._before
        return chunk


def read_elements(stream: BytesIO, syntax: UID, *, wanted: tuple[int, ...], last_tag: int) -> Dataset:
    """Read elements up to and including `last_tag`, leaving the stream at the next one; keep the wanted ones.

    Raises:
        ImageUndecodable: one of them is longer than it can be.
    """

    def is_beyond(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        return int(tag) > last_tag

    is_implicit, is_little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    ds = read_dataset(stream, is_implicit, is_little, stop_when=is_beyond, specific_tags=list(wanted))
    return _of_sane_lengths(ds)


def read_items(ds: Dataset, keyword: str, *, index: int | None = None) -> list[Dataset]:
    """Read a sequence, or of a long one only the item at `index`, from 0; empty without one.

    Raises:
        ImageUndecodable: it is longer than one frame can need, or one of its elements is.
    """
    element = ds.get_item(keyword) if keyword in ds else None
    items = _raw_items(element, index) if isinstance(element, RawDataElement) else _converted_items(element, index)
    return [_of_sane_lengths(entry) for entry in items]


def _converted_items(element: DataElement | None, index: int | None) -> list[Dataset]:
    items = list(element.value or []) if element is not None else []
    return items if index is None else items[index : index + 1]


def _raw_items(element: RawDataElement, index: int | None) -> list[Dataset]:
    encoded, is_little = element.value or b"", element.is_little_endian
    is_implicit = element.is_implicit_VR or element.VR == "UN"  # PS3.5 6.2.2
    stream = BoundedStream(encoded, most_reads=MOST_SEQUENCE_READS)
    if index is None:
        return list(read_sequence(stream, is_implicit, is_little, len(encoded), "iso8859"))
    if index > MOST_READS:
        raise undecodable("a frame beyond those that are read", allowed=f"a frame up to {MOST_READS}")
    for _ in range(index):
        _skip_item(stream, encoded, "<" if is_little else ">", is_implicit=is_implicit)
    if stream.tell() >= len(encoded):
        return []
    chosen = read_sequence_item(stream, is_implicit, is_little, "iso8859")
    return [] if chosen is None else [chosen]


def _skip_item(stream: BytesIO, encoded: bytes, order: str, *, is_implicit: bool) -> None:
    at = stream.tell()
    if at >= len(encoded):
        return
    group, element, length = struct.unpack_from(f"{order}HHI", encoded, at)
    if (group, element) == _ITEM and length != _UNDEFINED:
        stream.seek(at + 8 + length)
    else:
        read_sequence_item(stream, is_implicit, order == "<", "iso8859")


def _of_sane_lengths(ds: Dataset) -> Dataset:
    for tag, element in ds._dict.items():
        longest = _LONGEST.get(int(tag))  # None: an element that is never converted
        if longest is not None and isinstance(element, RawDataElement) and len(element.value or b"") > longest:
            raise undecodable("a DICOM element of a length that it cannot have")
    return ds

"""Reads a DICOM object in two steps: file meta information and header, then the pixels. Decodes nothing.

Sources: PS3.10 chapter 7, PS3.5 annex A.
"""

import zlib
from dataclasses import dataclass

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from m2ib_server.errors import ImageTooLarge

from .elements import HEADER, BoundedStream, read_elements
from .image import ImageLimits
from .quiet import library_call
from .refusal import ENCODED, undecodable

_PREAMBLE_BYTES = 128
_PREFIX = b"DICM"
_META_WITHOUT_PREAMBLE = b"\x02\x00\x00\x00UL\x04\x00"  # FileMetaInformationGroupLength: UL, 4 bytes
_META_GROUP = 0x0002
_TRANSFER_SYNTAX = 0x00020010
_PIXEL_DATA = 0x7FE00010
_PIXEL_GROUP = 0x7FE00000
_BROKEN = "a broken DICOM object"


def is_dicom(encoded: bytes) -> bool:
    """Tell a DICOM Part 10 file by its prefix, or by file meta information that stands without a preamble."""
    has_prefix = encoded[_PREAMBLE_BYTES : _PREAMBLE_BYTES + len(_PREFIX)] == _PREFIX
    return has_prefix or encoded.startswith(_META_WITHOUT_PREAMBLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenObject:
    """A DICOM object read up to its pixels.

    ds: the elements before the pixels; stream: stands where the pixels begin.
    """

    ds: Dataset
    syntax: UID
    stream: BoundedStream

    def with_pixels(self) -> Dataset:
        """Read PixelData too and return the object as pydicom's decoders take it.

        Raises:
            ImageUndecodable: there is no PixelData, or it ends early.
        """
        with library_call(_BROKEN):
            pixels = read_elements(self.stream, self.syntax, wanted=(_PIXEL_DATA,), last_tag=_PIXEL_DATA)
            complete = Dataset({**self.ds._dict, **pixels._dict})
            complete.set_original_encoding(*pixels.original_encoding)
            complete.file_meta = FileMetaDataset()
            complete.file_meta.TransferSyntaxUID = self.syntax
        if _PIXEL_DATA not in complete:
            raise undecodable("a DICOM object without complete pixel data")
        return complete


def open_object(encoded: bytes, limits: ImageLimits) -> OpenObject:
    """Read file meta information and header.

    Raises:
        ImageUndecodable: broken, or without a transfer syntax.
        ImageTooLarge: a deflated data set that inflates beyond the limit on bytes.
    """
    stream = BoundedStream(encoded)
    if encoded[_PREAMBLE_BYTES : _PREAMBLE_BYTES + len(_PREFIX)] == _PREFIX:
        stream.seek(_PREAMBLE_BYTES + len(_PREFIX))
    with library_call(_BROKEN):
        meta = read_elements(
            stream, ExplicitVRLittleEndian, wanted=(_TRANSFER_SYNTAX,), last_tag=_META_GROUP << 16 | 0xFFFF
        )
        syntax = UID(meta.get("TransferSyntaxUID") or "")
    if not syntax:
        raise undecodable("a DICOM object without TransferSyntaxUID")
    if syntax == DeflatedExplicitVRLittleEndian:
        stream = _inflate(stream.read(), limits)
    with library_call(_BROKEN):
        ds = read_elements(stream, syntax, wanted=HEADER, last_tag=_PIXEL_GROUP)
    return OpenObject(ds=ds, syntax=syntax, stream=stream)


def _inflate(deflated: bytes, limits: ImageLimits) -> BoundedStream:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    with library_call(_BROKEN):
        inflated = inflater.decompress(deflated, limits.max_bytes + 1)
    if len(inflated) > limits.max_bytes:
        allowed = f"at most {limits.max_bytes} bytes"
        raise ImageTooLarge(ENCODED, seen="a deflated data set that inflates to more", allowed=allowed)
    return BoundedStream(inflated)

"""Reads a DICOM object in two steps: file meta information and header, then the pixels. Decodes nothing.

Sources: PS3.10 chapter 7, PS3.5 annex A.
"""

import zlib
from dataclasses import dataclass
from io import BytesIO

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from m2ib_server.errors import ImageTooLarge

from .image import ImageLimits
from .quiet import library_call
from .refusal import ENCODED, undecodable

_PREAMBLE_BYTES = 128
_PREFIX = b"DICM"
_META_WITHOUT_PREAMBLE = b"\x02\x00\x00\x00UL\x04\x00"  # FileMetaInformationGroupLength: UL, 4 bytes
_META_GROUP = 0x0002
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
    stream: BytesIO

    def with_pixels(self) -> Dataset:
        """Read PixelData too and return the object as pydicom's decoders take it.

        Raises:
            ImageUndecodable: there is no PixelData, or it ends early.
        """
        with library_call(_BROKEN):
            pixels = _read(self.stream, self.syntax, last_tag=_PIXEL_DATA)
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
    stream = BytesIO(encoded)
    if encoded[_PREAMBLE_BYTES : _PREAMBLE_BYTES + len(_PREFIX)] == _PREFIX:
        stream.seek(_PREAMBLE_BYTES + len(_PREFIX))
    with library_call(_BROKEN):
        meta = read_dataset(stream, False, True, stop_when=lambda tag, _vr, _length: tag.group != _META_GROUP)
        syntax = UID(meta.get("TransferSyntaxUID") or "")
    if not syntax:
        raise undecodable("a DICOM object without TransferSyntaxUID")
    if syntax == DeflatedExplicitVRLittleEndian:
        stream = _inflate(stream.read(), limits)
    with library_call(_BROKEN):
        ds = _read(stream, syntax, last_tag=_PIXEL_GROUP)
    return OpenObject(ds=ds, syntax=syntax, stream=stream)


def _read(stream: BytesIO, syntax: UID, *, last_tag: int) -> Dataset:
    """Read elements up to and including `last_tag`, leaving the stream at the next one."""

    def is_beyond(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        return int(tag) > last_tag

    is_implicit = syntax == ImplicitVRLittleEndian
    return read_dataset(stream, is_implicit, syntax != ExplicitVRBigEndian, stop_when=is_beyond)


def _inflate(deflated: bytes, limits: ImageLimits) -> BytesIO:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    with library_call(_BROKEN):
        inflated = inflater.decompress(deflated, limits.max_bytes + 1)
    if len(inflated) > limits.max_bytes:
        allowed = f"at most {limits.max_bytes} bytes"
        raise ImageTooLarge(ENCODED, seen="a deflated data set that inflates to more", allowed=allowed)
    return BytesIO(inflated)

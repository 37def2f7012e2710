"""Owns what of a DICOM object leaves this machine: the pixels and their description, by an allow-list.

Imports pydicom only when a DICOM object is at hand. Renders nothing: that is the server's, in one
implementation.
"""

import copy
import hashlib
import io
import sys
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

from m2ib_client._errors import InvalidRequestError, MissingPackageError

if TYPE_CHECKING:
    import pydicom
    from pydicom.uid import UID

RENDERING_KEYWORDS = frozenset(
    {
        # what it is
        "SOPClassUID",
        "Modality",
        # the pixels' layout, PS3.3 C.7.6.3
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "PlanarConfiguration",
        "NumberOfFrames",
        "Rows",
        "Columns",
        "PixelAspectRatio",
        "PixelSpacing",
        "ImagerPixelSpacing",
        "BitsAllocated",
        "BitsStored",
        "HighBit",
        "PixelRepresentation",
        "SmallestImagePixelValue",
        "LargestImagePixelValue",
        "PixelPaddingValue",
        "PixelPaddingRangeLimit",
        "ExtendedOffsetTable",
        "ExtendedOffsetTableLengths",
        # the grey scale, PS3.3 C.11.1, C.11.2, C.11.6
        "RescaleIntercept",
        "RescaleSlope",
        "RescaleType",
        "ModalityLUTSequence",
        "ModalityLUTType",
        "WindowCenter",
        "WindowWidth",
        "VOILUTFunction",
        "VOILUTSequence",
        "LUTDescriptor",
        "LUTData",
        "PresentationLUTShape",
        # colour, PS3.3 C.7.9
        "RedPaletteColorLookupTableDescriptor",
        "GreenPaletteColorLookupTableDescriptor",
        "BluePaletteColorLookupTableDescriptor",
        "RedPaletteColorLookupTableData",
        "GreenPaletteColorLookupTableData",
        "BluePaletteColorLookupTableData",
        "SegmentedRedPaletteColorLookupTableData",
        "SegmentedGreenPaletteColorLookupTableData",
        "SegmentedBluePaletteColorLookupTableData",
        # the same per frame, PS3.3 C.7.6.16
        "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence",
        "PixelMeasuresSequence",
        "PixelValueTransformationSequence",
        "FrameVOILUTSequence",
        # the pixels
        "PixelData",
        "FloatPixelData",
        "DoubleFloatPixelData",
    }
)
PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def is_dataset(image: object) -> bool:
    """Tell whether the caller holds a pydicom dataset, without importing pydicom for those who do not."""
    loaded = sys.modules.get("pydicom")
    return loaded is not None and isinstance(image, loaded.Dataset)


def strip_file(encoded: bytes) -> bytes:
    """Return the file with nothing but what rendering needs.

    Raises:
        InvalidRequestError: the file cannot be read.
        MissingPackageError: pydicom is not installed.
    """
    library = _import_pydicom()
    tags: list[int | str | tuple[int, int]] = sorted(RENDERING_KEYWORDS)
    try:
        dataset = library.dcmread(io.BytesIO(encoded), force=True, specific_tags=tags)
    except Exception:  # of many kinds on a broken file, and their texts may hold element values
        dataset = None
    return strip(dataset) if dataset is not None else _refuse("a DICOM file that cannot be read")


def strip(dataset: "pydicom.Dataset") -> bytes:
    """Return a DICOM file with nothing of the dataset but what rendering needs.

    Its SOP Instance UID is made from the pixels, so the same dataset always gives the same bytes.

    Raises:
        InvalidRequestError: the dataset has no transfer syntax, or cannot be written.
    """
    syntax = _transfer_syntax(dataset)
    try:
        written = _write(dataset, syntax)
    except Exception:  # as above
        written = None
    return written if written is not None else _refuse("a DICOM object that cannot be encoded")


def _write(dataset: "pydicom.Dataset", syntax: "UID") -> bytes:
    library = _import_pydicom()
    kept = _allowed(dataset)
    kept.SOPInstanceUID = _uid_of_pixels(dataset)
    kept.file_meta = library.dataset.FileMetaDataset()
    kept.file_meta.TransferSyntaxUID = syntax
    kept.file_meta.MediaStorageSOPClassUID = kept.get("SOPClassUID") or library.uid.SecondaryCaptureImageStorage
    kept.file_meta.MediaStorageSOPInstanceUID = kept.SOPInstanceUID
    buffer = io.BytesIO()
    library.dcmwrite(buffer, kept, enforce_file_format=True)
    return buffer.getvalue()


def _allowed(dataset: "pydicom.Dataset") -> "pydicom.Dataset":
    """Return a dataset of the allowed elements, within sequences too; what needs no look stays encoded."""
    library = _import_pydicom()
    kept: pydicom.Dataset = library.Dataset()
    for tag in filter(_is_allowed, dataset.keys()):
        if library.datadict.dictionary_VR(tag) == "SQ":
            kept.add_new(tag, "SQ", library.Sequence(_allowed(entry) for entry in dataset[tag].value))
        else:
            # A copy, as writing settles an element's ambiguous value representation in place.
            kept[tag] = copy.copy(dataset.get_item(tag))
    is_implicit, is_little_endian = dataset.original_encoding
    kept.set_original_encoding(is_implicit, is_little_endian, dataset.original_character_set)
    return kept


def _is_allowed(tag: "pydicom.tag.BaseTag") -> bool:
    return _import_pydicom().datadict.keyword_for_tag(tag) in RENDERING_KEYWORDS


def _uid_of_pixels(dataset: "pydicom.Dataset") -> "UID":
    """Return a UID of 128 bits of the pixels' digest, in the form that PS3.5 B.2 gives to UUIDs."""
    digest = hashlib.sha256()
    for keyword in PIXEL_KEYWORDS:
        element = dataset.get_item(keyword) if keyword in dataset else None
        digest.update(bytes(element.value) if element is not None and element.value is not None else b"")
    uid: UID = _import_pydicom().uid.UID(f"2.25.{int.from_bytes(digest.digest()[:16])}")
    return uid


def _transfer_syntax(dataset: "pydicom.Dataset") -> "UID":
    """Return the syntax that the file's header names, else the plain one that the dataset was read in."""
    uid = _import_pydicom().uid
    named = getattr(dataset, "file_meta", {}).get("TransferSyntaxUID")
    plain_syntaxes: dict[object, UID] = {
        (True, True): uid.ImplicitVRLittleEndian,
        (False, True): uid.ExplicitVRLittleEndian,
        (False, False): uid.ExplicitVRBigEndian,
    }
    syntax: UID | None = named or plain_syntaxes.get(dataset.original_encoding)
    return syntax if syntax is not None else _refuse("a DICOM dataset without a transfer syntax")


def _refuse(seen: str) -> NoReturn:
    raise InvalidRequestError.of(
        "image",
        seen=seen,
        allowed="a DICOM object with its file meta information",
        reason="IMAGE_UNDECODABLE",
    )


def _import_pydicom() -> ModuleType:
    try:
        import pydicom  # noqa: PLC0415 - an extra: loaded only where a DICOM object is at hand
    except ImportError:
        raise MissingPackageError(
            "a DICOM image is stripped of its identifiers before it is sent, which needs pydicom: "
            "pip install 'm2ib-client[dicom]'"
        ) from None
    return pydicom

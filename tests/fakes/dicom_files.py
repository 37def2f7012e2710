"""Builds DICOM objects for tests, every one with a patient who must never be seen again."""

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import UID, ComputedRadiographyImageStorage, ExplicitVRLittleEndian

CANARY = "Canary^Patient^1234"


def stored_file(name: str) -> bytes:
    """A file that pydicom or pydicom-data ships."""
    path = get_testdata_file(name, download=False)
    if path is None:
        raise FileNotFoundError(name)
    with open(path, "rb") as file:
        return file.read()


def dicom_file(pixels: NDArray[Any], *, syntax: UID = ExplicitVRLittleEndian, **elements: Any) -> bytes:
    """A Part 10 file of `pixels` [rows, columns], [frames, rows, columns] or [rows, columns, 3].

    elements: by keyword, over those that the pixels imply; None leaves one out.
    """
    ds = _image(pixels)
    for keyword, value in elements.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return write(ds, syntax)


def write(ds: Dataset, syntax: UID) -> bytes:
    """A Part 10 file of a data set."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    stream = BytesIO()
    ds.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def with_elements(encoded: bytes, **elements: Any) -> bytes:
    """The same file with other elements; None leaves one out."""
    ds = dcmread(BytesIO(encoded))
    for keyword, value in elements.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    stream = BytesIO()
    ds.save_as(stream)
    return stream.getvalue()


def with_codestream(encoded: bytes, frame: bytes) -> bytes:
    """The same file with one compressed frame in place of its frames."""
    return with_elements(encoded, PixelData=encapsulate([frame]), NumberOfFrames=1)


def lookup_table(entries: list[int], *, first: int, bits: int) -> Sequence:
    """A sequence with one lookup table of 16-bit entries."""
    table = Dataset()
    table.LUTDescriptor = [len(entries) % 65536, first, bits]
    table["LUTDescriptor"].VR = "US"
    table.LUTData = np.asarray(entries, dtype="<u2").tobytes()
    table["LUTData"].VR = "OW"
    return Sequence([table])


def _image(pixels: NDArray[Any]) -> Dataset:
    is_colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    frames = pixels.shape[0] if pixels.ndim == 3 and not is_colour else 1
    rows, columns = pixels.shape[:2] if is_colour else pixels.shape[-2:]
    bits = pixels.dtype.itemsize * 8
    ds = Dataset()
    ds.SOPClassUID = ComputedRadiographyImageStorage
    ds.SOPInstanceUID = UID("1.2.826.0.1.3680043.8.498.1")
    ds.PatientName = ds.PatientID = CANARY
    ds.Modality = "CR"
    ds.SamplesPerPixel = 3 if is_colour else 1
    ds.PhotometricInterpretation = "RGB" if is_colour else "MONOCHROME2"
    if is_colour:
        ds.PlanarConfiguration = 0
    if frames > 1:
        ds.NumberOfFrames = frames
    ds.Rows, ds.Columns = rows, columns
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit = bits - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes() + b"\0" * (pixels.nbytes % 2)
    ds["PixelData"].VR = "OB" if bits == 8 else "OW"
    return ds

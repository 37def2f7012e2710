"""Writes a phantom film as a digital X-ray DICOM object with a fictitious patient and identifiers."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID, uuid5

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from m2ib_export.demo.phantom import Film

UID_NAMESPACE = UUID("6f1c2c59-6a0e-5d0e-9a57-3b0c5f6e2d11")  # fixed: same film, same UIDs
DARKEST, BRIGHTEST = 250, 3850  # stored values of black and white
HIGHEST = 4095  # of 12 bits
DETECTOR_MM = 400.0  # the longer side of the detector
STUDY_DATE, STUDY_TIME = "20260105", "090000"


def phantom_uid(film: Film, part: str) -> UID:
    """A UID that depends on the film and the part named alone."""
    rows, columns = film.pixels.shape
    name = f"{film.seed}/{rows}x{columns}/{[finding.kind.value for finding in film.findings]}/{part}"
    return UID(f"2.25.{uuid5(UID_NAMESPACE, name).int}")


def phantom_dataset(film: Film, *, inverted: bool = False) -> FileDataset:
    """Build the object, Explicit VR Little Endian. inverted: MONOCHROME1, bones stored dark."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = phantom_uid(film, "monochrome1" if inverted else "monochrome2")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    add_patient_and_study(ds, film)
    add_series_and_equipment(ds, film)
    add_positioning(ds, film)
    add_pixels(ds, film, inverted=inverted)
    return ds


def write_dicom(path: Path, film: Film, *, inverted: bool = False) -> None:
    """Write the object as a DICOM file."""
    phantom_dataset(film, inverted=inverted).save_as(path, enforce_file_format=True)


def add_patient_and_study(ds: Dataset, film: Film) -> None:
    """Patient, General Study and SOP Common modules."""
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID
    ds.PatientName = "PHANTOM^DEMO"
    ds.PatientID = f"PHANTOM-{film.seed:06d}"
    ds.PatientBirthDate = ""
    ds.PatientSex = "O"
    ds.StudyInstanceUID = phantom_uid(film, "study")
    ds.StudyID = "1"
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = STUDY_DATE
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = STUDY_TIME
    ds.AccessionNumber = f"PH{film.seed:08d}"
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = "Procedural phantom chest"


def add_series_and_equipment(ds: Dataset, film: Film) -> None:
    """General Series, DX Series, General Equipment and DX Detector modules."""
    ds.Modality = "DX"
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.SeriesInstanceUID = phantom_uid(film, "series")
    ds.SeriesNumber = 1
    ds.InstanceNumber = 1
    ds.SeriesDescription = "Phantom PA"
    ds.Manufacturer = "Phantom generator"
    ds.ManufacturerModelName = "m2ib demo"
    ds.SoftwareVersions = "1.0.0"
    ds.InstitutionName = "Phantom Hospital"
    spacing = DETECTOR_MM / max(film.pixels.shape)
    ds.DetectorType = "DIRECT"
    ds.ImagerPixelSpacing = [spacing, spacing]
    ds.PixelSpacing = [spacing, spacing]


def add_positioning(ds: Dataset, film: Film) -> None:
    """DX Anatomy Imaged, DX Positioning and Acquisition Context modules: a frontal view of the chest."""
    chest = coded("51185008", "SCT", "Chest")
    ds.AnatomicRegionSequence = [chest]
    ds.BodyPartExamined = "CHEST"
    ds.ImageLaterality = "U"
    ds.ViewPosition = "PA"
    ds.PatientOrientation = ["L", "F"]
    view = coded("399348003", "SCT", "postero-anterior")
    view.ViewModifierCodeSequence = []
    ds.ViewCodeSequence = [view]
    ds.PositionerType = "NONE"
    ds.AcquisitionContextSequence = []


def coded(value: str, scheme: str, meaning: str) -> Dataset:
    """A code sequence item."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def stored_values(film: Film, *, inverted: bool) -> NDArray[np.uint16]:
    """The film's 12-bit stored values."""
    values = np.round(DARKEST + film.pixels * (BRIGHTEST - DARKEST)).astype(np.uint16)
    return HIGHEST - values if inverted else values


def add_pixels(ds: Dataset, film: Film, *, inverted: bool) -> None:
    """General Image, Image Pixel, DX Image and VOI LUT modules; the window spans black to white exactly."""
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    ds.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    ds.Rows, ds.Columns = film.pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelIntensityRelationship = "LOG"
    ds.PixelIntensityRelationshipSign = 1 if inverted else -1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    low = HIGHEST - BRIGHTEST if inverted else DARKEST
    ds.WindowWidth = BRIGHTEST - DARKEST + 1  # LINEAR: the window spans width - 1 values ...
    ds.WindowCenter = low + (BRIGHTEST - DARKEST) / 2 + 0.5  # ... about center - 0.5
    ds.LossyImageCompression = "00"
    ds.BurnedInAnnotation = "NO"
    ds.PixelData = stored_values(film, inverted=inverted).astype("<u2").tobytes()

"""DICOM phantoms: readable, windowed from black to white, and nobody's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.pixels import apply_voi_lut

from m2ib_export.demo.dicom import BRIGHTEST, DARKEST, phantom_dataset, write_dicom
from m2ib_export.demo.phantom import render_film

FILM = render_film(42, (160, 120))
TYPE_1_KEYWORDS = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "ImageType"),
    *("PresentationIntentType", "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelIntensityRelationship"),
    *("PixelIntensityRelationshipSign", "RescaleIntercept", "RescaleSlope", "RescaleType", "PresentationLUTShape"),
    *("LossyImageCompression", "BurnedInAnnotation", "ImagerPixelSpacing", "ImageLaterality", "PatientOrientation"),
    *("WindowCenter", "WindowWidth"),
)
TYPE_2_KEYWORDS = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber"),
    *("StudyID", "ReferringPhysicianName", "Manufacturer", "SeriesNumber", "InstanceNumber", "DetectorType"),
    *("AnatomicRegionSequence", "PositionerType", "AcquisitionContextSequence"),
)


def read_back(path: Path, *, inverted: bool) -> pydicom.Dataset:
    write_dicom(path, FILM, inverted=inverted)
    return pydicom.dcmread(path)


@pytest.mark.parametrize("inverted", [False, True], ids=["monochrome2", "monochrome1"])
def test_windowed_pixels_are_the_films(tmp_path: Path, inverted: bool) -> None:
    ds = read_back(tmp_path / "film.dcm", inverted=inverted)
    shown = apply_voi_lut(ds.pixel_array.astype(float), ds) / (2**ds.BitsStored - 1)
    if ds.PhotometricInterpretation == "MONOCHROME1":
        shown = 1 - shown
    assert ds.PhotometricInterpretation == ("MONOCHROME1" if inverted else "MONOCHROME2")
    assert np.abs(shown - FILM.pixels).max() < 1e-3


def test_stored_values_fit_twelve_bits(tmp_path: Path) -> None:
    ds = read_back(tmp_path / "film.dcm", inverted=False)
    assert (ds.BitsAllocated, ds.BitsStored, ds.HighBit) == (16, 12, 11)
    assert DARKEST <= ds.pixel_array.min() < ds.pixel_array.max() <= BRIGHTEST
    assert ds.pixel_array.shape == (160, 120)


def test_required_attributes_are_there(tmp_path: Path) -> None:
    ds = read_back(tmp_path / "film.dcm", inverted=False)
    assert [keyword for keyword in TYPE_1_KEYWORDS if ds.get(keyword) in (None, "", [])] == []
    assert [keyword for keyword in TYPE_2_KEYWORDS if keyword not in ds] == []


def test_identifiers_are_fictitious(tmp_path: Path) -> None:
    ds = read_back(tmp_path / "film.dcm", inverted=False)
    assert ds.PatientName == "PHANTOM^DEMO"
    assert ds.PatientID == "PHANTOM-000042"
    assert ds.PatientBirthDate == ""
    assert ds.BurnedInAnnotation == "NO"


def test_uids_are_valid_and_depend_on_the_film_alone() -> None:
    first, second, other = (phantom_dataset(film) for film in (FILM, FILM, render_film(43, (160, 120))))
    uids = [ds.StudyInstanceUID for ds in (first, second, other)]
    assert uids[0] == uids[1] != uids[2]
    assert all(uid.is_valid and uid.startswith("2.25.") for uid in uids)
    assert phantom_dataset(FILM, inverted=True).SOPInstanceUID != first.SOPInstanceUID


def run_demo(*arguments: str) -> str:
    command = [sys.executable, "-m", "m2ib_export.demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_command_writes_film_and_mask_and_names_the_finding(tmp_path: Path) -> None:
    film, mask = tmp_path / "film.dcm", tmp_path / "mask.png"
    said = run_demo(
        *("phantom", "--seed", "3", "--size", "96", "--finding", "nodule", "--out", str(film), "--mask-out", str(mask))
    )
    assert said.strip().endswith("nodule")
    assert pydicom.dcmread(film).Rows == 96
    assert 0 < np.asarray(Image.open(mask)).mean() < 20


def test_making_phantoms_needs_no_torch() -> None:
    check = "import sys, m2ib_export.demo.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False, timeout=60).returncode == 0

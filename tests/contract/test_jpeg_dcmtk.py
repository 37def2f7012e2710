"""JPEG Extended of 12 bits decodes to the stored values that dcmtk decodes it to; the test needs its programs."""

import shutil
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.uid import JPEGExtended12Bit

from fakes.dicom_files import dicom_file, stored_file, with_elements
from m2ib_server.imaging import ImageLimits
from m2ib_server.imaging.decoder import check_decoder, decode_frame
from m2ib_server.imaging.header import read_layout
from m2ib_server.imaging.part10 import open_object

LIMITS = ImageLimits(max_bytes=1 << 24, max_pixels=1 << 22)
STORED = ["JPEG-lossy.dcm", "JPGExtended.dcm"]
PROGRAMS = ("dcmcjpeg", "dcmdjpeg")


@pytest.fixture(autouse=True)
def dcmtk() -> None:
    for program in PROGRAMS:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian package dcmtk)")


def film(rows: int, columns: int) -> NDArray[np.uint16]:
    """Twelve bits of shape and noise."""
    y, x = np.mgrid[:rows, :columns]
    noise = np.random.default_rng(0).normal(0, 30, (rows, columns))
    return np.clip((np.sin(x / 17) * np.cos(y / 23) + 1) * 2047 + noise, 0, 4095).astype(np.uint16)


def compressed(folder: Path, *options: str, shape: tuple[int, int], **elements: Any) -> bytes:
    source, target = folder / "plain.dcm", folder / "compressed.dcm"
    source.write_bytes(dicom_file(film(*shape), BitsStored=12, HighBit=11, **elements))
    subprocess.run(["dcmcjpeg", "+ee", *options, source, target], check=True)  # noqa: S607 - wherever it is installed
    return target.read_bytes()


def ours(encoded: bytes) -> NDArray[Any]:
    opened = open_object(encoded, LIMITS)
    assert opened.syntax == JPEGExtended12Bit
    layout = read_layout(opened.ds)
    check_decoder(opened.syntax, layout)
    return decode_frame(opened, layout, 1)


def theirs(encoded: bytes, folder: Path) -> NDArray[Any]:
    source, target = folder / "source.dcm", folder / "decoded.dcm"
    source.write_bytes(encoded)
    subprocess.run(["dcmdjpeg", "-q", source, target], check=True)  # noqa: S607 - as above
    return dcmread(BytesIO(target.read_bytes())).pixel_array


def assert_same_values(encoded: bytes, folder: Path) -> None:
    one, other = ours(encoded), theirs(encoded, folder)
    assert one.shape == other.shape
    assert one.min() < one.max()
    assert np.abs(one.astype(int) - other.astype(int)).max() <= 1


@pytest.mark.parametrize("name", STORED)
def test_stored_files_decode_as_dcmtk_decodes_them(name: str, tmp_path: Path) -> None:
    assert_same_values(stored_file(name), tmp_path)


@pytest.mark.parametrize("shape", [(64, 64), (57, 131), (1, 9)], ids=str)
@pytest.mark.parametrize("options", [(), ("+q", "50"), ("+q", "100")], ids=str)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_films_decode_as_dcmtk_decodes_them(
    shape: tuple[int, int], options: tuple[str, ...], photometric: str, tmp_path: Path
) -> None:
    encoded = compressed(tmp_path, *options, shape=shape, PhotometricInterpretation=photometric)
    assert_same_values(encoded, tmp_path)


def test_signed_values_decode_as_dcmtk_decodes_them(tmp_path: Path) -> None:
    encoded = with_elements(compressed(tmp_path, shape=(57, 131)), PixelRepresentation=1)
    assert ours(encoded).min() < 0
    assert_same_values(encoded, tmp_path)

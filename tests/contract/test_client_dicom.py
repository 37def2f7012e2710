"""Checks that what the client strips from a DICOM object is nothing that the server's rendering needs."""

import ast
from pathlib import Path

import numpy as np
import pydicom
import pytest

import m2ib_server.imaging
from fakes.dicom_files import stored_file
from m2ib_client import _dicom
from m2ib_server.imaging import ImageLimits, render

LIMITS = ImageLimits(max_bytes=64 * 1024 * 1024, max_pixels=50_000_000)
# Words of the code that are keywords by accident, and the one that stands in the file meta information.
NO_ELEMENT_OF_THE_IMAGE = {"", "ImageFormat", "DataElement", "TransferSyntaxUID"}
FILES = [
    "CT_small.dcm",
    "MR_small_implicit.dcm",
    "image_dfl.dcm",
    "JPEG2000.dcm",
    "examples_palette.dcm",
    "SC_rgb_small_odd.dcm",
    "emri_small.dcm",
    "mlut_18.dcm",
    "vlut_04.dcm",
    "eCT_Supplemental.dcm",
]


def test_every_element_that_the_server_reads_is_on_the_clients_list() -> None:
    rooms = Path(m2ib_server.imaging.__file__).parent
    words = {
        node.value if isinstance(node, ast.Constant) else node.attr
        for file in rooms.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    }
    read = {word for word in words if pydicom.datadict.tag_for_keyword(word) is not None}
    assert {"Rows", "VOILUTSequence", "PixelPaddingValue"} <= read
    assert read - NO_ELEMENT_OF_THE_IMAGE <= _dicom.RENDERING_KEYWORDS


@pytest.mark.parametrize("name", FILES)
def test_stripped_file_renders_as_the_whole_one(name: str) -> None:
    whole = stored_file(name)
    stripped = _dicom.strip_file(whole)
    expected = render(whole, frame=None, window=None, limits=LIMITS)
    rendered = render(stripped, frame=None, window=None, limits=LIMITS)
    assert np.array_equal(rendered.pixels, expected.pixels)
    assert rendered.rendering == expected.rendering

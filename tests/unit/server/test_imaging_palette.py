"""Palettes, plain and segmented, expand to the colours they stand for and never beyond their descriptor."""

from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.pixels.processing import apply_color_lut

from fakes.dicom_files import dicom_file, stored_file
from m2ib_server.errors import ImageUndecodable
from m2ib_server.imaging import ImageLimits, render
from m2ib_server.imaging.palette import expand_segments

LIMITS = ImageLimits(max_bytes=1 << 24, max_pixels=1 << 22)


def test_discrete_and_linear_segments_expand() -> None:
    words = [0, 2, 10, 20, 1, 4, 60]
    assert expand_segments(words, 6, word_bytes=2).tolist() == [10, 20, 30, 40, 50, 60]


def test_an_indirect_segment_copies_earlier_segments() -> None:
    words = [0, 1, 5, 1, 2, 7, 2, 1, 6, 0]  # copies one segment from byte 6: the line
    assert expand_segments(words, 5, word_bytes=2).tolist() == [5, 6, 7, 7, 7]


def test_an_odd_number_of_bytes_may_be_padded() -> None:
    assert expand_segments([0, 1, 9, 0], 1, word_bytes=1).tolist() == [9]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        pytest.param([1, 3, 9], "starts with a line", id="line-first"),
        pytest.param([7, 1, 9], "unknown segment", id="unknown"),
        pytest.param([0, 1, 9], "another length", id="too-short"),
        pytest.param([0, 1, 9, 1, 60000, 5], "another length", id="too-long"),
        pytest.param([0, 1, 5, 2, 1, 6, 0], "unknown segment", id="copy-of-itself"),
    ],
)
def test_broken_segments_are_refused(words: list[int], reason: str) -> None:
    with pytest.raises(ImageUndecodable, match=reason):
        expand_segments(words, 4, word_bytes=2)


@pytest.mark.parametrize("name", ["gdcm-US-ALOKA-16.dcm", "gdcm-US-ALOKA-16_big.dcm"])
def test_a_segmented_palette_gives_the_colours_of_pydicom(name: str) -> None:
    ds = dcmread(str(get_testdata_file(name, download=False)))
    expected = apply_color_lut(ds.pixel_array, ds) / 257
    image = render(stored_file(name), limits=LIMITS)
    np.testing.assert_array_equal(image.pixels, np.rint(expected))


def test_a_palette_without_blue_is_refused() -> None:
    red: dict[str, Any] = {
        "RedPaletteColorLookupTableDescriptor": [2, 0, 8],
        "RedPaletteColorLookupTableData": b"\x01\x02",
    }
    encoded = dicom_file(np.zeros((2, 2), dtype=np.uint8), PhotometricInterpretation="PALETTE COLOR", **red)
    with pytest.raises(ImageUndecodable, match="broken header"):
        render(encoded, limits=LIMITS)


def test_a_palette_of_8_bits_is_left_alone() -> None:
    elements: dict[str, Any] = {}
    for colour, values in {"Red": (1, 2), "Green": (3, 4), "Blue": (5, 6)}.items():
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [2, 0, 8]
        elements[f"{colour}PaletteColorLookupTableData"] = bytes(values)
    stored = np.array([[0, 1]], dtype=np.uint8)
    image = render(dicom_file(stored, PhotometricInterpretation="PALETTE COLOR", **elements), limits=LIMITS)
    assert image.pixels.tolist() == [[[1, 3, 5], [2, 4, 6]]]

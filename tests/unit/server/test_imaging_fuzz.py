"""Whatever the bytes, an image comes out or an InvalidField does, and no text of it quotes the bytes."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fakes.dicom_files import dicom_file, lookup_table, stored_file
from m2ib_server.errors import InvalidField
from m2ib_server.imaging import ImageLimits, render

LIMITS = ImageLimits(max_bytes=1 << 20, max_pixels=1 << 20)
NOISE = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)


def picture(file_format: str, **options: Any) -> bytes:
    stream = BytesIO()
    Image.fromarray(NOISE).save(stream, format=file_format, **options)
    return stream.getvalue()


SEEDS: dict[str, Callable[[], bytes]] = {
    "png": lambda: picture("PNG"),
    "jpeg": lambda: picture("JPEG"),
    "tiff": lambda: picture("TIFF"),
    "tiff-lzw": lambda: picture("TIFF", compression="tiff_lzw"),
    "webp": lambda: picture("WEBP"),
    "dicom": lambda: dicom_file(
        NOISE[..., 0].astype(np.uint16), VOILUTSequence=lookup_table([1, 2, 3], first=0, bits=16)
    ),
    "dicom-rle": lambda: stored_file("MR_small_RLE.dcm"),
    "dicom-jpeg": lambda: stored_file("SC_rgb_jpeg_dcmtk.dcm"),
    "dicom-jpeg-ls": lambda: stored_file("MR_small_jpeg_ls_lossless.dcm"),
    "dicom-jpeg-2000": lambda: stored_file("MR_small_jp2klossless.dcm"),
    "dicom-deflated": lambda: stored_file("image_dfl.dcm"),
}


def check(encoded: bytes) -> None:
    try:
        image = render(encoded, limits=LIMITS)
    except InvalidField as refusal:
        assert refusal.field.startswith("image.")
    else:
        assert image.pixels.dtype == np.uint8
        assert image.height * image.width <= LIMITS.max_pixels


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=600))
def test_random_bytes_are_answered(encoded: bytes) -> None:
    check(encoded)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=600))
def test_random_bytes_behind_a_dicom_prefix_are_answered(tail: bytes) -> None:
    check(bytes(128) + b"DICM" + tail)


@pytest.mark.parametrize("name", SEEDS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=8), early=st.booleans()
)
def test_changed_bytes_are_answered(name: str, changes: list[tuple[float, int]], *, early: bool) -> None:
    encoded = bytearray(SEEDS[name]())
    reach = min(len(encoded), 900) if early else len(encoded)  # headers stand at the start
    for position, value in changes:
        encoded[int(position * reach)] = value
    check(bytes(encoded))


@pytest.mark.parametrize("name", SEEDS)
@settings(max_examples=15, deadline=None)
@given(kept=st.floats(0, 1))
def test_cut_files_are_answered(name: str, kept: float) -> None:
    encoded = SEEDS[name]()
    check(encoded[: int(len(encoded) * kept)])

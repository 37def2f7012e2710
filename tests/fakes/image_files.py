"""Small good files of every format that the server reads, for tests that break them."""

from collections.abc import Callable
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from fakes.dicom_files import dicom_file, lookup_table, stored_file

NOISE = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)


def picture(file_format: str, **options: Any) -> bytes:
    """24 x 24 pixels of coloured noise as a file of one of Pillow's formats."""
    stream = BytesIO()
    Image.fromarray(NOISE).save(stream, format=file_format, **options)
    return stream.getvalue()


def film() -> bytes:
    """An uncompressed DICOM object with a lookup table."""
    return dicom_file(NOISE[..., 0].astype(np.uint16), VOILUTSequence=lookup_table([1, 2, 3], first=0, bits=16))


SEEDS: dict[str, Callable[[], bytes]] = {
    "png": cache(lambda: picture("PNG")),
    "jpeg": cache(lambda: picture("JPEG")),
    "tiff": cache(lambda: picture("TIFF")),
    "tiff-lzw": cache(lambda: picture("TIFF", compression="tiff_lzw")),
    "webp": cache(lambda: picture("WEBP")),
    "dicom": cache(film),
    "dicom-rle": cache(lambda: stored_file("MR_small_RLE.dcm")),
    "dicom-jpeg": cache(lambda: stored_file("SC_rgb_jpeg_dcmtk.dcm")),
    "dicom-jpeg-ls": cache(lambda: stored_file("MR_small_jpeg_ls_lossless.dcm")),
    "dicom-jpeg-2000": cache(lambda: stored_file("MR_small_jp2klossless.dcm")),
    "dicom-deflated": cache(lambda: stored_file("image_dfl.dcm")),
}

"""Every transfer syntax that is read has one decoder, which is installed, and its frames say their size."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSLossless

from fakes.dicom_files import dicom_file, stored_file
from m2ib_server.imaging import ImageLimits, render
from m2ib_server.imaging.codestream import FrameSize, declared_size
from m2ib_server.imaging.decoder import ISOLATED, NATIVE, PLUGINS, is_isolated

LIMITS = ImageLimits(max_bytes=1 << 20, max_pixels=1 << 20)


@pytest.mark.parametrize("syntax", sorted(PLUGINS), ids=lambda uid: uid.name)
def test_the_decoder_of_a_compressed_syntax_is_installed(syntax: UID) -> None:
    assert PLUGINS[syntax] in get_decoder(syntax).available_plugins


@pytest.mark.parametrize("syntax", sorted(ISOLATED), ids=lambda uid: uid.name)
def test_gdcm_is_installed(syntax: UID) -> None:
    assert "gdcm" in get_decoder(syntax).available_plugins


def test_a_syntax_is_decoded_in_one_way() -> None:
    assert not NATIVE & ISOLATED
    assert not (NATIVE | ISOLATED) & set(PLUGINS)
    assert "gdcm" not in PLUGINS.values()  # it may end the process


def test_jpeg_extended_is_isolated_from_9_bits_on() -> None:
    assert [is_isolated(JPEGExtended12Bit, bits) for bits in (8, 9, 12)] == [False, True, True]
    assert not is_isolated(JPEGBaseline8Bit, 8)
    assert all(is_isolated(syntax, 8) for syntax in ISOLATED)


@pytest.mark.parametrize(("bits", "dtype"), [(8, "u1"), (10, "u2"), (12, "i2"), (16, "u2"), (16, "i2")])
def test_jpeg_ls_of_every_depth_and_sign_is_read(bits: int, dtype: str) -> None:
    low = -(2 ** (bits - 1)) if dtype.startswith("i") else 0
    pixels = np.linspace(low, low + 2**bits - 1, 63).astype(dtype).reshape(7, 9)
    options = {"BitsStored": bits, "HighBit": bits - 1, "WindowCenter": low + 2 ** (bits - 1), "WindowWidth": 2**bits}
    plain = dicom_file(pixels, **options)
    ds = dcmread(BytesIO(plain))
    ds.compress(JPEGLSLossless)
    compressed = BytesIO()
    ds.save_as(compressed)
    expected = render(plain, limits=LIMITS)
    np.testing.assert_array_equal(render(compressed.getvalue(), limits=LIMITS).pixels, expected.pixels)


@pytest.mark.parametrize(
    "name",
    [
        "SC_rgb_jpeg_dcmtk.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "JPGLosslessP14SV1_1s_1f_8b.dcm",
        "MR_small_jp2klossless.dcm",
        "US1_J2KR.dcm",
    ],
)
def test_a_frame_says_its_size(name: str) -> None:
    ds = dcmread(BytesIO(stored_file(name)))
    frame = get_frame(ds.PixelData, 0, number_of_frames=1)
    assert declared_size(frame) == FrameSize(
        width=ds.Columns, height=ds.Rows, components=ds.SamplesPerPixel, precision=ds.BitsStored
    )


def test_a_jp2_file_says_its_size() -> None:
    stream = BytesIO()
    Image.new("RGB", (31, 17)).save(stream, format="JPEG2000")
    assert declared_size(stream.getvalue()) == FrameSize(width=31, height=17, components=3, precision=8)


@pytest.mark.parametrize(
    "frame",
    [b"", b"\xff\xd8", b"\xff\xd8\xff\xda\x00\x02", b"\xff\xd8\xff\xe0\xff\xff", b"\xff\x4f\xff\x51\x00", b"plain"],
)
def test_what_is_no_code_stream_says_none(frame: bytes) -> None:
    assert declared_size(frame) is None

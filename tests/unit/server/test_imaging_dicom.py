"""DICOM objects are read whatever their envelope, encoding, layout and frame, or refused with a reason."""

import zlib
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import get_frame
from pydicom.filebase import DicomBytesIO
from pydicom.uid import (
    MPEG2MPML,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

from fakes.dicom_files import dicom_file, stored_file, with_codestream, with_elements
from m2ib_server.errors import ImageTooLarge, ImageUndecodable, InvalidField, TransferSyntaxUnsupported
from m2ib_server.imaging import ImageFormat, ImageLimits, RenderedImage, Window, WindowSource, render

LIMITS = ImageLimits(max_bytes=1 << 25, max_pixels=1 << 23)
RAMP = np.arange(64, dtype=np.uint16).reshape(8, 8) * 60


def rendered(encoded: bytes, *, frame: int | None = None, window: Window | None = None) -> RenderedImage:
    return render(encoded, limits=LIMITS, frame=frame, window=window)


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian], ids=lambda uid: uid.name
)
def test_every_native_encoding_renders_alike(syntax: UID) -> None:
    expected = rendered(dicom_file(RAMP, WindowCenter=1000, WindowWidth=3000))
    stored = RAMP.astype("<u2" if syntax.is_little_endian else ">u2").tobytes()
    encoded = dicom_file(RAMP, syntax=syntax, WindowCenter=1000, WindowWidth=3000, PixelData=stored)
    np.testing.assert_array_equal(rendered(encoded).pixels, expected.pixels)


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_implicit.dcm",
        "MR_small_bigendian.dcm",
    ],
)
def test_every_lossless_encoding_renders_alike(name: str) -> None:
    expected = rendered(stored_file("MR_small.dcm"))
    np.testing.assert_array_equal(rendered(stored_file(name)).pixels, expected.pixels)


@pytest.mark.parametrize("name", ["RG1", "693"])
def test_lossless_jpeg_2000_renders_as_its_original(name: str) -> None:
    expected = rendered(stored_file(f"{name}_UNCR.dcm"))
    np.testing.assert_array_equal(rendered(stored_file(f"{name}_J2KR.dcm")).pixels, expected.pixels)


def test_jpeg_2000_of_another_sign_than_its_header_is_read() -> None:
    image = rendered(stored_file("J2K_pixelrep_mismatch.dcm"))
    air, body = image.pixels[:40, :40], image.pixels[200:300, 200:300]
    assert air.max() == 0
    assert body.mean() > 50


def test_a_chest_film_shows_white_bones() -> None:
    film = rendered(stored_file("RG1_UNCR.dcm"))
    assert film.rendering.inverted
    assert film.rendering.window == Window(center=15000, width=30000)
    assert film.pixel_aspect == 1.0  # PixelSpacing 0\\0 says nothing
    spine, lung = film.pixels[300:400, 880:940], film.pixels[500:600, 500:560]
    assert spine.mean() > lung.mean() + 40


def test_an_object_without_a_preamble_is_read() -> None:
    encoded = dicom_file(RAMP)
    np.testing.assert_array_equal(rendered(encoded[132:]).pixels, rendered(encoded).pixels)
    assert rendered(encoded[132:]).rendering.format is ImageFormat.DICOM


@pytest.mark.parametrize("name", ["no_meta.dcm", "ExplVR_LitEndNoMeta.dcm", "meta_missing_tsyntax.dcm"])
def test_an_object_that_does_not_say_how_it_is_encoded_is_refused(name: str) -> None:
    with pytest.raises(ImageUndecodable):
        rendered(stored_file(name))


@pytest.mark.parametrize("name", ["test-SR.dcm", "waveform_ecg.dcm", "rtplan.dcm", "reportsi.dcm"])
def test_objects_that_are_no_image_are_refused(name: str) -> None:
    with pytest.raises(ImageUndecodable, match="no image"):
        rendered(stored_file(name))


@pytest.mark.parametrize("name", ["rtdose.dcm", "SC_rgb_32bit.dcm"])
def test_pixels_of_32_bits_are_refused(name: str) -> None:
    with pytest.raises(ImageUndecodable, match="without a rendering"):
        rendered(stored_file(name))


@pytest.mark.parametrize(
    "name", ["MR_truncated.dcm", "emri_small_jpeg_2k_lossless_too_short.dcm", "badVR.dcm", "rtplan_truncated.dcm"]
)
def test_broken_objects_are_refused(name: str) -> None:
    with pytest.raises(ImageUndecodable):
        rendered(stored_file(name))


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
        "JPGLosslessP14SV1_1s_1f_8b.dcm",
    ],
)
@pytest.mark.parametrize("kept", [0.5, 0.95])
@pytest.mark.filterwarnings("ignore")
def test_a_truncated_frame_is_never_shown_in_part(name: str, kept: float) -> None:
    encoded = stored_file(name)
    frame = get_frame(dcmread(DicomBytesIO(encoded)).PixelData, 0, number_of_frames=1)
    with pytest.raises(ImageUndecodable, match="truncated"):
        rendered(with_codestream(encoded, frame[: int(len(frame) * kept)]))


@pytest.mark.filterwarnings("ignore")
def test_a_malformed_lossless_frame_does_not_end_the_server() -> None:
    encoded = stored_file("JPGLosslessP14SV1_1s_1f_8b.dcm")
    frame = bytearray(get_frame(dcmread(DicomBytesIO(encoded)).PixelData, 0, number_of_frames=1))
    table = frame.index(b"\xff\xc4")
    frame[table + 5 : table + 21] = b"\xff" * 16  # a Huffman table that cannot be
    with pytest.raises(ImageUndecodable, match="compressed frame that is broken"):
        rendered(with_codestream(encoded, bytes(frame)))


def test_a_frame_larger_than_its_header_is_not_decoded() -> None:
    encoded = with_elements(stored_file("SC_rgb_jpeg_dcmtk.dcm"), Rows=10, Columns=10)
    with pytest.raises(ImageUndecodable, match="differs from its header in size"):
        rendered(encoded)


@pytest.mark.parametrize("name", ["JPGExtended.dcm", "JPEG-lossy.dcm"])
def test_12_bit_jpeg_is_read_and_refused_when_truncated(name: str) -> None:
    encoded = stored_file(name)
    assert rendered(encoded).pixels.max() > 200
    ds = dcmread(DicomBytesIO(encoded))
    frame = get_frame(ds.PixelData, 0, number_of_frames=1)
    with pytest.raises(ImageUndecodable, match="compressed frame that is broken"):
        rendered(with_codestream(encoded, frame[: len(frame) // 2]))


def test_12_bit_jpeg_in_colour_is_refused_by_its_name() -> None:
    encoded = with_elements(
        stored_file("JPEG-lossy.dcm"), SamplesPerPixel=3, PhotometricInterpretation="YBR_FULL", PlanarConfiguration=0
    )
    with pytest.raises(TransferSyntaxUnsupported, match=r"seen JPEG Extended \(Process 2 and 4\)"):
        rendered(encoded)


def test_video_is_refused_by_its_name() -> None:
    encoded = stored_file("SC_rgb_jpeg_dcmtk.dcm")
    ds = dcmread(DicomBytesIO(encoded))
    ds.file_meta.TransferSyntaxUID = MPEG2MPML
    stream = DicomBytesIO()
    ds.save_as(stream)
    with pytest.raises(TransferSyntaxUnsupported, match="seen MPEG2 Main Profile / Main Level"):
        rendered(stream.getvalue())


def test_a_transfer_syntax_that_is_not_registered_is_not_repeated() -> None:
    encoded = dicom_file(RAMP).replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.99999.9.9.9\0")
    with pytest.raises(TransferSyntaxUnsupported) as caught:
        rendered(encoded)
    assert "99999" not in str(caught.value)


def test_only_the_chosen_frame_is_rendered() -> None:
    frames = np.stack([np.full((6, 5), value, dtype=np.uint8) for value in (10, 20, 30)])
    encoded = dicom_file(frames)
    assert rendered(encoded).pixels.max() == 10
    assert rendered(encoded, frame=3).pixels.min() == 30
    assert rendered(encoded, frame=3).rendering.frame == 3
    with pytest.raises(InvalidField, match=r"image\.frame: seen 4; allowed: 1 to 3"):
        rendered(encoded, frame=4)


@pytest.mark.parametrize("name", ["emri_small_RLE.dcm", "emri_small_jpeg_ls_lossless.dcm", "emri_small_big_endian.dcm"])
def test_frames_of_an_enhanced_object_agree_between_encodings(name: str) -> None:
    for frame in (1, 5, 10):
        expected = rendered(stored_file("emri_small.dcm"), frame=frame)
        np.testing.assert_array_equal(rendered(stored_file(name), frame=frame).pixels, expected.pixels)


def test_later_frames_are_not_decoded() -> None:
    encoded = stored_file("examples_ybr_color.dcm")
    ds = dcmread(DicomBytesIO(encoded))
    last = get_frame(ds.PixelData, 29, number_of_frames=30)
    broken = encoded.replace(last[200:], bytes(len(last) - 200))
    np.testing.assert_array_equal(rendered(broken, frame=1).pixels, rendered(encoded, frame=1).pixels)
    with pytest.raises(ImageUndecodable):
        rendered(broken, frame=30)


def test_colour_keeps_its_planes() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(rendered(dicom_file(pixels)).pixels, pixels)
    planar = dicom_file(pixels, PlanarConfiguration=1, PixelData=pixels.transpose(2, 0, 1).tobytes() + b"\0")
    np.testing.assert_array_equal(rendered(planar).pixels, pixels)


def test_16_bit_colour_is_scaled_by_its_full_range() -> None:
    pixels = np.array([[[0, 32768, 65535]]], dtype=np.uint16)
    image = rendered(dicom_file(pixels))
    assert image.pixels.tolist() == [[[0, 128, 255]]]
    assert image.rendering.window_source is WindowSource.FULL_RANGE


def test_a_window_for_a_colour_image_is_refused() -> None:
    with pytest.raises(InvalidField, match=r"image\.window"):
        rendered(dicom_file(np.zeros((4, 4, 3), dtype=np.uint8)), window=Window(center=1, width=2))


@pytest.mark.parametrize(
    ("window", "field"),
    [
        (Window(center=float("nan"), width=10), "center"),
        (Window(center=0, width=0.5), "width"),
        (Window(center=0, width=float("inf")), "width"),
    ],
)
def test_a_window_that_cannot_be_is_refused(window: Window, field: str) -> None:
    with pytest.raises(InvalidField, match=rf"image\.window\.{field}"):
        rendered(dicom_file(RAMP), window=window)


@pytest.mark.parametrize("photometric", ["HSV", "CMYK", "YBR_PARTIAL_420"])
def test_unknown_kinds_of_colour_are_refused(photometric: str) -> None:
    encoded = dicom_file(np.zeros((4, 4, 3), dtype=np.uint8), PhotometricInterpretation=photometric)
    with pytest.raises(ImageUndecodable, match="without a rendering"):
        rendered(encoded)


def test_pixels_in_the_high_bits_are_refused() -> None:
    with pytest.raises(ImageUndecodable, match="low bits"):
        rendered(dicom_file(RAMP, BitsStored=12, HighBit=15))


def test_too_many_pixels_are_refused_before_decoding() -> None:
    encoded = dicom_file(RAMP, PixelData=b"")  # the pixels are missing, and not missed
    with pytest.raises(ImageTooLarge, match="8 x 8 pixels"):
        render(encoded, limits=ImageLimits(max_bytes=1 << 20, max_pixels=63))


def test_a_huge_film_is_refused_by_its_header() -> None:
    encoded = dicom_file(RAMP, Rows=60_000, Columns=60_000)
    with pytest.raises(ImageTooLarge, match="60000 x 60000"):
        rendered(encoded)


def test_a_deflated_bomb_is_not_inflated() -> None:
    plain = dicom_file(RAMP, syntax=DeflatedExplicitVRLittleEndian)
    meta_end = 132 + 12 + int.from_bytes(plain[140:144], "little")
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = plain[:meta_end] + deflater.compress(bytes(1 << 26)) + deflater.flush()
    assert len(bomb) < 1 << 17
    with pytest.raises(ImageTooLarge, match="inflates"):
        rendered(bomb)


@pytest.mark.parametrize(
    ("elements", "aspect"),
    [
        ({"PixelAspectRatio": [4, 3]}, 4 / 3),
        ({"PixelSpacing": [0.5, 0.25]}, 2.0),
        ({"ImagerPixelSpacing": [0.2, 0.201]}, 1.0),
        ({"PixelSpacing": [0, 0]}, 1.0),
        ({}, 1.0),
    ],
)
def test_the_shape_of_a_pixel_is_known(elements: dict[str, Any], aspect: float) -> None:
    assert rendered(dicom_file(RAMP, **elements)).pixel_aspect == pytest.approx(aspect)


def test_a_pixel_of_an_impossible_shape_is_refused() -> None:
    with pytest.raises(ImageUndecodable, match="impossible shape"):
        rendered(dicom_file(RAMP, PixelAspectRatio=[1000, 1]))


def test_one_pixel_is_an_image() -> None:
    assert rendered(dicom_file(np.array([[9]], dtype=np.uint8))).pixels.tolist() == [[9]]

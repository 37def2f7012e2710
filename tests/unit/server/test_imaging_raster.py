"""PNG, JPEG, TIFF and WebP become 8-bit grey or RGB, upright, or are refused."""

from collections.abc import Callable
from io import BytesIO
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from PIL import Image

from m2ib_server.errors import ImageEmpty, ImageTooLarge, ImageUndecodable, InvalidField
from m2ib_server.imaging import ImageFormat, ImageLimits, RenderedImage, Window, WindowSource, render

LIMITS = ImageLimits(max_bytes=1 << 22, max_pixels=1 << 20)
GREY = np.add.outer(np.arange(30), np.arange(40)).astype(np.uint8) * 3
RGB = np.stack([GREY, 255 - GREY, np.full_like(GREY, 7)], axis=-1)


def encode(image: Image.Image, file_format: str, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, format=file_format, **options)
    return stream.getvalue()


def rendered(encoded: bytes, **options: Any) -> RenderedImage:
    return render(encoded, limits=LIMITS, **options)


@pytest.mark.parametrize(
    ("file_format", "options", "found", "tolerance"),
    [
        ("PNG", {}, ImageFormat.PNG, 0),
        ("TIFF", {}, ImageFormat.TIFF, 0),
        ("TIFF", {"compression": "tiff_lzw"}, ImageFormat.TIFF, 0),
        ("WEBP", {"lossless": True}, ImageFormat.WEBP, 0),
        ("JPEG", {"quality": 95, "subsampling": 0}, ImageFormat.JPEG, 6),
    ],
)
def test_colour_survives_every_format(
    file_format: str, options: dict[str, Any], found: ImageFormat, tolerance: int
) -> None:
    image = rendered(encode(Image.fromarray(RGB), file_format, **options))
    assert image.rendering.format is found
    assert image.rendering.window_source is WindowSource.NONE
    assert np.abs(image.pixels.astype(int) - RGB).max() <= tolerance


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_8_bit_grey_stays_grey(file_format: str) -> None:
    image = rendered(encode(Image.fromarray(GREY), file_format))
    np.testing.assert_array_equal(image.pixels, GREY)
    assert (image.height, image.width) == (30, 40)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_by_its_full_range(file_format: str) -> None:
    deep = np.array([[0, 128, 257, 32768, 65535]], dtype=np.uint16)
    image = rendered(encode(Image.fromarray(deep), file_format))
    assert image.pixels.tolist() == [[0, 0, 1, 128, 255]]
    assert image.rendering.window_source is WindowSource.FULL_RANGE


def test_16_bit_tiff_where_white_is_zero_is_inverted() -> None:
    deep = np.array([[0, 65535]], dtype=np.uint16)
    image = rendered(encode(Image.fromarray(deep), "TIFF", tiffinfo={262: 0}))
    assert image.pixels.tolist() == [[255, 0]]


@pytest.mark.parametrize(
    "convert",
    [
        pytest.param(lambda image: image.convert("RGBA"), id="alpha"),
        pytest.param(lambda image: image.convert("P", palette=Image.Palette.ADAPTIVE, colors=256), id="palette"),
    ],
)
def test_alpha_and_palette_become_rgb(convert: Callable[[Image.Image], Image.Image]) -> None:
    flat = np.zeros((8, 8, 3), dtype=np.uint8) + np.array([10, 200, 30], dtype=np.uint8)
    image = rendered(encode(convert(Image.fromarray(flat)), "PNG"))
    np.testing.assert_array_equal(image.pixels, flat)


def test_transparent_pixels_keep_their_colour() -> None:
    clear = np.zeros((4, 4, 4), dtype=np.uint8)
    clear[..., 0] = 90
    assert rendered(encode(Image.fromarray(clear), "PNG")).pixels[0, 0].tolist() == [90, 0, 0]
    palette = Image.fromarray(GREY).convert("P")
    transparent = encode(palette, "PNG", transparency=bytes(range(256)))
    np.testing.assert_array_equal(rendered(transparent).pixels[..., 0], GREY)


def test_one_bit_becomes_black_and_white() -> None:
    bits = Image.fromarray(np.array([[0, 255], [255, 0]], dtype=np.uint8)).convert("1")
    assert rendered(encode(bits, "PNG")).pixels.tolist() == [[0, 255], [255, 0]]


def test_cmyk_becomes_rgb() -> None:
    white = Image.new("CMYK", (8, 8), (0, 0, 0, 0))
    assert rendered(encode(white, "JPEG")).pixels.min() >= 250


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_without_a_known_range_are_refused(dtype: type) -> None:
    with pytest.raises(ImageUndecodable, match="without a known range"):
        rendered(encode(Image.fromarray(GREY.astype(dtype)), "TIFF"))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int, file_format: str) -> None:
    upright = np.zeros((48, 32), dtype=np.uint8)
    upright[:16, :16] = 255  # marks the corner that is top left once displayed
    # What a camera stores so that the orientation brings it back.
    undo = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(undo[orientation])
    image = rendered(encode(Image.fromarray(stored).convert("RGB"), file_format, exif=exif))
    assert (image.height, image.width) == (48, 32)
    is_bright = image.pixels[..., 0] > 128
    np.testing.assert_array_equal(is_bright, upright > 128)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
def test_the_chosen_frame_is_rendered(file_format: str) -> None:
    shades = (10, 120, 240)
    frames = [Image.new("RGB", (16, 16), (shade, shade, shade)) for shade in shades]
    encoded = encode(frames[0], file_format, save_all=True, append_images=frames[1:], lossless=True)
    assert rendered(encoded).rendering.frame == 1
    for number, shade in enumerate(shades, start=1):
        image = rendered(encoded, frame=number)
        assert image.rendering.frame == number
        assert abs(int(image.pixels.mean()) - shade) <= 1
    with pytest.raises(InvalidField, match=r"image\.frame: seen 4; allowed: 1 to 3$"):
        rendered(encoded, frame=4)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("frame", [2, 4, 2**32 - 1])
def test_a_frame_beyond_the_last_is_the_frames_fault_however_large_the_image(file_format: str, frame: int) -> None:
    encoded = encode(Image.new("RGB", (400, 300)), file_format)
    with pytest.raises(InvalidField, match=rf"image\.frame: seen {frame}; allowed: 1 to 1$"):
        render(encoded, limits=ImageLimits(max_bytes=1 << 20, max_pixels=120_000), frame=frame)


def test_frame_zero_is_refused() -> None:
    with pytest.raises(InvalidField, match=r"image\.frame: seen 0"):
        rendered(encode(Image.fromarray(GREY), "PNG"), frame=0)


def test_an_animation_is_limited_by_all_frames_up_to_the_chosen_one() -> None:
    frames = [Image.new("L", (100, 100), shade) for shade in (10, 120, 240)]
    encoded = encode(frames[0], "PNG", save_all=True, append_images=frames[1:])
    limits = ImageLimits(max_bytes=1 << 20, max_pixels=20_000)
    assert render(encoded, limits=limits, frame=2).rendering.frame == 2
    with pytest.raises(ImageTooLarge, match="3 frames"):
        render(encoded, limits=limits, frame=3)


@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
    ],
)
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.8])
def test_truncated_files_are_refused(file_format: str, options: dict[str, Any], kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    encoded = encode(Image.fromarray(noise), file_format, **options)
    with pytest.raises(ImageUndecodable):
        rendered(encoded[: int(len(encoded) * kept)])


def test_one_pixel_is_an_image() -> None:
    assert rendered(encode(Image.new("L", (1, 1), 77), "PNG")).pixels.tolist() == [[77]]


@pytest.mark.parametrize("file_format", ["GIF", "BMP", "PPM", "ICO"])
def test_other_formats_are_refused(file_format: str) -> None:
    with pytest.raises(ImageUndecodable, match="PNG, JPEG, TIFF, WebP or DICOM"):
        rendered(encode(Image.fromarray(RGB), file_format))


def test_no_bytes_are_refused() -> None:
    with pytest.raises(ImageEmpty):
        rendered(b"")


def test_too_many_bytes_are_refused() -> None:
    with pytest.raises(ImageTooLarge, match="seen 11 bytes; allowed: at most 10 bytes"):
        render(b"x" * 11, limits=ImageLimits(max_bytes=10, max_pixels=1))


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_too_many_pixels_are_refused(file_format: str) -> None:
    encoded = encode(Image.new("RGB", (200, 100)), file_format)
    with pytest.raises(ImageTooLarge, match="200 x 100 pixels"):
        render(encoded, limits=ImageLimits(max_bytes=1 << 20, max_pixels=19_999))


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_pixels_are_counted_before_anything_is_decoded(file_format: str) -> None:
    encoded = encode(Image.new("RGB", (200, 100)), file_format)
    without_pixels = encoded[: len(encoded) * 3 // 4]
    with pytest.raises(ImageTooLarge):
        render(without_pixels, limits=ImageLimits(max_bytes=1 << 20, max_pixels=19_999))


def test_a_decompression_bomb_is_too_large() -> None:
    bomb = bytearray(encode(Image.new("1", (8, 8)), "PNG"))
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    bomb[29:33] = _crc(bytes(bomb[12:29]))
    with pytest.raises(ImageTooLarge):
        rendered(bytes(bomb))


def test_a_window_applies_to_dicom_only() -> None:
    with pytest.raises(InvalidField, match=r"image\.window"):
        rendered(encode(Image.fromarray(GREY), "PNG"), window=Window(center=50, width=100))


def _crc(chunk: bytes) -> bytes:
    return crc32(chunk).to_bytes(4, "big")

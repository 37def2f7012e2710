"""Decodes PNG, JPEG, TIFF and WebP with Pillow: one frame, upright, 8-bit grey or RGB. Alpha is dropped."""

from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin

from . import libtiff
from .image import Grey, ImageFormat, ImageLimits, Pixels, RenderedImage, Rendering, WindowSource
from .quiet import library_call
from .refusal import check_pixels, no_such_frame, undecodable
from .tiff import check_directories

_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP")
_FORMAT_FOUND = {
    "PNG": ImageFormat.PNG,
    "JPEG": ImageFormat.JPEG,
    "MPO": ImageFormat.JPEG,  # several JPEG images in one file; Pillow's JPEG reader opens it under this name
    "TIFF": ImageFormat.TIFF,
    "WEBP": ImageFormat.WEBP,
}
_BUILT_ON_PREDECESSORS = {ImageFormat.PNG, ImageFormat.WEBP}
_GREY = {"1", "L", "LA"}
_COLOUR = {"P", "PA", "RGB", "RGBX", "RGBA", "CMYK", "YCbCr"}
_DEEP_GREY = {"I;16", "I;16L", "I;16B", "I;16N"}
_ALLOWED_PIXELS = "1-, 8- or 16-bit unsigned grey, palette, RGB, RGBA, YCbCr or CMYK"
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


def render_raster(encoded: bytes, *, frame: int, limits: ImageLimits) -> RenderedImage:
    """Decode one frame, from 1.

    16-bit grey is scaled by its full range: 65535 (4095 where a TIFF has 12 bits) becomes 255.

    Raises:
        ImageUndecodable: no such file, a broken one, or a kind of pixel without a known range.
        ImageTooLarge: the header tells of too many pixels.
        InvalidField: no such frame.
    """
    if encoded.startswith((b"II", b"MM")):
        libtiff.silence()
        check_directories(encoded, frame, limits)
    with library_call("bytes that cannot be opened"):
        image = Image.open(BytesIO(encoded), formats=_FORMATS)
    with image:
        found = _FORMAT_FOUND[str(image.format)]
        _choose_frame(image, found, frame, limits)
        white, is_inverted = _deep_range(image)
        with library_call(f"a broken or truncated {found.value} file"):
            upright = ImageOps.exif_transpose(image)
            upright.load()
        return _rendered(upright, found, frame, white=white, is_inverted=is_inverted)


def _choose_frame(image: Image.Image, found: ImageFormat, frame: int, limits: ImageLimits) -> None:
    frames = None if found is ImageFormat.TIFF else getattr(image, "n_frames", 1)  # a TIFF's pages are counted before
    if frames is not None and frame > frames:
        raise no_such_frame(frame, frames=frames)
    check_pixels(image.width, image.height, limits, frames=frame if found in _BUILT_ON_PREDECESSORS else 1)
    with library_call(f"a broken {found.value} file"):
        try:
            image.seek(frame - 1)
        except EOFError:  # an animation that ends before its header says
            raise no_such_frame(frame) from None
    check_pixels(image.width, image.height, limits)  # pages of a TIFF differ in size


def _deep_range(image: Image.Image) -> tuple[int, bool]:
    """White's value in 16-bit grey, and whether 0 is white; Pillow leaves both to the reader of a TIFF."""
    if image.mode not in _DEEP_GREY or not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 65535, False
    bits = image.tag_v2.get(_BITS_PER_SAMPLE, (16,))[0]
    return int(2**bits) - 1, image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO


def _rendered(image: Image.Image, found: ImageFormat, frame: int, *, white: int, is_inverted: bool) -> RenderedImage:
    source = WindowSource.NONE
    if image.mode in _DEEP_GREY:
        source, pixels = WindowSource.FULL_RANGE, _full_range(image, white, is_inverted=is_inverted)
    else:
        pixels = _eight_bit(image)
    return RenderedImage(pixels=pixels, rendering=Rendering(format=found, frame=frame, window_source=source))


def _eight_bit(image: Image.Image) -> Pixels:
    mode = "L" if image.mode in _GREY else "RGB" if image.mode in _COLOUR else None
    if mode is None:
        raise undecodable("a kind of pixel without a known range", allowed=_ALLOWED_PIXELS)
    with library_call("pixels that cannot be converted"):
        return np.array(image.convert(mode), dtype=np.uint8)


def _full_range(image: Image.Image, white: int, *, is_inverted: bool) -> Grey:
    table = np.rint(np.minimum(np.arange(65536) / white, 1) * 255).astype(np.uint8)
    pixels: Grey = table[np.asarray(image, dtype=np.uint16)]
    return np.subtract(255, pixels, dtype=np.uint8) if is_inverted else pixels

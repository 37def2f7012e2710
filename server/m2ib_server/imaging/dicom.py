"""Renders one frame of a DICOM object as a viewer would. How grey is windowed stands in greyscale.py."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from m2ib_server.errors import InvalidField

from .decoder import check_decoder, decode_frame
from .greyscale import EIGHT_BITS, Stored, render_grey
from .header import PixelLayout, read_grey_scale, read_layout, read_pixel_aspect
from .image import ImageFormat, ImageLimits, Pixels, RenderedImage, Rendering, Window, WindowSource
from .part10 import open_object
from .quiet import library_call
from .refusal import WINDOW, check_pixels, no_such_frame, undecodable
from .tables import read_palette

_GREY = {"MONOCHROME1", "MONOCHROME2"}
_PALETTE = "PALETTE COLOR"
_COLOUR = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}
_BITS_ALLOCATED = {"grey": {1, 8, 16}, "colour": {8, 16}}
_ALLOWED_PIXELS = "grey of 1 to 16 bits, RGB or YBR colour of 8 or 16 bits, or PALETTE COLOR"
_BROKEN_HEADER = "a DICOM object with a broken header"


def render_dicom(encoded: bytes, *, frame: int, window: Window | None, limits: ImageLimits) -> RenderedImage:
    """Decode and render one frame, from 1; only that frame is decoded.

    The grey scale follows the first that there is: the request's window (LINEAR), VOILUTSequence, WindowCenter
    and WindowWidth, the values themselves where they are plain and have at most 8 bits, a fixed window for CT,
    the 0.5 and 99.5 percentiles. Pixels marked as padding are black and count in no statistics.

    Raises:
        ImageUndecodable: broken, truncated, no image, or a kind of pixel that has no rendering.
        ImageTooLarge: the header tells of too many pixels.
        TransferSyntaxUnsupported: no installed decoder reads the encoding.
        InvalidField: no such frame, or a window for an image without a grey scale.
    """
    opened = open_object(encoded, limits)
    with library_call(_BROKEN_HEADER):
        layout = read_layout(opened.ds)
    check_pixels(layout.columns, layout.rows, limits)
    if frame > layout.frames:
        raise no_such_frame(frame, frames=layout.frames)
    _check_kind(layout)
    check_decoder(opened.syntax, layout)
    if window is not None and layout.photometric not in _GREY:
        raise InvalidField(WINDOW, seen="a window for a colour image", allowed="a window for a grey image")
    with library_call(_BROKEN_HEADER):
        aspect = read_pixel_aspect(opened.ds, frame)
    stored = decode_frame(opened, layout, frame)
    pixels, rendering = _render(stored, opened.ds, layout, frame=frame, window=window)
    return RenderedImage(pixels=pixels, rendering=rendering, pixel_aspect=aspect)


def _check_kind(layout: PixelLayout) -> None:
    is_colour = layout.photometric in _COLOUR
    is_known = is_colour or layout.photometric in _GREY or layout.photometric == _PALETTE
    allowed_bits = _BITS_ALLOCATED["colour" if is_colour else "grey"]
    is_depth = layout.bits_allocated in allowed_bits and 1 <= layout.bits_stored <= layout.bits_allocated
    if not is_known or not is_depth or layout.samples != (3 if is_colour else 1):
        raise undecodable("a kind of DICOM pixel without a rendering", allowed=_ALLOWED_PIXELS)
    if layout.high_bit != layout.bits_stored - 1:
        raise undecodable("DICOM pixels that are not in the low bits", allowed="HighBit = BitsStored - 1")


def _render(
    stored: Stored, ds: Dataset, layout: PixelLayout, *, frame: int, window: Window | None
) -> tuple[Pixels, Rendering]:
    rendering = Rendering(format=ImageFormat.DICOM, frame=frame)
    if layout.photometric not in _GREY:
        pixels, source = _render_colour(stored, ds, layout)
        return pixels, replace(rendering, window_source=source)
    with library_call(_BROKEN_HEADER):
        scale = read_grey_scale(ds, layout, frame)
    grey = render_grey(stored, scale, window)
    shown = replace(rendering, window_source=grey.source, window=grey.window, inverted=scale.is_inverted)
    return grey.pixels, shown


def _render_colour(stored: Stored, ds: Dataset, layout: PixelLayout) -> tuple[Pixels, WindowSource]:
    if layout.photometric != _PALETTE:
        return _to_eight_bits(stored, layout.bits_stored)
    with library_call(_BROKEN_HEADER):
        red, green, blue = read_palette(ds)
        colours = np.stack([table.apply(stored) for table in (red, green, blue)], axis=-1)
    return _to_eight_bits(colours, red.depth)


def _to_eight_bits(colours: NDArray[np.integer], bits: int) -> tuple[Pixels, WindowSource]:
    if bits == EIGHT_BITS:
        return np.ascontiguousarray(colours, dtype=np.uint8), WindowSource.NONE
    white = (1 << bits) - 1
    scaled: Pixels = np.rint(np.clip(colours, 0, white) * (255 / white)).astype(np.uint8)
    return scaled, WindowSource.FULL_RANGE

"""Draws the map over the image it explains. Encodes PNG; computes no map."""

import zlib
from functools import cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .colour import STEPS, colour_table
from .image import Pixels, RenderedImage
from .maps import Map

_MOST_OPAQUE = 0.6  # the film stays visible under the highest value
_HATCH_DIM = 0.45
_HATCH_GREY = 128
_HATCHES_PER_SIDE = 48


def draw_overlay(image: RenderedImage, original_map: Map) -> bytes:
    """Draw a map [height, width], in [0, 1] or NaN, over the image of that size; NaN is hatched.

    Opacity grows with the value: where the map is 0 the image is untouched. Returns a PNG, RGB.

    Raises:
        ValueError: map and image differ in size.
    """
    if original_map.shape != (image.height, image.width):
        raise ValueError(f"a map {original_map.shape} over an image {(image.height, image.width)}")
    is_evaluated = ~np.isnan(original_map)
    step = np.rint(np.nan_to_num(original_map) * (STEPS - 1)).astype(np.uint16)
    channels = [
        table[step * 256 + film]  # [value, film] flattened
        for table, film in zip(_blend_tables(), _channels(image.pixels), strict=True)
    ]
    picture = np.stack(channels, axis=-1)
    if not is_evaluated.all():
        _hatch(picture, ~is_evaluated)
    return _png(picture)


def encode_rendering(image: RenderedImage) -> bytes:
    """Encode the image as it was rendered: a PNG, 8-bit grey or RGB."""
    return _png(image.pixels)


@cache
def _blend_tables() -> NDArray[np.uint8]:
    """For each colour channel, the blend of every value with every film level: uint8 [3, 256 * 256]."""
    opacity = (np.linspace(0, 1, STEPS) * _MOST_OPAQUE)[:, np.newaxis]  # [value, 1]
    film = np.arange(256)[np.newaxis, :]  # [1, film]
    colours = colour_table().T.astype(np.float64)[:, :, np.newaxis]  # [channel, value, 1]
    blends = film * (1 - opacity) + colours * opacity
    return np.rint(blends).astype(np.uint8).reshape(3, -1)


def _channels(pixels: Pixels) -> list[NDArray[np.uint8]]:
    return [pixels] * 3 if pixels.ndim == 2 else [pixels[..., channel] for channel in range(3)]


def _hatch(picture: NDArray[np.uint8], where: NDArray[np.bool_]) -> None:
    """Dim what was not evaluated and draw diagonals over it, in place."""
    rows, columns = where.shape
    period = max(4, min(rows, columns) // _HATCHES_PER_SIDE)
    diagonal = np.add.outer(np.arange(rows), np.arange(columns)) % period
    is_line = where & (diagonal < max(1, period // 6))
    picture[where] = (picture[where] * _HATCH_DIM).astype(np.uint8)
    picture[is_line] = _HATCH_GREY


def _png(pixels: Pixels) -> bytes:
    stream = BytesIO()
    # Run lengths alone: on films this is faster than zlib's fastest level, and smaller.
    Image.fromarray(pixels).save(stream, format="PNG", compress_type=zlib.Z_RLE)
    return stream.getvalue()

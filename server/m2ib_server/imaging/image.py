"""Owns the values that describe a rendered image and how it was rendered. Decodes nothing."""

from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]  # [rows, columns]
Pixels = NDArray[np.uint8]  # [rows, columns] grey or [rows, columns, 3] RGB


class ImageFormat(Enum):
    """What the bytes turned out to be; the values are those of the answer's provenance."""

    PNG = "png"
    JPEG = "jpeg"
    TIFF = "tiff"
    WEBP = "webp"
    DICOM = "dicom"
    TENSOR = "tensor"


class WindowSource(Enum):
    """Where the grey scale came from; the values are those of the answer's provenance."""

    NONE = "none"
    FULL_RANGE = "full range"
    REQUEST = "request window"
    VOI_LUT = "voi lut"
    WINDOW = "window"
    DEFAULT = "default window"
    PERCENTILES = "percentiles"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A window of interest, DICOM PS3.3 C.11.2.1.2, in units after the modality transformation."""

    center: float
    width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """The largest image the server takes; both limits are checked on the headers, before anything is decoded.

    max_bytes: of the encoded image, and of the data set of a deflated DICOM object once inflated.
    max_pixels: rows x columns of one frame; of an animation whose frames build on each other, all frames up to
        the chosen one. Pillow refuses more than 2 x `PIL.Image.MAX_IMAGE_PIXELS` (179 million) anyway.
    """

    max_bytes: int
    max_pixels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """How an image was rendered.

    frame: from 1.
    window: in force, None without one; with WindowSource.PERCENTILES its borders are the two percentiles.
    inverted: the grey scale was turned round, for MONOCHROME1 or PresentationLUTShape INVERSE.
    """

    format: ImageFormat
    frame: int = 1
    window_source: WindowSource = WindowSource.NONE
    window: Window | None = None
    inverted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RenderedImage:
    """An image as displayed: 8-bit, upright, read-only.

    pixels: uint8, [rows, columns] grey (0 is black) or [rows, columns, 3] RGB.
    pixel_aspect: height of a pixel over its width; 1 where the format does not say.
    """

    pixels: Pixels = field(repr=False)
    rendering: Rendering
    pixel_aspect: float = 1.0

    def __post_init__(self) -> None:
        """Freeze the pixels.

        Raises:
            ValueError: pixels have another shape or dtype.
        """
        is_image = self.pixels.ndim == 2 or self.pixels.shape[2:] == (3,)
        if not is_image or self.pixels.dtype != np.uint8 or self.pixels.size == 0:
            raise ValueError(f"no image: shape {self.pixels.shape}, dtype {self.pixels.dtype}")
        self.pixels.flags.writeable = False

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.pixels.shape[1])

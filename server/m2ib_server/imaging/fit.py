"""Brings an image to the model's input size and keeps the exact way back. The only place that resizes."""

from dataclasses import dataclass, field
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .affine import Affine
from .image import RenderedImage

PixelValues = NDArray[np.float32]  # [channels, size, size]
_MOST_RESIZED_PIXELS = 2**24


class Fit(Enum):
    """How an image that is not square becomes square."""

    LETTERBOX = auto()  # scaled to fit inside, centred, the rest black
    CENTRE_CROP = auto()  # the short side scaled to fit, the centre cut out, as CLIP does
    STRETCH = auto()  # both sides scaled to fit


class Resampling(Enum):
    """The antialiased filters that model packages name."""

    BICUBIC = "bicubic"
    BILINEAR = "bilinear"


_FILTER = {Resampling.BICUBIC: Image.Resampling.BICUBIC, Resampling.BILINEAR: Image.Resampling.BILINEAR}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInput:
    """What the model's vision encoder takes: pixel values [channels, size, size], (value / 255 - mean) / std.

    mean, std: one value per channel; there are 1 (grey) or 3 (RGB) channels.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resampling: Resampling

    def __post_init__(self) -> None:
        """Refuse a model input that cannot be filled.

        Raises:
            ValueError: the size is not positive, or mean and std are not 1 or 3 values with std > 0.
        """
        is_matched = len(self.mean) == len(self.std) and len(self.mean) in (1, 3)
        if self.size < 1 or not is_matched or min(self.std) <= 0:
            raise ValueError("a model input has a size >= 1 and, for 1 or 3 channels, a mean and a std > 0")

    @property
    def shape(self) -> tuple[int, int, int]:
        """[channels, size, size]."""
        return len(self.mean), self.size, self.size


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittedImage:
    """The model's input and where it came from.

    pixel_values: float32 [channels, size, size], contiguous.
    model_to_original: from model input pixels to the original's pixels.
    """

    pixel_values: PixelValues = field(repr=False)
    model_to_original: Affine


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placement:
    """The whole image resized to [height, width] with its first pixel at (left, top) of the model's input."""

    width: int
    height: int
    left: int
    top: int


def fit_image(image: RenderedImage, model_input: ModelInput, fit: Fit) -> FittedImage:
    """Resize, crop or pad, and normalise.

    Sides are rounded to whole pixels as CLIP's own processor rounds them, so each axis has a scale of its own
    and the way back is exact for those integers. Pixels that are not square are brought to their true shape.
    """
    size = model_input.size
    placement = _place(image.width, image.height * image.pixel_aspect, size, fit)
    canvas = _draw(_picture(image, model_input), placement, size, _FILTER[model_input.resampling])
    x, y = image.width / placement.width, image.height / placement.height
    return FittedImage(
        pixel_values=_normalise(canvas, model_input),
        model_to_original=Affine.scaling(x, y, x0=-placement.left * x, y0=-placement.top * y),
    )


def _place(width: float, height: float, size: int, fit: Fit) -> _Placement:
    short, long = min(width, height), max(width, height)
    if fit is Fit.STRETCH:
        return _Placement(width=size, height=size, left=0, top=0)
    if fit is Fit.CENTRE_CROP:
        resized = int(size * long / short)  # CLIP's processor cuts the fraction off
        new_width, new_height = (size, resized) if width <= height else (resized, size)
    else:
        new_width, new_height = (max(1, round(size * side / long)) for side in (width, height))
    # Floor of half the gap for a border; a negative gap is a cut, of which CLIP takes the floor too.
    left = -((new_width - size) // 2) if fit is Fit.CENTRE_CROP else (size - new_width) // 2
    top = -((new_height - size) // 2) if fit is Fit.CENTRE_CROP else (size - new_height) // 2
    return _Placement(width=new_width, height=new_height, left=left, top=top)


def _picture(image: RenderedImage, model_input: ModelInput) -> Image.Image:
    picture = Image.fromarray(image.pixels)
    return picture.convert("L") if len(model_input.mean) == 1 else picture


def _draw(picture: Image.Image, placement: _Placement, size: int, resampling: Image.Resampling) -> NDArray[np.uint8]:
    width, height = min(placement.width, size), min(placement.height, size)
    left, top = max(0, placement.left), max(0, placement.top)
    bands = len(picture.getbands())
    canvas = np.zeros((size, size) if bands == 1 else (size, size, bands), dtype=np.uint8)
    canvas[top : top + height, left : left + width] = _visible(picture, placement, (width, height), resampling)
    return canvas


def _visible(
    picture: Image.Image, placement: _Placement, visible: tuple[int, int], resampling: Image.Resampling
) -> NDArray[np.uint8]:
    """The part [height, width] of the resized image that the model sees."""
    width, height = visible
    left, top = max(0, -placement.left), max(0, -placement.top)
    if placement.width * placement.height <= _MOST_RESIZED_PIXELS:
        whole = np.asarray(picture.resize((placement.width, placement.height), resampling))
        return whole[top : top + height, left : left + width]
    # For the longest strips only: Pillow orders its two passes by size, so a part can differ from the whole.
    x, y = picture.width / placement.width, picture.height / placement.height
    right, bottom = min((left + width) * x, picture.width), min((top + height) * y, picture.height)
    return np.asarray(picture.resize(visible, resampling, box=(left * x, top * y, right, bottom)))


def _normalise(canvas: NDArray[np.uint8], model_input: ModelInput) -> PixelValues:
    channels_last = canvas if canvas.ndim == 3 else canvas[..., np.newaxis]
    value = channels_last.astype(np.float32) / np.float32(255)
    mean, std = np.array(model_input.mean, np.float32), np.array(model_input.std, np.float32)
    return np.ascontiguousarray(((value - mean) / std).transpose(2, 0, 1), dtype=np.float32)

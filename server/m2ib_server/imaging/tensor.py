"""Takes model input that a caller prepared: checks it and shows it as an image. Resizes nothing."""

import numpy as np
from numpy.typing import NDArray

from m2ib_server.errors import TensorInvalid

from .affine import Affine
from .fit import FittedImage, ModelInput, PixelValues
from .image import ImageFormat, RenderedImage, Rendering

_FIELD = "image.tensor"
# (value / 255 - mean) / std of the presets in use lies within +-3, and of inputs centred but not scaled within +-255.
# Beyond this no image is meant, and products of such values overflow.
LARGEST_VALUE = 1e4


def check_tensor(values: NDArray[np.float32], model_input: ModelInput) -> FittedImage:
    """Accept a tensor [channels, size, size] as model input; it is its own original.

    Raises:
        TensorInvalid: another shape, or a value that is not finite or of a magnitude that no image has.
    """
    seen, allowed = list(values.shape), list(model_input.shape)
    if seen != allowed:
        raise TensorInvalid(_FIELD, seen=f"shape {seen}", allowed=f"shape {allowed}")
    pixel_values = np.array(values, dtype=np.float32, order="C")  # a copy: what a message holds is read-only
    unusable = int(np.count_nonzero(~np.isfinite(pixel_values)))
    if unusable:
        raise TensorInvalid(_FIELD, seen=f"{unusable} values that are not finite", allowed="finite values")
    beyond = int(np.count_nonzero(np.abs(pixel_values) > LARGEST_VALUE))
    if beyond:
        bound = f"{LARGEST_VALUE:g}"
        raise TensorInvalid(
            _FIELD, seen=f"{beyond} values beyond +-{bound}", allowed=f"values of magnitude at most {bound}"
        )
    return FittedImage(pixel_values=pixel_values, model_to_original=Affine.scaling(1.0, 1.0))


def render_tensor(pixel_values: PixelValues, model_input: ModelInput) -> RenderedImage:
    """Show model input as an image by undoing the normalisation; what lies outside [0, 255] is clipped."""
    mean, std = np.array(model_input.mean, np.float32), np.array(model_input.std, np.float32)
    black, white = -mean / std, (1 - mean) / std
    shown = np.clip(pixel_values.transpose(1, 2, 0), black, white)  # before the product, which may overflow
    pixels = np.rint(np.clip((shown * std + mean) * 255, 0, 255)).astype(np.uint8)
    is_grey = pixels.shape[2] == 1
    return RenderedImage(pixels=pixels[..., 0] if is_grey else pixels, rendering=Rendering(format=ImageFormat.TENSOR))

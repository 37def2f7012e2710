"""Turns encoded images into model input and patch grids into pictures, registered to the original."""

from .affine import Affine
from .fit import Fit, FittedImage, ModelInput, Resampling, fit_image
from .image import ImageFormat, ImageLimits, RenderedImage, Rendering, Window, WindowSource
from .maps import grid_to_original, model_map, normalise, original_map
from .overlay import draw_overlay, encode_rendering
from .render import render
from .tensor import check_tensor, render_tensor

__all__ = [
    "Affine",
    "Fit",
    "FittedImage",
    "ImageFormat",
    "ImageLimits",
    "ModelInput",
    "RenderedImage",
    "Rendering",
    "Resampling",
    "Window",
    "WindowSource",
    "check_tensor",
    "draw_overlay",
    "encode_rendering",
    "fit_image",
    "grid_to_original",
    "model_map",
    "normalise",
    "original_map",
    "render",
    "render_tensor",
]

"""Computes the overlay's colour map: lightness rises evenly from dark violet over red to pale yellow.

Even steps of value are even steps of lightness, so their order survives colour blindness and printing.
Colour space: OKLab (Ottosson 2020).
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

STEPS = 256
_LIGHTNESS = (0.32, 0.95)
_HUE_DEGREES = (-60.0, 105.0)  # violet, through red and orange, to yellow
_CHROMA = 0.21
_LMS_FROM_LAB = np.array(
    [
        [1, 0.3963377774, 0.2158037573],
        [1, -0.1055613458, -0.0638541728],
        [1, -0.0894841775, -1.2914855480],
    ]
)
_RGB_FROM_LMS = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


@cache
def colour_table() -> NDArray[np.uint8]:
    """The colours of values 0 to 1 in 256 even steps: uint8 [256, 3], sRGB."""
    at = np.linspace(0, 1, STEPS)
    lightness = np.interp(at, (0, 1), _LIGHTNESS)
    hue = np.deg2rad(np.interp(at, (0, 1), _HUE_DEGREES))
    linear = _largest_in_gamut(lightness, hue)
    table = np.rint(_companded(linear) * 255).astype(np.uint8)
    table.flags.writeable = False
    return table


def _largest_in_gamut(lightness: NDArray[np.float64], hue: NDArray[np.float64]) -> NDArray[np.float64]:
    """Linear RGB of each lightness and hue at the highest chroma that a display can show, at most _CHROMA."""
    chroma = np.linspace(0, _CHROMA, 64)[:, np.newaxis]
    lab = np.stack(np.broadcast_arrays(lightness, chroma * np.cos(hue), chroma * np.sin(hue)), axis=-1)
    linear = (lab @ _LMS_FROM_LAB.T) ** 3 @ _RGB_FROM_LMS.T  # [chroma, step, 3]
    is_shown = ((linear >= 0) & (linear <= 1)).all(axis=-1)
    highest = len(chroma) - 1 - is_shown[::-1].argmax(axis=0)
    shown: NDArray[np.float64] = linear[highest, np.arange(len(hue))]
    return shown


def _companded(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """SRGB's transfer function, IEC 61966-2-1."""
    curve = 1.055 * np.maximum(linear, 0.0031308) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, linear * 12.92, curve)

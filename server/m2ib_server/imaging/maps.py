"""Turns a patch grid into maps at the model's and at the original's size. Knows nothing of models."""

import numpy as np
from numpy.typing import NDArray

from .affine import Affine
from .fit import FittedImage

Map = NDArray[np.float32]  # [rows, columns]


def normalise(values: Map) -> Map:
    """Min-max normalise to [0, 1]; all zeros where every value is equal.

    Raises:
        ValueError: a value is not finite.
    """
    if not np.isfinite(values).all():
        raise ValueError("a map with values that are not finite cannot be normalised")
    low, high = values.min().astype(np.float64), values.max().astype(np.float64)
    if low == high:
        return np.zeros(values.shape, dtype=np.float32)
    scaled: Map = ((values - low) / (high - low)).astype(np.float32)
    return scaled


def model_map(grid: Map, size: int) -> Map:
    """Bring a patch grid to the model's input [size, size]: bilinear, edges held, then min-max normalised.

    As `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`; the published method's map.

    Raises:
        ValueError: a value is not finite.
    """
    rows, columns = (_centres(size) * (count / size) for count in grid.shape)
    return normalise(_sample(grid, rows, columns))


def original_map(model: Map, fitted: FittedImage, *, height: int, width: int) -> Map:
    """Sample a map at the model's size at every pixel centre of the original [height, width], bilinear.

    NaN where the fit cut the original off: that was not evaluated.

    Raises:
        ValueError: the fit's affine is not axis-aligned.
    """
    original_to_model = fitted.model_to_original.inverse()
    if not original_to_model.is_axis_aligned:
        raise ValueError("a fit's affine is axis-aligned")
    columns = _centres(width) * original_to_model.xx + original_to_model.x0
    rows = _centres(height) * original_to_model.yy + original_to_model.y0
    sampled = _sample(model, rows, columns)
    sampled[_is_outside(rows, model.shape[0]), :] = np.nan
    sampled[:, _is_outside(columns, model.shape[1])] = np.nan
    return sampled


def grid_to_original(fitted: FittedImage, *, rows: int, columns: int) -> Affine:
    """From grid coordinates, whole numbers at patch borders, to the original's pixels."""
    _, height, width = fitted.pixel_values.shape
    return fitted.model_to_original.after(Affine.scaling(width / columns, height / rows))


def _centres(count: int) -> NDArray[np.float64]:
    return np.arange(count, dtype=np.float64) + 0.5


def _is_outside(positions: NDArray[np.float64], length: int) -> NDArray[np.bool_]:
    return (positions < 0) | (positions > length)


def _sample(values: Map, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> Map:
    """Interpolate at the crossings of `rows` and `columns`, in outer-corner coordinates."""
    return _lerp(_lerp(values.T, columns).T, rows)


def _lerp(values: Map, positions: NDArray[np.float64]) -> Map:
    """Interpolate along the first axis; beyond the first and last centre the edge is held."""
    last = values.shape[0] - 1
    position = np.clip(positions - 0.5, 0, last)
    before = np.floor(position).astype(np.intp)
    weight = (position - before).astype(np.float32)[:, np.newaxis]
    at = values[before]
    between: Map = at + (values[np.minimum(before + 1, last)] - at) * weight
    return between

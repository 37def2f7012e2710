"""Owns the way from stored values to 8-bit grey: modality, VOI and presentation steps. Reads no data set.

Stored values have at most 16 bits, so every step is worked out once per value and not once per pixel.
Source: DICOM PS3.3 C.7.5.1.1.2 (padding), C.11.1 (modality), C.11.2 (VOI), C.11.6 (presentation).
"""

from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from .image import Grey, Window, WindowSource

Stored = NDArray[np.integer]
Values = NDArray[np.float64]
LOW_PERCENT, HIGH_PERCENT = 0.5, 99.5
CT_WINDOW = Window(center=-600.0, width=1500.0)  # Hounsfield units: lung, and soft tissue up to 150
EIGHT_BITS = 8


class VoiFunction(Enum):
    """VOILUTFunction (0028,1056)."""

    LINEAR = "LINEAR"
    LINEAR_EXACT = "LINEAR_EXACT"
    SIGMOID = "SIGMOID"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LookupTable:
    """LUTDescriptor and LUTData: entry 0 is for input `first`; inputs beyond either end take the end's entry.

    entries: uint16 [count].
    bits: the entries' nominal depth, 1 to 16.
    """

    first: int
    entries: NDArray[np.uint16]
    bits: int

    def apply(self, inputs: Values | Stored) -> NDArray[np.uint16]:
        """Look up inputs; those that are no whole numbers are rounded first."""
        # A descriptor's `first` is written unsigned even where inputs are signed, and the other way round.
        first = self.first % 65536
        if inputs.min() < 0 and first >= 32768:
            first -= 65536
        index = np.clip(np.rint(inputs).astype(np.int64) - first, 0, len(self.entries) - 1)
        found: NDArray[np.uint16] = self.entries[index]
        return found

    @property
    def depth(self) -> int:
        """The bits that the entries need: the nominal depth, or more where an entry exceeds it."""
        return max(self.bits, int(self.entries.max()).bit_length())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GreyScale:
    """What one frame's header says of its grey scale.

    bits_stored: 1 to 16; is_signed: PixelRepresentation.
    modality: a table, or else stored values become slope * value + intercept.
    voi_luts, windows: the alternatives, in the header's order; windows with an unusable width are left out.
    padding: stored values from .. to that are no image, both included.
    """

    bits_stored: int
    is_signed: bool
    modality: LookupTable | None
    slope: float
    intercept: float
    voi_luts: tuple[LookupTable, ...]
    windows: tuple[Window, ...]
    function: VoiFunction
    padding: tuple[int, int] | None
    is_inverted: bool
    is_ct: bool

    @property
    def lowest(self) -> int:
        """The smallest stored value there can be."""
        return -(1 << (self.bits_stored - 1)) if self.is_signed else 0

    @property
    def levels(self) -> NDArray[np.int64]:
        """Every stored value there can be, ascending."""
        return np.arange(self.lowest, self.lowest + 2**self.bits_stored)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shades:
    """Fractions of white, one per level, and where they came from."""

    fractions: Values
    source: WindowSource
    window: Window | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GreyImage:
    """A frame as displayed."""

    pixels: Grey = field(repr=False)
    source: WindowSource
    window: Window | None


def usable(window: Window, function: VoiFunction) -> bool:
    """Tell whether the standard allows this width; some writers store 0 for "no window"."""
    return window.width >= 1 if function is VoiFunction.LINEAR else window.width > 0


def window_fractions(values: Values, window: Window, function: VoiFunction) -> Values:
    """Map values to [0, 1] through a window, PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    from_center = values - window.center
    if function is VoiFunction.SIGMOID:
        return 1 / (1 + np.exp(np.clip(-4 * from_center / window.width, -500, 500)))
    if function is VoiFunction.LINEAR:
        return _ramp(from_center + 0.5, window.width - 1)
    return _ramp(from_center, window.width)


def render_grey(stored: Stored, scale: GreyScale, request: Window | None) -> GreyImage:
    """Render stored values [rows, columns]: modality, then VOI, then one inversion, then padding black."""
    index = stored.astype(np.int32)
    index -= scale.lowest
    np.clip(index, 0, 2**scale.bits_stored - 1, out=index)
    is_padding = _padding_levels(scale)
    shades = _shades(scale, index, is_padding, request)
    grey = np.rint(np.clip(shades.fractions, 0, 1) * 255).astype(np.uint8)
    table = 255 - grey if scale.is_inverted else grey
    table[is_padding] = 0
    return GreyImage(pixels=table[index], source=shades.source, window=shades.window)


def _padding_levels(scale: GreyScale) -> NDArray[np.bool_]:
    if scale.padding is None:
        return np.zeros(len(scale.levels), dtype=np.bool_)
    low, high = scale.padding
    return (scale.levels >= low) & (scale.levels <= high)


def _shades(
    scale: GreyScale, index: NDArray[np.int32], is_padding: NDArray[np.bool_], request: Window | None
) -> Shades:
    values = _modality(scale)
    if request is not None:
        return _windowed(values, request, VoiFunction.LINEAR, WindowSource.REQUEST)
    if scale.voi_luts:
        table = scale.voi_luts[0]
        white = (1 << table.depth) - 1
        return Shades(fractions=table.apply(values) / white, source=WindowSource.VOI_LUT)
    if scale.windows:
        return _windowed(values, scale.windows[0], scale.function, WindowSource.WINDOW)
    if _is_display_ready(scale):
        source = WindowSource.NONE if scale.bits_stored == EIGHT_BITS else WindowSource.FULL_RANGE
        return Shades(fractions=values / (2**scale.bits_stored - 1), source=source)
    if scale.is_ct:
        return _windowed(values, CT_WINDOW, VoiFunction.LINEAR, WindowSource.DEFAULT)
    counts = np.bincount(index.reshape(-1), minlength=len(values))
    return _between_percentiles(values, np.where(is_padding, 0, counts))


def _modality(scale: GreyScale) -> Values:
    levels = scale.levels.astype(np.float64)
    if scale.modality is not None:
        return scale.modality.apply(levels).astype(np.float64)
    return levels * scale.slope + scale.intercept


def _windowed(values: Values, window: Window, function: VoiFunction, source: WindowSource) -> Shades:
    return Shades(fractions=window_fractions(values, window, function), source=source, window=window)


def _is_display_ready(scale: GreyScale) -> bool:
    """Up to 8 bits without any transformation: a picture made for the eye, such as a secondary capture."""
    is_plain = scale.modality is None and scale.slope == 1 and scale.intercept == 0
    return is_plain and not scale.is_signed and scale.bits_stored <= EIGHT_BITS


def _between_percentiles(values: Values, counts: NDArray[np.int64]) -> Shades:
    """Stretch between two percentiles of the frame, or between its extremes where those two are equal."""
    low, high = _percentiles(values, counts, LOW_PERCENT, HIGH_PERCENT)
    if low == high:
        low, high = _percentiles(values, counts, 0, 100)
    if low == high:
        return Shades(fractions=np.zeros_like(values), source=WindowSource.PERCENTILES)
    window = Window(center=(low + high) / 2, width=high - low)
    return _windowed(values, window, VoiFunction.LINEAR_EXACT, WindowSource.PERCENTILES)


def _percentiles(values: Values, counts: NDArray[np.int64], low: float, high: float) -> tuple[float, float]:
    """The smallest values with `low` and `high` per cent of the pixels at or below them; (0, 0) of none."""
    seen = np.flatnonzero(counts)
    if not seen.size:
        return 0.0, 0.0
    order = seen[np.argsort(values[seen], kind="stable")]
    reached = np.cumsum(counts[order])
    at = np.searchsorted(reached, [reached[-1] * low / 100, reached[-1] * high / 100])
    return float(values[order[at[0]]]), float(values[order[at[1]]])


def _ramp(from_center: Values, width: float) -> Values:
    if width == 0:
        return (from_center > 0).astype(np.float64)
    with np.errstate(over="ignore"):  # a very narrow window is a step
        return from_center / width + 0.5

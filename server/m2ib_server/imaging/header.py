"""Reads from a DICOM header what rendering one frame needs and nothing else: no name, no identifier, no date.

Runs inside `library_call`: pydicom converts elements when they are read, and may raise anything.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

from .elements import read_items
from .greyscale import GreyScale, VoiFunction, usable
from .image import Window
from .refusal import undecodable
from .tables import read_tables

# Elements of enhanced multi-frame objects stand in these macros, per frame or shared (PS3.3 C.7.6.16).
_MACROS = ("PixelMeasuresSequence", "PixelValueTransformationSequence", "FrameVOILUTSequence")
_SQUARE_WITHIN = 0.01
_ASPECT_RANGE = (0.1, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelLayout:
    """The Image Pixel module (PS3.3 C.7.6.3) of one object."""

    rows: int
    columns: int
    frames: int
    samples: int
    photometric: str
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool


def read_layout(ds: Dataset) -> PixelLayout:
    """Read how the pixels are laid out.

    Raises:
        ImageUndecodable: the object describes no image.
    """
    if "Rows" not in ds or "Columns" not in ds:
        raise undecodable("a DICOM object that is no image")
    bits_stored = int(ds.BitsStored)
    layout = PixelLayout(
        rows=int(ds.Rows),
        columns=int(ds.Columns),
        frames=int(ds.get("NumberOfFrames") or 1),
        samples=int(ds.get("SamplesPerPixel") or 1),
        photometric=str(ds.PhotometricInterpretation),
        bits_allocated=int(ds.BitsAllocated),
        bits_stored=bits_stored,
        high_bit=int(ds.get("HighBit", bits_stored - 1)),
        is_signed=int(ds.get("PixelRepresentation") or 0) == 1,
    )
    if min(layout.rows, layout.columns, layout.frames) < 1:
        raise undecodable("a DICOM image without rows, columns or frames")
    return layout


def read_grey_scale(ds: Dataset, layout: PixelLayout, frame: int) -> GreyScale:
    """Read the grey scale of one frame, from 1.

    Raises:
        ImageUndecodable: a transformation that cannot be applied.
    """
    scopes = list(_scopes(ds, frame))
    function = _function(_first(scopes, "VOILUTFunction"))
    modality = read_tables(_first_items(scopes, "ModalityLUTSequence"), ds)
    slope = _number(_first(scopes, "RescaleSlope"), 1.0)
    intercept = _number(_first(scopes, "RescaleIntercept"), 0.0)
    if slope == 0 or not math.isfinite(slope * 2**16 + intercept):
        raise undecodable("a rescale slope or intercept that cannot be applied")
    return GreyScale(
        bits_stored=layout.bits_stored,
        is_signed=layout.is_signed,
        modality=modality[0] if modality else None,
        slope=slope,
        intercept=intercept,
        voi_luts=read_tables(_first_items(scopes, "VOILUTSequence"), ds),
        windows=tuple(_windows(scopes, function)),
        function=function,
        padding=_padding(ds, layout),
        is_inverted=layout.photometric == "MONOCHROME1" or ds.get("PresentationLUTShape") == "INVERSE",
        is_ct=ds.get("Modality") == "CT",
    )


def read_pixel_aspect(ds: Dataset, frame: int) -> float:
    """Read a pixel's height over its width; spacings that are not positive count as absent.

    Raises:
        ImageUndecodable: outside 0.1 to 10, which no imaging device has.
    """
    scopes = list(_scopes(ds, frame))
    for keyword in ("PixelAspectRatio", "PixelSpacing", "ImagerPixelSpacing"):
        vertical, horizontal = _pair(_first(scopes, keyword))
        if vertical > 0 and horizontal > 0:
            return _checked_aspect(vertical / horizontal)
    return 1.0


def _checked_aspect(aspect: float) -> float:
    if abs(aspect - 1) < _SQUARE_WITHIN:
        return 1.0
    if not _ASPECT_RANGE[0] <= aspect <= _ASPECT_RANGE[1]:
        raise undecodable("pixels of an impossible shape", allowed="a pixel aspect ratio from 0.1 to 10")
    return aspect


def _scopes(ds: Dataset, frame: int) -> Iterator[Dataset]:
    """Where an element may stand, the most specific first."""
    per_frame = read_items(ds, "PerFrameFunctionalGroupsSequence", index=frame - 1)
    shared = read_items(ds, "SharedFunctionalGroupsSequence", index=0)
    for group in (*per_frame, *shared):
        for macro in _MACROS:
            yield from read_items(group, macro)
    yield ds


def _first(scopes: list[Dataset], keyword: str) -> Any:
    elements = (scope[keyword] for scope in scopes if keyword in scope)
    return next((element.value for element in elements if not element.is_empty), None)


def _first_items(scopes: list[Dataset], keyword: str) -> list[Dataset]:
    return next((items for items in (read_items(scope, keyword) for scope in scopes) if items), [])


def _number(value: Any, absent: float) -> float:
    return absent if value is None else float(value)


def _numbers(value: Any) -> list[float]:
    """One value or several, as pydicom gives them."""
    if value is None:
        return []
    return [float(one) for one in ([value] if isinstance(value, str | int | float) else value)]


def _pair(value: Any) -> tuple[float, float]:
    numbers = _numbers(value)
    return (numbers[0], numbers[1]) if len(numbers) == 2 and all(map(math.isfinite, numbers)) else (0.0, 0.0)


def _function(value: Any) -> VoiFunction:
    try:
        return VoiFunction(value or "LINEAR")
    except ValueError:
        raise undecodable("a VOILUTFunction that the standard does not know") from None


def _windows(scopes: list[Dataset], function: VoiFunction) -> Iterator[Window]:
    centers, widths = _numbers(_first(scopes, "WindowCenter")), _numbers(_first(scopes, "WindowWidth"))
    for center, width in zip(centers, widths, strict=False):
        window = Window(center=center, width=width)
        if math.isfinite(center) and math.isfinite(width) and usable(window, function):
            yield window


def _padding(ds: Dataset, layout: PixelLayout) -> tuple[int, int] | None:
    value = ds.get("PixelPaddingValue")
    if value is None:
        return None
    limit = ds.get("PixelPaddingRangeLimit")
    ends = [_as_stored(int(end), layout) for end in (value, value if limit is None else limit)]
    return min(ends), max(ends)


def _as_stored(value: int, layout: PixelLayout) -> int:
    """Undo a value representation that disagrees with PixelRepresentation: -2000 written as 63536 and the like."""
    unsigned = value % 65536
    return unsigned - 65536 if layout.is_signed and unsigned >= 32768 else unsigned

"""Turns the bytes of an image file, of whatever known format, into the image that is explained."""

import math

from m2ib_server.errors import ImageEmpty, InvalidField

from .dicom import render_dicom
from .image import ImageLimits, RenderedImage, Window
from .part10 import is_dicom
from .raster import render_raster
from .refusal import ENCODED, FRAME, KNOWN_FORMATS, WINDOW, check_size


def render(
    encoded: bytes, *, limits: ImageLimits, frame: int | None = None, window: Window | None = None
) -> RenderedImage:
    """Render an image as displayed; the format is told by the bytes.

    frame: from 1; None means 1.
    window: overrides a DICOM image's own, width at least 1; not for other formats.

    Raises:
        ImageEmpty: no bytes.
        ImageTooLarge: more bytes or pixels than the limits, found before anything is decoded.
        ImageUndecodable: no known format, or a broken or truncated file.
        TransferSyntaxUnsupported: a DICOM encoding without a decoder.
        InvalidField: the frame does not exist or the window does not apply.
    """
    if not encoded:
        raise ImageEmpty(ENCODED, seen="0 bytes", allowed=KNOWN_FORMATS)
    check_size(len(encoded), limits)
    _check_frame(frame)
    _check_window(window)
    if is_dicom(encoded):
        return render_dicom(encoded, frame=frame or 1, window=window, limits=limits)
    if window is not None:
        raise InvalidField(WINDOW, seen="a window for a file that is not DICOM", allowed="unset")
    return render_raster(encoded, frame=frame or 1, limits=limits)


def _check_frame(frame: int | None) -> None:
    if frame is not None and frame < 1:
        raise InvalidField(FRAME, seen=str(frame), allowed="1 to the number of frames")


def _check_window(window: Window | None) -> None:
    if window is None:
        return
    if not math.isfinite(window.center):
        raise InvalidField(f"{WINDOW}.center", seen="no finite number", allowed="a finite number")
    if not (math.isfinite(window.width) and window.width >= 1):
        raise InvalidField(f"{WINDOW}.width", seen=str(window.width), allowed="a finite number >= 1")

"""Chooses the decoder of each transfer syntax and decodes one frame with it.

Each compressed syntax has exactly one decoder: left to itself pydicom tries all that are installed, among them some
that end the process or never return (see `isolation.py`), and lenient ones that return part of a truncated frame.
"""

from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.processing import convert_color_space
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from m2ib_server.errors import TransferSyntaxUnsupported

from .codestream import FrameSize, declared_size
from .greyscale import EIGHT_BITS, Stored
from .header import PixelLayout
from .isolation import decode_isolated
from .part10 import OpenObject
from .quiet import library_call
from .refusal import ENCODED, undecodable

NATIVE = {
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
}
ISOLATED = {JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless}
PLUGINS = {
    RLELossless: "pydicom",  # as fast as the one in Rust, which panics on broken runs, onto standard error
    JPEGBaseline8Bit: "pillow",
    JPEGExtended12Bit: "pillow",
    JPEG2000Lossless: "pylibjpeg",
    JPEG2000: "pylibjpeg",
    HTJ2KLossless: "pylibjpeg",
    HTJ2KLosslessRPCL: "pylibjpeg",
    HTJ2K: "pylibjpeg",
}
TWELVE_BITS = 12
_BROKEN_PIXELS = "a DICOM object with broken or truncated pixel data"


def check_decoder(syntax: UID, layout: PixelLayout) -> None:
    """Raise TransferSyntaxUnsupported if no decoder reads these pixels."""
    if syntax not in {*NATIVE, *ISOLATED, *PLUGINS} or not _is_depth_read(syntax, layout):
        allowed = "uncompressed, RLE, JPEG of 8 bits or of 12 in grey, JPEG Lossless, JPEG-LS or JPEG 2000"
        raise TransferSyntaxUnsupported(ENCODED, seen=_registered_name(syntax), allowed=allowed)


def decode_frame(opened: OpenObject, layout: PixelLayout, frame: int) -> Stored:
    """Decode one frame, from 1: stored values [rows, columns], or RGB [rows, columns, 3].

    Raises:
        ImageUndecodable: the pixel data are broken, truncated, or of another size than the header says.
    """
    complete = opened.with_pixels()
    if is_isolated(opened.syntax, layout.bits_stored):
        codestream, size = _codestream(complete, layout, frame)
        return _to_rgb(decode_isolated(codestream, layout, opened.syntax, precision=size.precision), layout)
    if opened.syntax in PLUGINS and opened.syntax != RLELossless:
        _codestream(complete, layout, frame)
    with library_call(_BROKEN_PIXELS):
        plugin = PLUGINS.get(opened.syntax, "")
        stored: Stored = pixel_array(complete, index=frame - 1, decoding_plugin=plugin)
    if stored.shape[:2] != (layout.rows, layout.columns):
        raise undecodable(_BROKEN_PIXELS)
    return stored


def is_isolated(syntax: UID, bits_stored: int) -> bool:
    """Tell whether a frame is decoded in a process of its own; of JPEG Extended, Pillow reads 8 bits and no more."""
    return syntax in ISOLATED or (syntax == JPEGExtended12Bit and bits_stored > EIGHT_BITS)


def _is_depth_read(syntax: UID, layout: PixelLayout) -> bool:
    """Tell what is left out of JPEG Extended, whose colour is converted in 8 bits, and of JPEG-LS by its decoder."""
    if syntax == JPEGExtended12Bit:
        return layout.bits_stored <= EIGHT_BITS or (layout.samples == 1 and layout.bits_stored <= TWELVE_BITS)
    return syntax not in {JPEGLSLossless, JPEGLSNearLossless} or layout.bits_stored >= EIGHT_BITS


def _registered_name(syntax: UID) -> str:
    """The name in PS3.6; a UID that is not registered is the caller's own text and is not repeated."""
    return syntax.name if syntax.name != str(syntax) else "an unregistered transfer syntax"


def _codestream(complete: Dataset, layout: PixelLayout, frame: int) -> tuple[bytes, FrameSize]:
    """Find one compressed frame, whose own size has to be the header's: the limit was held against that one."""
    with library_call(_BROKEN_PIXELS):
        codestream = get_frame(complete.PixelData, frame - 1, number_of_frames=layout.frames)
    size = declared_size(codestream)
    expected = (layout.columns, layout.rows, layout.samples)
    if size is None or (size.width, size.height, size.components) != expected:
        raise undecodable("a compressed frame that differs from its header in size")
    return codestream, size


def _to_rgb(stored: Stored, layout: PixelLayout) -> Stored:
    if not layout.photometric.startswith("YBR"):
        return stored
    with library_call(_BROKEN_PIXELS):
        rgb: Stored = convert_color_space(stored, "YBR_FULL", "RGB")
    return rgb

"""Turns what a caller holds for an image into the message that carries it, without loss."""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import PIL.Image

from m2ib.v1 import attribution_pb2, settings_pb2
from m2ib_client import _dicom, _format, _tensor
from m2ib_client._errors import InvalidRequestError
from m2ib_client._handle import ImageHandle
from m2ib_client._options import ImageSource

ALLOWED_SOURCES = "a path, bytes, a Pillow image, a numpy array, a pydicom dataset or an ImageHandle"
ALLOWED_FILES = "a PNG, JPEG, TIFF, WebP or DICOM file"
ALLOWED_UPLOADS = "what has a file's form; a tensor, float32 [channels, size, size], goes with its own call"
ALLOWED_ARRAYS = (
    "uint8 [height, width] or [height, width, 3 or 4], uint16 [height, width] or float32 [channels, size, size]"
)
PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
TIFF_MODES = frozenset({"CMYK"})
TENSOR_DIMENSIONS = 3
COLOUR_CHANNELS = (3, 4)


def image_message(
    image: ImageSource, *, frame: int | None, window: tuple[float, float] | None
) -> attribution_pb2.Image:
    """Return the message for an image; of one that is uploaded, with an empty place for its name on the server.

    Raises:
        InvalidRequestError: the image, the frame or the window is of a kind that cannot be sent.
        MissingPackageError: the image is DICOM and pydicom is not installed.
        OSError: the path cannot be read.
    """
    message = _source_message(image)
    if frame is not None:
        _set_frame(message, frame)
    if window is not None:
        _set_window(message, window)
    return message


def uploadable(image: ImageSource) -> ImageHandle:
    """Return what uploading sends of an image.

    Raises:
        InvalidRequestError: the image is of a kind that cannot be sent, or a tensor.
        MissingPackageError: the image is DICOM and pydicom is not installed.
        OSError: the path cannot be read.
    """
    if isinstance(image, ImageHandle):
        return image
    if _is_tensor(image):
        raise InvalidRequestError.of("image", seen="a tensor to upload", allowed=ALLOWED_UPLOADS)
    return ImageHandle.of(_encoded(image))


def placed(
    images: Sequence[ImageSource], messages: Sequence[attribution_pb2.Image]
) -> list[tuple[ImageHandle, attribution_pb2.Image]]:
    """Return those of a request's images that are sent by name, each with its message."""
    pairs = zip(images, messages, strict=True)
    return [(image, message) for image, message in pairs if isinstance(image, ImageHandle)]


def _source_message(image: ImageSource) -> attribution_pb2.Image:
    if isinstance(image, ImageHandle):
        return attribution_pb2.Image(handle="")
    if _is_tensor(image):
        return attribution_pb2.Image(tensor=_model_input(cast("np.ndarray[Any, Any]", image)))
    return attribution_pb2.Image(encoded=_encoded(image))


def _is_tensor(image: ImageSource) -> bool:
    return isinstance(image, np.ndarray) and image.dtype.newbyteorder("=") == np.float32


def _encoded(image: ImageSource) -> bytes:
    if isinstance(image, str | os.PathLike):
        return _stripped(Path(image).read_bytes())
    if isinstance(image, bytes):
        return _stripped(image)
    if isinstance(image, PIL.Image.Image):
        return _encode_picture(image)
    if isinstance(image, np.ndarray):
        return _encode_array(image)
    if _dicom.is_dataset(image):
        return _dicom.strip(cast(Any, image))
    raise InvalidRequestError.of("image", seen=f"a {type(image).__name__}", allowed=ALLOWED_SOURCES)


def _stripped(encoded: bytes) -> bytes:
    """Return what is sent of a file; of what is not recognised nothing, as it may hold a patient's identifiers."""
    if _format.is_dicom(encoded):
        return _dicom.strip_file(encoded)
    if encoded and not _format.is_raster(encoded):  # the server words the refusal of no bytes at all
        raise InvalidRequestError.of(
            "image", seen="bytes of no known format", allowed=ALLOWED_FILES, reason="IMAGE_UNDECODABLE"
        )
    return encoded


def _encode_picture(picture: PIL.Image.Image) -> bytes:
    """Write the picture's pixels and nothing else: no EXIF, no text, no colour profile."""
    if picture.mode not in PNG_MODES | TIFF_MODES:
        raise InvalidRequestError.of(
            "image",
            seen=f"a Pillow image of mode {picture.mode}",
            allowed=f"a mode of {', '.join(sorted(PNG_MODES | TIFF_MODES))}",
        )
    buffer = io.BytesIO()
    if picture.mode in TIFF_MODES:
        _without_metadata(picture).save(buffer, format="TIFF", compression="tiff_deflate")
    else:
        _without_metadata(picture).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _without_metadata(picture: PIL.Image.Image) -> PIL.Image.Image:
    bare = PIL.Image.new(picture.mode, picture.size)
    if picture.mode == "P":
        bare.putpalette(picture.getpalette("RGB") or [])
    if "transparency" in picture.info:
        bare.info["transparency"] = picture.info["transparency"]
    bare.paste(picture, (0, 0))
    return bare


def _encode_array(array: "np.ndarray[Any, Any]") -> bytes:
    native = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    is_grey = native.ndim == 2 and native.dtype in (np.uint8, np.uint16)
    is_colour = native.ndim == 3 and native.shape[2] in COLOUR_CHANNELS and native.dtype == np.uint8
    if not (is_grey or is_colour) or native.size == 0:
        raise InvalidRequestError.of(
            "image", seen=f"an array {native.dtype} {list(native.shape)}", allowed=ALLOWED_ARRAYS
        )
    return _encode_picture(PIL.Image.fromarray(native))


def _model_input(array: "np.ndarray[Any, Any]") -> settings_pb2.FloatTensor:
    if array.ndim != TENSOR_DIMENSIONS or array.size == 0:
        raise InvalidRequestError.of(
            "image.tensor", seen=f"an array {array.dtype} {list(array.shape)}", allowed=ALLOWED_ARRAYS
        )
    return _tensor.pack(array)


def _set_frame(message: attribution_pb2.Image, frame: int) -> None:
    try:
        message.frame = frame
    except (TypeError, ValueError):
        raise InvalidRequestError.of(
            "image.frame",
            seen=repr(frame) if isinstance(frame, int) else f"a {type(frame).__name__}",
            allowed="a whole number from 1",
        ) from None


def _set_window(message: attribution_pb2.Image, window: tuple[float, float]) -> None:
    try:
        centre, width = window
        message.window.center, message.window.width = centre, width
    except (TypeError, ValueError):
        raise InvalidRequestError.of(
            "image.window", seen=f"a {type(window).__name__}", allowed="a pair of numbers (centre, width)"
        ) from None

"""Owns the wording of refusals and checks the two limits. No text tells more of an image than its size."""

from m2ib_server.errors import ImageTooLarge, ImageUndecodable, InvalidField

from .image import ImageLimits

ENCODED = "image.encoded"
FRAME = "image.frame"
WINDOW = "image.window"
KNOWN_FORMATS = "a PNG, JPEG, TIFF, WebP or DICOM Part 10 file"


def undecodable(seen: str, *, allowed: str = KNOWN_FORMATS) -> ImageUndecodable:
    """Say that the bytes are no image, or a broken one."""
    return ImageUndecodable(ENCODED, seen=seen, allowed=allowed)


def no_such_frame(frame: int, *, frames: int | None = None) -> InvalidField:
    """Say that the object has no such frame; `frames` is how many it has, where that is known."""
    return InvalidField(FRAME, seen=str(frame), allowed=f"1 to {frames or 'the number of frames'}")


def check_size(size_bytes: int, limits: ImageLimits) -> None:
    """Raise ImageTooLarge if the encoded image has too many bytes."""
    if size_bytes > limits.max_bytes:
        raise ImageTooLarge(ENCODED, seen=f"{size_bytes} bytes", allowed=f"at most {limits.max_bytes} bytes")


def check_pixels(width: int, height: int, limits: ImageLimits, *, frames: int = 1) -> None:
    """Raise ImageTooLarge if `frames` frames of this size, in pixels, are too many to decode."""
    if width * height * frames > limits.max_pixels:
        seen = f"{width} x {height} pixels" + (f" in each of {frames} frames" if frames > 1 else "")
        raise ImageTooLarge(ENCODED, seen=seen, allowed=f"at most {limits.max_pixels} pixels")

"""Hostile files that are no DICOM: bombs, cuts, animations, kinds of pixels, and what only pretends to be an image."""

import struct
import zlib
from io import BytesIO

import numpy as np
from PIL import Image

from corpus.row import Refused, Row, Shown
from fakes.image_files import NOISE, SEEDS, picture

UNDECODABLE = "IMAGE_UNDECODABLE"


def _png_of(width: int, height: int) -> bytes:
    """A PNG of black pixels, however many, in few bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    deflater, row = zlib.compressobj(9), bytes(1 + width)
    pixels = b"".join(deflater.compress(row) for _ in range(height)) + deflater.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _saved(image: Image.Image, file_format: str, **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def _animation(file_format: str) -> bytes:
    frames = [Image.fromarray(np.roll(NOISE, shift, axis=0)) for shift in range(4)]
    return _saved(frames[0], file_format, save_all=True, append_images=frames[1:], lossless=True)


def _cut(name: str, kept: float) -> bytes:
    encoded = SEEDS[name]()
    return encoded[: int(len(encoded) * kept)]


GREY_16 = Image.fromarray((NOISE[..., 0].astype(np.uint16) << 8) + 7)

PICTURES = {
    "one pixel": Row(make=lambda: _png_of(1, 1), then=Shown(source="none")),
    "one row of ten thousand pixels": Row(make=lambda: _png_of(10_000, 1), then=Shown(source="none")),
    "cmyk": Row(make=lambda: _saved(Image.fromarray(NOISE).convert("CMYK"), "JPEG"), then=Shown(source="none")),
    "16 bits": Row(make=lambda: _saved(GREY_16, "PNG"), then=Shown(source="full range")),
    "alpha": Row(make=lambda: _saved(Image.fromarray(NOISE).convert("RGBA"), "PNG"), then=Shown(source="none")),
    "palette": Row(make=lambda: _saved(Image.fromarray(NOISE).convert("P"), "PNG"), then=Shown(source="none")),
    "animated png": Row(make=lambda: _animation("PNG"), then=Shown(source="none"), frame=4),
    "animated webp": Row(make=lambda: _animation("WEBP"), then=Shown(source="none"), frame=4),
    "a frame too many": Row(
        make=lambda: _animation("WEBP"), then=Refused("INVALID_FIELD", "image.frame: seen 5"), frame=5
    ),
    "bomb": Row(make=lambda: _png_of(8000, 8000), then=Refused("IMAGE_TOO_LARGE", "8000 x 8000")),
    "bomb that Pillow itself refuses": Row(make=lambda: _png_of(20_000, 9000), then=Refused("IMAGE_TOO_LARGE")),
    "thin bomb": Row(make=lambda: _png_of(60_000_000, 1), then=Refused("IMAGE_TOO_LARGE", "60000000 x 1")),
    "header alone": Row(make=lambda: picture("PNG")[:33], then=Refused(UNDECODABLE)),
    "gif": Row(make=lambda: _saved(Image.fromarray(NOISE), "GIF"), then=Refused(UNDECODABLE)),
    "svg": Row(make=lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', then=Refused(UNDECODABLE)),
    "pdf": Row(make=lambda: b"%PDF-1.7\n%Canary\n", then=Refused(UNDECODABLE)),
    "an address to fetch": Row(make=lambda: b"http://169.254.169.254/Canary", then=Refused(UNDECODABLE)),
    "a path to open": Row(make=lambda: b"/etc/passwd", then=Refused(UNDECODABLE)),
    "zeros": Row(make=lambda: bytes(100_000), then=Refused(UNDECODABLE)),
} | {
    f"{name} cut at {kept:.0%}": Row(make=lambda name=name, kept=kept: _cut(name, kept), then=Refused(UNDECODABLE))
    for name in ("png", "jpeg", "tiff", "tiff-lzw", "webp", "dicom", "dicom-rle", "dicom-jpeg", "dicom-jpeg-ls")
    for kept in (0.1, 0.5, 0.9)
}

"""Owns the images and texts of a load test: the user's own, or made-up ones that show nothing."""

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image

from m2ib_client._image import uploadable

SIDE_PIXELS = 512
BLOBS = 6
TEXTS = ("a rounded shadow", "a bright spot on the left", "two dark shapes", "nothing of note")


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What the calls of a load test are about.

    `files` are the user's images; where there are none, images are made up: `distinct` different ones, or with 0 a new
    one for each call. `texts` are the user's; where there are none, made-up ones.
    """

    files: Sequence[Path] = ()
    given_texts: Sequence[str] = ()
    distinct: int = 0

    @property
    def images(self) -> int:
        """How many different images there are; 0 where each call has its own."""
        return len(self.files) or self.distinct

    @property
    def texts(self) -> Sequence[str]:
        """The texts."""
        return self.given_texts or TEXTS

    def described(self) -> str:
        """Say in words what the calls are about, without a name of a file or a word of a given text."""
        made_up = f"{self.distinct} made-up images" if self.distinct else "a new made-up image for each call"
        images = f"{len(self.files)} images of yours" if self.files else f"{made_up} ({SIDE_PIXELS} px, PNG)"
        texts = f"{len(self.given_texts)} texts of yours" if self.given_texts else f"{len(TEXTS)} made-up texts"
        return f"{images}, {texts}"

    def prepare(self) -> None:
        """Read or make all images that are called about more than once, so that no call waits for that.

        Raises:
            InvalidRequestError: a file is no image that can be sent.
            MissingPackageError: it is DICOM and pydicom is not installed.
            OSError: it cannot be read.
        """
        for number in range(self.images):
            self.encoded(number)

    def encoded(self, number: int) -> bytes:
        """Return the bytes that are sent of an image; of a DICOM file without identifiers. Raises as `prepare`."""
        if self.files:
            return _read(self.files[number])
        return made_up_image(number) if not self.distinct else _kept_image(number)


def made_up_image(number: int) -> bytes:
    """Return a PNG, 8-bit grey, of soft blobs under noise; the same number gives the same one."""
    chance = np.random.default_rng(number)
    rows, columns = np.mgrid[0:SIDE_PIXELS, 0:SIDE_PIXELS]
    shade = np.zeros((SIDE_PIXELS, SIDE_PIXELS))
    for _ in range(BLOBS):
        row, column, width = chance.uniform(0.1, 0.9, 3) * SIDE_PIXELS
        shade += chance.uniform(20, 60) * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (width * width / 4))
    pixels = np.clip(shade + chance.normal(0, 4, shade.shape), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


_kept_image = functools.cache(made_up_image)


@functools.cache
def _read(file: Path) -> bytes:
    return uploadable(file).encoded

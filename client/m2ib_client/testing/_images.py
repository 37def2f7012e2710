"""Keeps the images that were uploaded to the fake, until it is told to let go of them."""

import hashlib
import threading
from collections.abc import Iterator

from m2ib.v1 import attribution_pb2
from m2ib_client._errors import InvalidRequestError, NotFoundError
from m2ib_client._uploads import HANDLE_UNKNOWN


class FakeImages:
    """The uploaded images by their names; safe to share between threads."""

    def __init__(self) -> None:
        """Keep none."""
        self._images: dict[str, bytes] = {}
        self._count = 0
        self._lock = threading.Lock()

    def keep(self, header: attribution_pb2.UploadHeader, parts: Iterator[attribution_pb2.UploadImageRequest]) -> str:
        """Return the name of what the parts make up.

        Raises:
            InvalidRequestError: it is not what the header promised.
        """
        encoded = b"".join(part.chunk for part in parts)
        if len(encoded) != header.size_bytes or hashlib.sha256(encoded).hexdigest() != header.sha256 or not encoded:
            raise InvalidRequestError.of(
                "header", seen=f"{len(encoded)} bytes", allowed=f"{header.size_bytes} bytes of the digest promised"
            )
        with self._lock:
            self._count += 1
            name = f"image-{self._count}"
            self._images[name] = encoded
        return name

    def forget(self) -> None:
        """Let go of every image, as a true server does when their time has passed."""
        with self._lock:
            self._images.clear()

    def resolved(self, image: attribution_pb2.Image) -> attribution_pb2.Image:
        """Return the image as if it had come without a name.

        Raises:
            NotFoundError: there is no such image.
        """
        if image.WhichOneof("source") != "handle":
            return image
        with self._lock:
            encoded = self._images.get(image.handle)
        if encoded is None:
            raise NotFoundError("image.handle: no such image is kept", allowed="upload it again", reason=HANDLE_UNKNOWN)
        found = attribution_pb2.Image()
        found.CopyFrom(image)
        found.encoded = encoded
        return found

"""Owns what a caller holds of an uploaded image: its bytes and their digest, but not what a server calls them."""

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class ImageHandle:
    """An uploaded image; every call takes it in place of an image.

    `Client.upload` makes one. It keeps the bytes that were sent (of DICOM: without identifiers), so a server that
    has let go of them, or another client's server, gets them again by itself. `sha256` is their digest, 64
    hexadecimal digits.
    """

    encoded: bytes = field(repr=False)
    sha256: str

    @classmethod
    def of(cls, encoded: bytes) -> "ImageHandle":
        """Return a handle of an image file's bytes."""
        return cls(encoded=encoded, sha256=hashlib.sha256(encoded).hexdigest())

    @property
    def size_bytes(self) -> int:
        """The size of what is uploaded, in bytes."""
        return len(self.encoded)

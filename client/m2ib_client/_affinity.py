"""Owns the header by which a proxy sends calls about one image to one server, where its features are kept.

The header is metadata of the call, `x-affinity`, and holds the SHA-256 of what is sent of the image: never a name, a
path or an identifier, but the same digits for the same image. A server pays no heed to it.
"""

import hashlib
from collections.abc import Sequence
from typing import TypeAlias

from m2ib.v1 import attribution_pb2
from m2ib_client._handle import ImageHandle
from m2ib_client._options import ImageSource

HEADER = "x-affinity"

Metadata: TypeAlias = tuple[tuple[str, str], ...]


def affinity(images: Sequence[ImageSource], messages: Sequence[attribution_pb2.Image]) -> Metadata:
    """Return the header of a call about one image; none where the call is about several, as no server keeps all.

    An image that is sent by its handle has the digest of its bytes, so it follows its upload.
    """
    if len(messages) != 1:
        return ()
    (image,), (message,) = images, messages
    return upload_affinity(image) if isinstance(image, ImageHandle) else _header(_digest(message))


def upload_affinity(image: ImageHandle) -> Metadata:
    """Return the header of an upload."""
    return _header(image.sha256)


def _header(sha256: str) -> Metadata:
    return ((HEADER, sha256),)


def _digest(message: attribution_pb2.Image) -> str:
    sent = message.tensor.data if message.HasField("tensor") else message.encoded
    return hashlib.sha256(sent).hexdigest()

"""Notices images that come again among many pairs, so that they are sent once and named from then on.

An image is the same if its bytes are; a file that was not touched since is not read again for that.
"""

import os
from collections import OrderedDict
from typing import TypeAlias

from m2ib.v1 import attribution_pb2
from m2ib_client._handle import ImageHandle
from m2ib_client._options import ImageSource

MAX_IMAGES = 10_000
MAX_KEPT_BYTES = 256 * 1024 * 1024

FileState: TypeAlias = tuple[str, int, int, int]


class RepeatedImages:
    """The images that came so far; of those that came twice also the bytes, the latest `max_kept_bytes` of them."""

    def __init__(self, *, max_images: int = MAX_IMAGES, max_kept_bytes: int = MAX_KEPT_BYTES) -> None:
        """Begin with none."""
        self._max_images = max_images
        self._max_kept_bytes = max_kept_bytes
        self._seen: OrderedDict[str, ImageHandle | None] = OrderedDict()
        self._digests: OrderedDict[FileState, str] = OrderedDict()
        self._kept_bytes = 0

    def stand_in(self, image: ImageSource) -> ImageSource:
        """Return the handle of a file that came twice and was not touched since; any other image as it is."""
        state = _file_state(image)
        digest = self._digests.get(state) if state is not None else None
        return (self._seen.get(digest) if digest is not None else None) or image

    def notice(self, image: ImageSource, message: attribution_pb2.Image) -> ImageHandle | None:
        """Note an image with the message that carries it; return its handle from the second time on."""
        if message.WhichOneof("source") != "encoded":
            return None
        candidate = ImageHandle.of(message.encoded)
        is_known = candidate.sha256 in self._seen
        handle = self._seen.get(candidate.sha256) or (candidate if is_known else None)
        self._keep(candidate.sha256, handle)
        state = _file_state(image)
        if state is not None:
            self._digests[state] = candidate.sha256
            _shorten(self._digests, self._max_images)
        return handle

    def _keep(self, digest: str, handle: ImageHandle | None) -> None:
        if handle is not None and self._seen[digest] is None:
            self._kept_bytes += handle.size_bytes
        self._seen[digest] = handle
        self._seen.move_to_end(digest)
        while len(self._seen) > self._max_images or self._kept_bytes > self._max_kept_bytes:
            _, dropped = self._seen.popitem(last=False)
            self._kept_bytes -= dropped.size_bytes if dropped is not None else 0


def _file_state(image: ImageSource) -> FileState | None:
    """Return what changes when the file does: its place, inode, size and time; None for what is no file."""
    if not isinstance(image, str | os.PathLike):
        return None
    try:
        status = os.stat(image)
    except (OSError, ValueError):
        return None
    return os.fspath(image), status.st_ino, status.st_size, status.st_mtime_ns


def _shorten(table: "OrderedDict[FileState, str]", length: int) -> None:
    while len(table) > length:
        table.popitem(last=False)

"""Keeps uploaded images for a while under unguessable handles. One event loop's alone."""

import asyncio
import hashlib
import re
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from m2ib.v1 import attribution_pb2 as pb
from m2ib_server.errors import CallerFull, HandleUnknown, InvalidField, UploadStalled, UploadStoreFull

UNBOUNDED = 1 << 62
_HANDLE_BYTES = 32
_LEAST_BYTES = 4096  # what even the smallest upload is charged: it has a handle, a timer, objects
_LEAST_BYTES_PER_SECOND = 4096  # a slower upload has stalled, whatever it sends between
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(slots=True)
class Upload:
    """A kept image: the file's bytes, whose it is and the timer that will forget it."""

    encoded: bytes
    caller: str
    timer: asyncio.TimerHandle


class UploadStore:
    """Uploaded images, by handle, each forgotten `seconds_to_live` after its last use."""

    def __init__(self, *, max_bytes: int, seconds_to_live: float, max_caller_bytes: int = UNBOUNDED) -> None:
        """Keep at most `max_bytes` of files, those on their way included, and for a caller with a name its share."""
        self.max_bytes = max_bytes
        self.max_caller_bytes = max_caller_bytes
        self.seconds_to_live = seconds_to_live
        self.size_bytes = 0
        self.caller_bytes: Counter[str] = Counter()
        self._kept: dict[str, Upload] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def reserve(self, size_bytes: int, caller: str = "") -> None:
        """Take room for a caller's file on its way; whoever has no name has no share.

        Raises:
            UploadStoreFull: there is none; nothing that is kept makes way before its time.
            CallerFull: there is none in this caller's share.
        """
        charged = max(_LEAST_BYTES, size_bytes)
        if self.size_bytes + charged > self.max_bytes:
            raise UploadStoreFull(kept=self.size_bytes, limit=self.max_bytes, retry_seconds=self._until_room())
        used = self.caller_bytes[caller]
        if caller and used + charged > self.max_caller_bytes:
            raise CallerFull(
                what="bytes of uploads", used=used, limit=self.max_caller_bytes, retry_seconds=self._until_room(caller)
            )
        self.size_bytes += charged
        self.caller_bytes[caller] += charged

    def release(self, size_bytes: int, caller: str = "") -> None:
        """Give back room that was reserved."""
        charged = max(_LEAST_BYTES, size_bytes)
        self.size_bytes -= charged
        self.caller_bytes[caller] -= charged
        if not self.caller_bytes[caller]:
            del self.caller_bytes[caller]

    def keep(self, encoded: bytes, caller: str = "") -> str:
        """Keep a file for which room was reserved; return its handle."""
        handle = secrets.token_urlsafe(_HANDLE_BYTES)
        self._kept[handle] = Upload(encoded, caller, self._timer(handle))
        return handle

    def find(self, handle: str) -> bytes:
        """Return a file's bytes and let it live anew.

        Raises:
            HandleUnknown: there is none under that handle, or none any more.
        """
        if handle not in self._kept:
            raise HandleUnknown
        upload = self._kept[handle]
        upload.timer.cancel()
        upload.timer = self._timer(handle)
        return upload.encoded

    def close(self) -> None:
        """Forget everything."""
        for handle in list(self._kept):
            self._forget(handle)

    def _until_room(self, caller: str | None = None) -> float | None:
        """Return when the next image, or the next of a caller's, is forgotten unless used, in seconds; None: never."""
        ends = [upload.timer.when() for upload in self._kept.values() if caller in (None, upload.caller)]
        return min(ends) - asyncio.get_running_loop().time() if ends else None

    def _timer(self, handle: str) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self.seconds_to_live, self._forget, handle)

    def _forget(self, handle: str) -> None:
        upload = self._kept.pop(handle)
        upload.timer.cancel()
        self.release(len(upload.encoded), upload.caller)


async def receive(
    parts: AsyncIterator[pb.UploadImageRequest],
    store: UploadStore,
    note: Callable[[str], None],
    *,
    caller: str,
    max_bytes: int,
    idle_seconds: float,
) -> str:
    """Take a file part by part, hold it against its header and keep it; return its handle.

    `note` is told the SHA-256 of what came.

    Raises:
        InvalidField: a part is missing, out of order, too much, or the digest is another.
        UploadStoreFull: there is no room.
        CallerFull: there is none in the caller's share.
        UploadStalled: no part came for `idle_seconds`, or they come too slowly.
    """
    first = await _next(parts, idle_seconds)
    if first is None or first.WhichOneof("part") != "header":
        raise InvalidField("header", seen="no header", allowed="a header as the first part")
    header = _checked(first.header, max_bytes)
    store.reserve(header.size_bytes, caller)
    try:
        async with asyncio.timeout(idle_seconds + header.size_bytes / _LEAST_BYTES_PER_SECOND):
            return store.keep(await _body(parts, header, note, idle_seconds), caller)
    except TimeoutError as error:
        store.release(header.size_bytes, caller)
        raise UploadStalled(idle_seconds=idle_seconds) from error
    except BaseException:
        store.release(header.size_bytes, caller)
        raise


async def _body(
    parts: AsyncIterator[pb.UploadImageRequest],
    header: pb.UploadHeader,
    note: Callable[[str], None],
    idle_seconds: float,
) -> bytes:
    body = bytearray()
    digest = hashlib.sha256()
    while (part := await _next(parts, idle_seconds)) is not None:
        if not part.chunk:
            raise InvalidField("chunk", seen="a part without bytes", allowed="chunks of at least one byte")
        if len(body) + len(part.chunk) > header.size_bytes:
            raise InvalidField("chunk", seen="more bytes than announced", allowed=f"{header.size_bytes} bytes in all")
        body += part.chunk
        digest.update(part.chunk)
    note(digest.hexdigest())
    if len(body) < header.size_bytes:
        raise InvalidField("chunk", seen=f"{len(body)} bytes", allowed=f"the {header.size_bytes} bytes announced")
    if digest.hexdigest() != header.sha256:
        raise InvalidField("header.sha256", seen="bytes of another digest", allowed="the SHA-256 of the bytes sent")
    return bytes(body)


async def _next(parts: AsyncIterator[pb.UploadImageRequest], idle_seconds: float) -> pb.UploadImageRequest | None:
    try:
        async with asyncio.timeout(idle_seconds):
            return await anext(parts, None)
    except TimeoutError as error:
        raise UploadStalled(idle_seconds=idle_seconds) from error


def _checked(header: pb.UploadHeader, max_bytes: int) -> pb.UploadHeader:
    if not 1 <= header.size_bytes <= max_bytes:
        raise InvalidField("header.size_bytes", seen=str(header.size_bytes), allowed=f"1 to {max_bytes}")
    if not _SHA256.fullmatch(header.sha256):
        seen = f"{len(header.sha256)} characters"
        raise InvalidField("header.sha256", seen=seen, allowed="64 lower-case hexadecimal digits")
    return header

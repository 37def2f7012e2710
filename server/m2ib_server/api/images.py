"""Reads the images of requests off the event loop, once for requests that send the same one at the same time."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from m2ib.v1 import attribution_pb2 as pb
from m2ib_server.api.request import ReadImage, read_fit, read_image, read_tensor_image
from m2ib_server.api.uploads import UploadStore
from m2ib_server.engine import LoadedModel
from m2ib_server.settings import RequestLimits

Result = TypeVar("Result")


class Aside(Protocol):
    """Runs slow work on a thread."""

    def __call__(self, work: Callable[[], Result], /) -> Awaitable[Result]:
        """Run it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SourceImage:
    """An image as it was sent and as it was read; requests on one image share it, and it equals no other.

    Attributes:
        sha256: of the bytes that were sent, or uploaded.
        read: rendered and fitted.
    """

    sha256: str
    read: ReadImage

    @property
    def pixels(self) -> int:
        """The original's number of pixels."""
        return self.read.rendered.width * self.read.rendered.height

    @property
    def size_bytes(self) -> int:
        """What it takes in memory."""
        return self.read.rendered.pixels.nbytes + self.read.fitted.pixel_values.nbytes


class ImageReader:
    """Reads images, and keeps those lately read up to a number of bytes. One event loop's alone."""

    def __init__(
        self, uploads: UploadStore, limits: RequestLimits, *, aside: Aside, decode: Aside, cache_bytes: int
    ) -> None:
        """Read uploaded images from `uploads`; files are decoded by `decode`, all else is done by `aside`."""
        self._uploads = uploads
        self._limits = limits
        self._aside = aside
        self._decode = decode
        self.max_kept_bytes = cache_bytes
        self._kept: OrderedDict[Hashable, SourceImage] = OrderedDict()
        self.kept_bytes = 0
        self._under_way: dict[Hashable, _Reading] = {}

    async def read(self, image: pb.Image, fit: int, model: LoadedModel, note: Callable[[str], None]) -> SourceImage:
        """Read an image for a model; `note` is told its SHA-256 before anything can be wrong with it.

        Raises:
            InvalidField: one of the image's fields is not what is allowed.
            HandleUnknown: its handle is not known, or not any more.
        """
        if image.WhichOneof("source") == "tensor":
            sha256 = await self._aside(lambda: hashlib.sha256(image.tensor.data).hexdigest())
            note(sha256)
            return SourceImage(sha256=sha256, read=await self._aside(lambda: read_tensor_image(image, model)))
        encoded = self._uploads.find(image.handle) if image.handle else image.encoded
        chosen = read_fit(fit, model)
        sha256 = await self._aside(lambda: hashlib.sha256(encoded).hexdigest())
        if encoded:
            note(sha256)
        window = (image.window.center, image.window.width) if image.HasField("window") else None
        key = (model.digest, chosen, sha256, image.frame if image.HasField("frame") else None, window)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        if key not in self._under_way:
            self._under_way[key] = _Reading(self._read_encoded(key, encoded, image, fit, model, sha256))
        reading = self._under_way[key]
        try:
            return await reading.result()
        finally:
            if not reading.readers and self._under_way.get(key) is reading:
                del self._under_way[key]

    async def _read_encoded(
        self, key: Hashable, encoded: bytes, image: pb.Image, fit: int, model: LoadedModel, sha256: str
    ) -> SourceImage:
        read = await self._decode(lambda: read_image(image, encoded, fit, model, self._limits))
        source = SourceImage(sha256=sha256, read=read)
        self._keep(key, source)
        return source

    def _keep(self, key: Hashable, source: SourceImage) -> None:
        if source.size_bytes > self.max_kept_bytes:
            return
        self._kept[key] = source
        self.kept_bytes += source.size_bytes
        while self.kept_bytes > self.max_kept_bytes:
            _, forgotten = self._kept.popitem(last=False)
            self.kept_bytes -= forgotten.size_bytes


class _Reading:
    """An image that is being read, and how many wait for it; with the last one that leaves it ends."""

    def __init__(self, reading: Coroutine[None, None, SourceImage]) -> None:
        self.readers = 0
        self._task = asyncio.create_task(reading)
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody may be left to be told

    async def result(self) -> SourceImage:
        self.readers += 1
        try:
            return await asyncio.shield(self._task)  # one reader that leaves takes nobody's image away
        finally:
            self.readers -= 1
            if not self.readers:
                self._task.cancel()

"""Owns by which name a server knows each uploaded image, and sends again what the server let go of.

Concurrent callers of one image send it once: the first one sends, the others wait for the name.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from m2ib.v1 import attribution_pb2
from m2ib_client._channel import TimeLeft
from m2ib_client._errors import M2IBError, NotFoundError
from m2ib_client._handle import ImageHandle

HANDLE_UNKNOWN = "IMAGE_HANDLE_UNKNOWN"

Answer = TypeVar("Answer")
Placed: TypeAlias = Sequence[tuple[ImageHandle, attribution_pb2.Image]]
"""The images of a request that are sent by name, each with the message that has the place for it."""


def is_forgotten(error: M2IBError) -> bool:
    """Tell whether the server no longer has an uploaded image."""
    return isinstance(error, NotFoundError) and error.reason == HANDLE_UNKNOWN


class Names:
    """Which name each image has on one server; safe to share between threads."""

    def __init__(self) -> None:
        """Know none."""
        self._names: WeakKeyDictionary[ImageHandle, str] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def of(self, image: ImageHandle) -> str | None:
        """Return the image's name; None where the server is not known to have it."""
        with self._lock:
            return self._names.get(image)

    def note(self, image: ImageHandle, name: str) -> None:
        """Keep the name that the server gave."""
        with self._lock:
            self._names[image] = name

    def forget(self, image: ImageHandle, name: str) -> None:
        """Drop a name that the server refused, unless the image has a newer one by now."""
        with self._lock:
            if self._names.get(image) == name:
                del self._names[image]

    def forget_placed(self, placed: Placed) -> None:
        """Drop the names that a refused request carried."""
        for image, message in placed:
            self.forget(image, message.handle)


class Uploads:
    """Sends images for the synchronous client; safe to share between threads."""

    def __init__(self, send: Callable[[ImageHandle, float | None], str]) -> None:
        """Take what sends an image within so many seconds and returns its name."""
        self.names = Names()
        self._send = send
        self._turns: WeakKeyDictionary[ImageHandle, threading.Lock] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def name(self, image: ImageHandle, left: TimeLeft) -> str:
        """Return the image's name on the server, which is sent the image first where it has none."""
        with self._lock:
            turn = self._turns.setdefault(image, threading.Lock())
        with turn:
            name = self.names.of(image)
            if name is None:
                name = self._send(image, left.seconds())
                self.names.note(image, name)
            return name

    def fill(self, placed: Placed, left: TimeLeft) -> None:
        """Write the images' names into a request."""
        for image, message in placed:
            message.handle = self.name(image, left)

    def call(self, placed: Placed, left: TimeLeft, call: Callable[[], Answer]) -> Answer:
        """Make a call with the images' names, and once more if the server has let go of one meanwhile."""
        self.fill(placed, left)
        try:
            return call()
        except NotFoundError as error:
            if not placed or not is_forgotten(error):
                raise
        self.names.forget_placed(placed)
        self.fill(placed, left)
        return call()


class AsyncUploads:
    """`Uploads` for one event loop."""

    def __init__(self, send: Callable[[ImageHandle, float | None], Awaitable[str]]) -> None:
        """Take what sends an image within so many seconds and returns its name."""
        self.names = Names()
        self._send = send
        self._turns: WeakKeyDictionary[ImageHandle, asyncio.Lock] = WeakKeyDictionary()

    async def name(self, image: ImageHandle, left: TimeLeft) -> str:
        """Return the image's name on the server, which is sent the image first where it has none."""
        async with self._turns.setdefault(image, asyncio.Lock()):
            name = self.names.of(image)
            if name is None:
                name = await self._send(image, left.seconds())
                self.names.note(image, name)
            return name

    async def fill(self, placed: Placed, left: TimeLeft) -> None:
        """Write the images' names into a request."""
        for image, message in placed:
            message.handle = await self.name(image, left)

    async def call(self, placed: Placed, left: TimeLeft, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """Make a call with the images' names, and once more if the server has let go of one meanwhile."""
        await self.fill(placed, left)
        try:
            return await call()
        except NotFoundError as error:
            if not placed or not is_forgotten(error):
                raise
        self.names.forget_placed(placed)
        await self.fill(placed, left)
        return await call()

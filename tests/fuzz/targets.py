"""What atheris feeds with bytes: the reader of images, and the attribution service inside this very process."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from fakes.image_files import SEEDS
from good_calls import GOOD
from knock import CANARY, STATUSES
from m2ib.v1 import attribution_pb2 as pb
from m2ib_server.api import AttributionServicer, Desk, OpenGate, Reception
from m2ib_server.bootstrap import build
from m2ib_server.errors import InvalidField
from m2ib_server.imaging import ImageLimits, render
from m2ib_server.settings import RequestLimits, ServerSettings

LIMITS = ImageLimits(max_bytes=1 << 20, max_pixels=1 << 20)
BETWEEN = b"\xf0\x9f\xa7\xa8"  # stands between the messages of a stream


class Images:
    """Whatever the bytes, an image comes out or an InvalidField does, which quotes nothing."""

    def seeds(self) -> Iterator[bytes]:
        """A file of each format."""
        return (make() for make in SEEDS.values())

    def feed(self, encoded: bytes) -> bool:
        """Render them and return whether there was an image."""
        try:
            render(encoded, limits=LIMITS)
        except InvalidField as refusal:
            assert refusal.field.startswith("image.")
            assert CANARY not in str(refusal)
            return False
        return True


class Messages:
    """Whatever is sent to whichever method, it ends with a documented status, which quotes nothing.

    The first byte names the method, the others are its messages.
    """

    def __init__(self, models: Path) -> None:
        """Load the models below a folder."""
        requests = RequestLimits(
            max_steps=20, max_samples=64, max_image_bytes=1 << 20, max_image_pixels=1 << 20, max_text_characters=2000
        )
        settings = ServerSettings(models=models, listen="127.0.0.1:0", device="cpu", threads=1, requests=requests)
        self._methods = list(pb.DESCRIPTOR.services_by_name["AttributionService"].methods)
        self._rooms = build(settings)
        self._rooms.repository.load_all()
        self._loop = asyncio.new_event_loop()
        self._desk, self._servicer = self._loop.run_until_complete(self._open(settings))

    def seeds(self) -> Iterator[bytes]:
        """A good call of each method."""
        for index, method in enumerate(self._methods):
            yield bytes([index]) + BETWEEN.join(make().SerializeToString() for make in GOOD[method.name])

    def feed(self, fed: bytes) -> str:
        """Make the call that the bytes say and return its status."""
        method = self._methods[fed[0] % len(self._methods)] if fed else self._methods[0]
        kind = GetMessageClass(method.input_type)
        try:
            messages = [kind.FromString(raw) for raw in fed[1:].split(BETWEEN)]
        except DecodeError:
            return "INVALID_ARGUMENT"  # refused before there is a call
        return self._loop.run_until_complete(self._call(method, messages))

    def close(self) -> None:
        """End the engine and the threads."""
        self._loop.run_until_complete(self._shut())
        self._loop.close()
        self._rooms.fleet.close()

    async def _open(self, settings: ServerSettings) -> tuple[Desk, AttributionServicer]:
        desk = Desk(self._rooms.catalogue, self._rooms.fleet, settings)
        return desk, AttributionServicer(desk, Reception(OpenGate(), []), settings)

    async def _shut(self) -> None:
        self._desk.close()

    async def _call(self, method: Any, messages: list[Message]) -> str:
        sent = _stream_of(messages) if method.client_streaming else messages[0]
        handler = getattr(self._servicer, method.name)
        try:
            async with asyncio.timeout(60):
                if method.server_streaming:
                    async for _ in handler(sent, _Context()):
                        pass
                else:
                    await handler(sent, _Context())
        except _Aborted as aborted:
            assert aborted.code in STATUSES[AttributionServicer.name][method.name], aborted
            assert CANARY.lower() not in aborted.said.lower(), aborted
            return aborted.code
        return "OK"


class _Aborted(Exception):
    """The servicer ended the call."""

    def __init__(self, code: str, said: str) -> None:
        super().__init__(f"{code}: {said}")
        self.code, self.said = code, said


class _Context:
    """What gRPC hands to a servicer, of a caller without a deadline, an address or metadata."""

    def time_remaining(self) -> None:
        """Never ends."""

    def invocation_metadata(self) -> tuple[()]:
        """Say nothing."""
        return ()

    def peer(self) -> str:
        """Come from nowhere."""
        return ""

    def set_trailing_metadata(self, metadata: object) -> None:
        """Take it."""

    async def abort(self, code: Any, details: str, trailing_metadata: object = ()) -> None:
        """End the call."""
        raise _Aborted(code.name, f"{details} {trailing_metadata}")


async def _stream_of(messages: list[Message]) -> AsyncIterator[Message]:
    for message in messages:
        yield message

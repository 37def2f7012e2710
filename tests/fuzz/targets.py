"""What atheris feeds with bytes: the reader of images, and the services inside this very process."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from fakes.image_files import SEEDS
from good_calls import GOOD, GOOD_CHANGES, GOOD_INFERENCES, INFERENCE
from knock import CANARY, STATUSES
from m2ib.oip import inference_pb2 as oip
from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import model_repository_pb2 as repository_pb
from m2ib_server.admin import ModelRepositoryServicer
from m2ib_server.api import AttributionServicer, Desk, OpenGate, Reception
from m2ib_server.bootstrap import build
from m2ib_server.errors import InvalidField
from m2ib_server.imaging import ImageLimits, render
from m2ib_server.oip import InferenceServicer, InferenceStatistics
from m2ib_server.settings import RequestLimits, ServerSettings
from m2ib_server.watch import HealthBoard

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

    service = pb.DESCRIPTOR.services_by_name["AttributionService"]
    good = GOOD

    def __init__(self, models: Path) -> None:
        """Load the models below a folder."""
        requests = RequestLimits(
            max_steps=20, max_samples=64, max_image_bytes=1 << 20, max_image_pixels=1 << 20, max_text_characters=2000
        )
        settings = ServerSettings(models=models, listen="127.0.0.1:0", device="cpu", threads=1, requests=requests)
        self._methods = list(self.service.methods)
        self._rooms = build(settings)
        self._rooms.repository.load_all()
        self._loop = asyncio.new_event_loop()
        self._desk, self._servicer = self._loop.run_until_complete(self._open(settings))

    def seeds(self) -> Iterator[bytes]:
        """A good call of each method."""
        for index, method in enumerate(self._methods):
            yield bytes([index]) + BETWEEN.join(make().SerializeToString() for make in self.good[method.name])

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

    async def _open(self, settings: ServerSettings) -> tuple[Desk, Any]:
        desk = Desk(self._rooms.catalogue, self._rooms.fleet, settings)
        return desk, self._servicer_of(desk, Reception(OpenGate(), []), settings)

    def _servicer_of(self, desk: Desk, reception: Reception, settings: ServerSettings) -> Any:
        return AttributionServicer(desk, reception, settings)

    async def _shut(self) -> None:
        self._desk.close()

    async def _call(self, method: Any, messages: list[Message]) -> str:
        sent = _stream_of(messages) if method.client_streaming else messages[0]
        handler = getattr(self._servicer, method.name)
        try:
            async with asyncio.timeout(60):
                if method.server_streaming:
                    async for answer in handler(sent, _Context()):
                        self._check(answer)
                else:
                    await handler(sent, _Context())
        except _Aborted as aborted:
            assert aborted.code in STATUSES[self.service.full_name][method.name], aborted
            assert CANARY.lower() not in aborted.said.lower(), aborted
            return aborted.code
        return "OK"

    def _check(self, answer: Message) -> None:
        """Hold one message of a stream against the law."""


class Inferences(Messages):
    """The same for the Open Inference Protocol: tensors that lie, elements whose lengths overrun."""

    service = INFERENCE
    good = GOOD_INFERENCES

    def _servicer_of(self, desk: Desk, reception: Reception, settings: ServerSettings) -> Any:
        return InferenceServicer(
            desk, reception, self._rooms.repository, HealthBoard(), InferenceStatistics(), settings
        )

    def _check(self, answer: Message) -> None:
        assert isinstance(answer, oip.ModelStreamInferResponse)
        assert CANARY.lower() not in answer.error_message.lower()
        assert "internal" not in answer.error_message


class Changes(Messages):
    """The same for the model repository, whose one version is put back into service before each call."""

    service = repository_pb.DESCRIPTOR.services_by_name["ModelRepository"]
    good = GOOD_CHANGES

    def _servicer_of(self, desk: Desk, reception: Reception, settings: ServerSettings) -> Any:
        return ModelRepositoryServicer(self._rooms.repository, reception)

    async def _call(self, method: Any, messages: list[Message]) -> str:
        await self._rooms.repository.swap("tiny", "1")
        await self._rooms.repository.delete_alias("tiny", "champion")
        return await super()._call(method, messages)


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

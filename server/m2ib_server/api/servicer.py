"""The attribution service: one short method for each RPC, over the rooms that do the work."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import ExitStack, aclosing
from typing import TypeVar

import torch
from torch import Tensor

from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import attribution_pb2_grpc
from m2ib_server.api import answer, request
from m2ib_server.api.batch import Batch
from m2ib_server.api.call import Call
from m2ib_server.api.desk import Desk
from m2ib_server.api.explainer import reply_of
from m2ib_server.api.feed import StepFeed
from m2ib_server.api.intake import Place
from m2ib_server.api.reception import Last, Reception, answered, streamed
from m2ib_server.api.uploads import receive
from m2ib_server.engine import Caller, Job, LoadedModel, Priority
from m2ib_server.errors import InvalidField
from m2ib_server.methods import EncoderInput, score, score_work
from m2ib_server.settings import ServerSettings
from m2ib_server.text import EncodedText

Result = TypeVar("Result")


class AttributionServicer(attribution_pb2_grpc.AttributionServiceServicer):
    """Implements m2ib.v1.AttributionService. Made and used on one event loop."""

    name = pb.DESCRIPTOR.services_by_name["AttributionService"].full_name
    scope = "explain"

    def __init__(self, desk: Desk, reception: Reception, settings: ServerSettings) -> None:
        """Serve the models of the desk's catalogue on its fleet's engines."""
        self.reception = reception
        self._desk = desk
        self._explainer = desk.explainer
        self._limits = settings.requests
        self._max_rows = settings.engine.max_rows
        self._idle_seconds = settings.intake.upload_idle_seconds

    @answered
    async def Explain(self, wire: pb.ExplainRequest, call: Call) -> pb.ExplainResponse:
        """Explain one pair."""
        return pb.ExplainResponse(explanation=await self._explainer.explain(wire, call, Priority.INTERACTIVE))

    @streamed
    async def ExplainStream(
        self, wire: pb.ExplainStreamRequest, call: Call
    ) -> AsyncGenerator[pb.ExplainStreamResponse | Last[pb.ExplainStreamResponse]]:
        """Explain one pair and tell of every step."""
        feed = StepFeed(asyncio.get_running_loop())
        async with self._explainer.submitted(wire.request, call, Priority.INTERACTIVE, feed.put) as submitted:
            submitted.caller.reply.add_done_callback(lambda _: feed.end())
            async for step in feed.steps():
                progress = answer.write_progress(step, submitted.prepared.model, partial_maps=wire.partial_maps)
                yield pb.ExplainStreamResponse(progress=progress)
            yield Last(pb.ExplainStreamResponse(explanation=await self._explainer.finish(submitted, call)))

    @streamed
    async def ExplainBatch(
        self, wires: AsyncIterator[pb.ExplainBatchRequest], call: Call
    ) -> AsyncGenerator[pb.ExplainBatchResponse]:
        """Explain many pairs side by side."""
        batch = Batch(self._explainer, self.reception, call, max_in_flight=self._limits.max_batch_in_flight)
        async with aclosing(batch.answers(wires)) as answers:
            async for each in answers:
                yield each

    @answered
    async def UploadImage(self, wires: AsyncIterator[pb.UploadImageRequest], call: Call) -> pb.UploadImageResponse:
        """Keep an image for a while."""
        with self._desk.intake.upload(call.caller):
            handle = await receive(
                wires,
                self._desk.uploads,
                call.images.append,
                caller=call.caller,
                max_bytes=self._limits.max_image_bytes,
                idle_seconds=self._idle_seconds,
            )
        return pb.UploadImageResponse(
            handle=handle, time_to_live=answer.duration_of(self._desk.uploads.seconds_to_live)
        )

    @answered
    async def Score(self, wire: pb.ScoreRequest, call: Call) -> pb.ScoreResponse:
        """Score every image against every text."""
        with (
            self._desk.intake.place(wire.ByteSize(), call.caller) as place,
            self._explainer.leased(wire.model, call) as model,
        ):
            return await self._score(wire, model, call, place)

    @answered
    async def ListModels(self, wire: pb.ListModelsRequest, call: Call) -> pb.ListModelsResponse:
        """List the models that are loaded."""
        return pb.ListModelsResponse(models=[self._describe(model) for model in self._desk.catalogue])

    @answered
    async def GetModel(self, wire: pb.GetModelRequest, call: Call) -> pb.GetModelResponse:
        """Describe one model."""
        with self._explainer.leased(wire.model, call) as model:
            return pb.GetModelResponse(model=self._describe(model))

    async def _score(self, wire: pb.ScoreRequest, model: LoadedModel, call: Call, place: Place) -> pb.ScoreResponse:
        request.check_count("images", len(wire.images), self._limits.max_score_images)
        request.check_count("texts", len(wire.texts), self._limits.max_score_texts)
        with call.stage("prepare"):
            images, texts = await self._read(wire, model, call, place)
        similarities = await self._similarities(images, [model.text_input(text) for text in texts], model, call)
        return pb.ScoreResponse(
            similarities=answer.write_tensor(similarities.numpy()),
            model=model.manifest.name,
            version=model.manifest.version,
            digest=model.digest,
            text_lengths=[answer.write_length(text) for text in texts],
        )

    async def _read(
        self, wire: pb.ScoreRequest, model: LoadedModel, call: Call, place: Place
    ) -> tuple[Sequence[EncoderInput], Sequence[EncodedText]]:
        """Read every image and every text."""
        texts = [
            await _entry("text", f"texts[{index}]", self._read_text(text, model, truncate=wire.truncate_text))
            for index, text in enumerate(wire.texts)
        ]
        images = [
            await _entry("image", f"images[{index}]", self._image_input(image, wire.fit, model, call, place))
            for index, image in enumerate(wire.images)
        ]
        return images, texts

    async def _similarities(
        self, images: Sequence[EncoderInput], texts: Sequence[EncoderInput], model: LoadedModel, call: Call
    ) -> Tensor:
        """Return the similarities [images, texts]; each image is encoded where its features are kept."""
        similarities = torch.empty(len(images), len(texts))
        with ExitStack() as stakes:
            asked: list[tuple[Sequence[int], Caller[Tensor]]] = []
            for engine, places in self._desk.fleet.shares([image.digest for image in images]).items():
                share = {place: images[place] for place in places}
                rows = min(self._max_rows, len(share) + len(texts))
                method, work = score(share, texts, rows=rows), score_work(share.values(), texts)
                caller: Caller[Tensor] = Caller(deadline_ns=call.deadline_ns)
                job = engine.submit(Job(method, model=model.digest, rows=rows, work=work), caller)
                stakes.callback(_note_stages, call, job, time.monotonic_ns())
                stakes.callback(caller.cancel)
                asked.append((places, caller))
            for places, caller in asked:
                similarities[places] = await reply_of(caller)
        return similarities

    def _describe(self, model: LoadedModel) -> pb.Model:
        return answer.write_model(model, self._limits, image_seconds=self._desk.uploads.seconds_to_live)

    async def _read_text(self, text: str, model: LoadedModel, *, truncate: bool) -> EncodedText:
        return await self._desk.workers.aside(lambda: self._explainer.read_text(text, model, truncate=truncate))

    async def _image_input(
        self, image: pb.Image, fit: int, model: LoadedModel, call: Call, place: Place
    ) -> EncoderInput:
        """Read an image and keep only what the model takes: the rendering may be large and there may be many."""
        pixel_values = (await self._desk.images.read(image, fit, model, call.images.append)).read.fitted.pixel_values
        place.grow(pixel_values.nbytes)
        return model.image_input(pixel_values)


def _note_stages(call: Call, job: Job[Tensor], since_ns: int) -> None:
    call.stages += job.periods(since_ns=since_ns, until_ns=time.monotonic_ns())


async def _entry(name: str, entry: str, reading: Awaitable[Result]) -> Result:
    """Read an entry of a list; a fault names the entry."""
    try:
        return await reading
    except InvalidField as error:
        raise error.in_list(name, entry) from error

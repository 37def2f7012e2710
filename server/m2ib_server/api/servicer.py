"""The attribution service: reads a request, hands a method to the engine, writes the answer."""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import CancelledError as JobCancelled
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from torch import Tensor

from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import attribution_pb2_grpc
from m2ib_server.api import answer, request
from m2ib_server.api.call import Call, answered, streamed
from m2ib_server.api.feed import StepFeed
from m2ib_server.engine import Catalogue, Engine, Job, LoadedModel
from m2ib_server.errors import Draining, InvalidField
from m2ib_server.methods import Attribution, M2IBSettings, Side, StepDone, explain, score
from m2ib_server.methods.encoder import HEAD
from m2ib_server.methods.m2ib import NAME
from m2ib_server.settings import ServerSettings
from m2ib_server.text import EncodedText

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
_PREPARING_THREADS = 2
_MESSAGE_MARGIN_BYTES = 1 << 20  # for what an answer holds besides maps and pictures


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request that is read and ready for the engine.

    Attributes:
        wire: the request as it came.
        model: the model it asks for.
        image: the image.
        text: the text.
        settings: the settings in force.
        sides: the sides to explain.
        outputs: what to return besides the grid.
        seconds: how long reading took.
    """

    wire: pb.ExplainRequest
    model: LoadedModel
    image: request.ReadImage
    text: EncodedText
    settings: M2IBSettings
    sides: tuple[Side, ...]
    outputs: frozenset[int]
    seconds: float


class AttributionServicer(attribution_pb2_grpc.AttributionServiceServicer):
    """Implements m2ib.v1.AttributionService."""

    def __init__(self, catalogue: Catalogue, engine: Engine, settings: ServerSettings) -> None:
        """Serve the catalogue's models on the engine."""
        self._catalogue = catalogue
        self._engine = engine
        self._settings = settings
        self._limits = settings.requests
        self._max_bytes = settings.max_message_bytes - _MESSAGE_MARGIN_BYTES
        self._workers = ThreadPoolExecutor(_PREPARING_THREADS, thread_name_prefix="m2ib-prepare")
        self._software = answer.software()

    @answered
    async def Explain(self, wire: pb.ExplainRequest, call: Call) -> pb.ExplainResponse:
        """Explain one pair."""
        prepared = await self._prepare(wire, call)
        job = self._explanation_job(prepared, call)
        attribution = await self._finish(job)
        return pb.ExplainResponse(explanation=await self._write(prepared, job, attribution, call))

    @streamed
    async def ExplainStream(
        self, wire: pb.ExplainStreamRequest, call: Call
    ) -> AsyncGenerator[pb.ExplainStreamResponse]:
        """Explain one pair and tell of every step."""
        prepared = await self._prepare(wire.request, call)
        feed = StepFeed(asyncio.get_running_loop())
        job = self._explanation_job(prepared, call, feed.put)
        job.reply.add_done_callback(lambda _: feed.end())
        try:
            async for step in feed.steps():
                progress = answer.write_progress(step, prepared.model, partial_maps=wire.partial_maps)
                yield pb.ExplainStreamResponse(progress=progress)
        finally:
            job.cancel()  # a reader that leaves in between frees its place; a job that is done does not mind
        attribution = await self._finish(job)
        explanation = await self._write(prepared, job, attribution, call)
        yield pb.ExplainStreamResponse(explanation=explanation)

    @answered
    async def Score(self, wire: pb.ScoreRequest, call: Call) -> pb.ScoreResponse:
        """Score every image against every text."""
        model = self._find(wire.model, call)
        request.check_count("images", len(wire.images), self._limits.max_score_images)
        request.check_count("texts", len(wire.texts), self._limits.max_score_texts)
        texts = [
            await self._entry("text", f"texts[{index}]", self._read_text, text, model, truncate=wire.truncate_text)
            for index, text in enumerate(wire.texts)
        ]
        images = [
            await self._entry("image", f"images[{index}]", request.read_input, image, wire.fit, model, self._limits)
            for index, image in enumerate(wire.images)
        ]
        method = score(
            [model.image_input(pixel_values) for pixel_values in images],
            [model.text_input(text) for text in texts],
        )
        job: Job[Tensor] = Job(method, model=model.digest, deadline_ns=call.deadline_ns)
        self._engine.submit(job)
        similarities = await self._finish(job)
        return pb.ScoreResponse(
            similarities=answer.write_tensor(similarities.numpy()),
            model=model.manifest.name,
            version=model.manifest.version,
            digest=model.digest,
            text_lengths=[answer.write_length(text) for text in texts],
        )

    @answered
    async def ListModels(self, wire: pb.ListModelsRequest, call: Call) -> pb.ListModelsResponse:
        """List the models that are loaded."""
        return pb.ListModelsResponse(models=[answer.write_model(model, self._limits) for model in self._catalogue])

    @answered
    async def GetModel(self, wire: pb.GetModelRequest, call: Call) -> pb.GetModelResponse:
        """Describe one model."""
        return pb.GetModelResponse(model=answer.write_model(self._find(wire.model, call), self._limits))

    def close(self) -> None:
        """End the threads that read and write."""
        self._workers.shutdown(wait=False, cancel_futures=True)

    def _find(self, name: str, call: Call) -> LoadedModel:
        model = self._catalogue.find(name)
        call.model = model.manifest.name
        return model

    async def _prepare(self, wire: pb.ExplainRequest, call: Call) -> Prepared:
        """Read a request, cheap checks first."""
        model = self._find(wire.model, call)
        settings = request.read_settings(wire.settings, model, self._limits)
        sides, outputs = request.read_sides(wire.sides), request.read_outputs(wire.outputs)
        text = await self._aside(self._read_text, wire.text, model, truncate=wire.truncate_text)
        image = await self._aside(request.read_image, wire.image, wire.fit, model, self._limits)
        if Side.IMAGE in sides:
            answer.check_original_map(image.rendered, outputs, self._max_bytes)
        return Prepared(
            wire=wire,
            model=model,
            image=image,
            text=text,
            settings=settings,
            sides=sides,
            outputs=outputs,
            seconds=call.seconds,
        )

    def _read_text(self, text: str, model: LoadedModel, *, truncate: bool) -> EncodedText:
        request.check_text_size("text", text, self._limits)
        return model.tokeniser.encode(text, truncate=truncate)

    def _explanation_job(
        self, prepared: Prepared, call: Call, on_step: Callable[[StepDone], None] | None = None
    ) -> Job[Attribution]:
        model = prepared.model
        image = model.image_input(prepared.image.fitted.pixel_values)
        method = explain(image, model.text_input(prepared.text), prepared.settings, prepared.sides)
        job: Job[Attribution] = Job(method, model=model.digest, on_step=on_step, deadline_ns=call.deadline_ns)
        self._engine.submit(job)
        return job

    async def _finish(self, job: Job[Result]) -> Result:
        """Wait for a job; a caller that leaves takes its job along."""
        try:
            return await asyncio.wrap_future(job.reply)
        except JobCancelled as error:  # the engine dropped it: the caller is still there, so we are closing
            raise Draining from error
        finally:
            job.cancel()

    async def _write(
        self, prepared: Prepared, job: Job[Attribution], attribution: Attribution, call: Call
    ) -> pb.Explanation:
        started = time.monotonic()
        explanation = await self._aside(self._explanation, prepared, job, attribution)
        render = time.monotonic() - started
        timings = answer.write_timings(job.seconds, prepare=prepared.seconds, render=render, total=call.seconds)
        explanation.timings.CopyFrom(timings)
        return explanation

    def _explanation(self, prepared: Prepared, job: Job[Attribution], attribution: Attribution) -> pb.Explanation:
        model, course = prepared.model, attribution.course
        rank = model.references.rank(attribution.image_embedding, attribution.similarity)
        explanation = pb.Explanation(
            similarity=attribution.similarity,
            reference_rank=answer.write_rank(rank),
            provenance=self._provenance(prepared, job),
        )
        if Side.IMAGE in course:
            image = answer.write_image(course[Side.IMAGE], prepared.image, model, prepared.outputs, self._max_bytes)
            explanation.image.CopyFrom(image)
        if Side.TEXT in course:
            explanation.text.CopyFrom(answer.write_text(course[Side.TEXT], prepared.text, model))
        return explanation

    def _provenance(self, prepared: Prepared, job: Job[Attribution]) -> pb.Provenance:
        model, image = prepared.model, prepared.wire.image
        sent = image.encoded or image.tensor.data
        return pb.Provenance(
            model=model.manifest.name,
            version=model.manifest.version,
            digest=model.digest,
            method=NAME,
            settings=answer.write_settings(prepared.settings),
            fit=answer.PROTO_BY_FIT[prepared.image.fit],
            image_sha256=hashlib.sha256(sent).hexdigest(),
            rendering=answer.write_rendering(prepared.image.rendered.rendering),
            text_length=answer.write_length(prepared.text),
            image_features_cached=HEAD[Side.IMAGE] in job.cached_roles,
            text_features_cached=HEAD[Side.TEXT] in job.cached_roles,
            device=self._settings.device,
            software=self._software,
        )

    async def _entry(
        self,
        name: str,
        entry: str,
        read: Callable[Arguments, Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """Read an entry of a list off the event loop; a fault names the entry."""
        try:
            return await self._aside(read, *args, **kwargs)
        except InvalidField as error:
            raise error.in_list(name, entry) from error

    async def _aside(
        self, call: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Run slow work off the event loop."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._workers, lambda: call(*args, **kwargs))

"""Takes one pair from request to explanation: reads it, hands a method to an engine, writes the answer."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from m2ib.v1 import attribution_pb2 as pb
from m2ib_server.api import answer, request
from m2ib_server.api.call import Call
from m2ib_server.api.images import ImageReader, SourceImage
from m2ib_server.api.intake import Intake
from m2ib_server.api.pace import AnswerPace
from m2ib_server.api.workers import Workers
from m2ib_server.engine import Caller, Catalogue, Fleet, Job, LoadedModel, Priority
from m2ib_server.methods import (
    Attribution,
    M2IBSettings,
    Side,
    StepDone,
    attribution_so_far,
    explain,
    work,
)
from m2ib_server.methods.encoder import HEAD, TAIL
from m2ib_server.methods.m2ib import NAME
from m2ib_server.settings import ServerSettings
from m2ib_server.text import EncodedText

_MESSAGE_MARGIN_BYTES = 1 << 20  # for what an answer holds besides maps and pictures


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request that is read and ready for an engine.

    Attributes:
        model: the model it asks for.
        image: the image.
        text: the text.
        text_sha256: of the text as it was sent.
        settings: the settings in force.
        effort: the effort it names, published when it names none.
        sides: the sides to explain.
        outputs: what to return besides the grid.
        priority: its class.
        wants_partial: whether a partial answer is wanted before the deadline.
        seconds: how long reading took.
    """

    model: LoadedModel
    image: SourceImage
    text: EncodedText
    text_sha256: str
    settings: M2IBSettings
    effort: int
    sides: tuple[Side, ...]
    outputs: frozenset[int]
    priority: Priority
    wants_partial: bool
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """A request that an engine has admitted.

    Attributes:
        prepared: the request.
        job: its job, or the identical one that was under way.
        caller: its stake in the job.
    """

    prepared: Prepared
    job: Job[Attribution]
    caller: Caller[Attribution]


class Explainer:
    """Explains pairs. One event loop's alone."""

    def __init__(
        self,
        catalogue: Catalogue,
        fleet: Fleet,
        images: ImageReader,
        intake: Intake,
        workers: Workers,
        settings: ServerSettings,
    ) -> None:
        """Explain with the catalogue's models on the fleet's engines."""
        self._catalogue = catalogue
        self._fleet = fleet
        self._images = images
        self._intake = intake
        self._workers = workers
        self._settings = settings
        self._max_bytes = settings.max_message_bytes - _MESSAGE_MARGIN_BYTES
        self._software = answer.software()
        self._pace = AnswerPace()

    async def explain(self, wire: pb.ExplainRequest, call: Call, default: Priority) -> pb.Explanation:
        """Explain one pair; `default` is the class of a request that names none.

        Raises:
            ServiceError: whatever is wrong with the request, or with the server.
        """
        async with self.submitted(wire, call, default) as submitted:
            return await self.finish(submitted, call)

    @asynccontextmanager
    async def submitted(
        self,
        wire: pb.ExplainRequest,
        call: Call,
        default: Priority,
        on_step: Callable[[StepDone], None] | None = None,
    ) -> AsyncIterator[Submitted]:
        """Read a request and hand it to an engine; whatever ends the body, its place is free after it."""
        with self._intake.place(wire.ByteSize(), call.caller) as place, self.leased(wire.model, call) as model:
            with call.stage("prepare"):
                prepared = await self._prepare(wire, model, call, default)
            place.share(prepared.image)
            since_ns = time.monotonic_ns()
            submitted = self._submit(prepared, call, on_step)
            try:
                yield submitted
            finally:
                submitted.caller.cancel()  # a reader that leaves takes its stake along; one that is answered has none
                call.stages += submitted.job.periods(since_ns=since_ns, until_ns=time.monotonic_ns())

    async def finish(self, submitted: Submitted, call: Call) -> pb.Explanation:
        """Wait for a job and write its answer."""
        attribution = await reply_of(submitted.caller)
        explanation, render = await self._workers.answer(
            lambda: _timed(lambda: self._explanation(submitted, attribution), call)
        )
        prepared = submitted.prepared
        self._pace.observe(prepared.outputs, prepared.image.pixels, render)
        call.timings = answer.write_timings(
            submitted.job.seconds, prepare=prepared.seconds, render=render, total=call.seconds
        )
        call.shared = submitted.caller.is_shared
        explanation.timings.CopyFrom(call.timings)
        return explanation

    @contextmanager
    def leased(self, name: str, call: Call) -> Iterator[LoadedModel]:
        """Hold the model of a request: it stays loaded until the body ends."""
        with self._catalogue.lease(name) as model:
            call.model, call.version, call.digest = model.manifest.name, model.manifest.version, model.digest
            yield model

    def read_text(self, text: str, model: LoadedModel, *, truncate: bool) -> EncodedText:
        """Tokenise a text. Slow: not for an event loop."""
        request.check_text_size("text", text, self._settings.requests)
        return model.tokeniser.encode(text, truncate=truncate)

    async def _prepare(self, wire: pb.ExplainRequest, model: LoadedModel, call: Call, default: Priority) -> Prepared:
        """Read a request, cheap checks first."""
        settings = request.read_settings(wire.settings, model, self._settings.requests)
        effort = request.effort_of(wire.settings)
        call.settings = answer.write_settings(settings, effort)
        sides, outputs = request.read_sides(wire.sides), request.read_outputs(wire.outputs)
        priority = request.read_priority(wire.priority, default)
        wants_partial = request.read_on_deadline(wire.on_deadline)
        text = await self._workers.aside(lambda: self.read_text(wire.text, model, truncate=wire.truncate_text))
        image = await self._images.read(wire.image, wire.fit, model, call.images.append)
        if Side.IMAGE in sides:
            answer.check_original_map(image.read.rendered, outputs, self._max_bytes)
        return Prepared(
            model=model,
            image=image,
            text=text,
            text_sha256=hashlib.sha256(wire.text.encode()).hexdigest(),
            settings=settings,
            effort=effort,
            sides=sides,
            outputs=outputs,
            priority=priority,
            wants_partial=wants_partial,
            seconds=call.seconds,
        )

    def _submit(self, prepared: Prepared, call: Call, on_step: Callable[[StepDone], None] | None) -> Submitted:
        model, settings, sides = prepared.model, prepared.settings, prepared.sides
        image = model.image_input(prepared.image.read.fitted.pixel_values)
        text = model.text_input(prepared.text)
        job: Job[Attribution] = Job(
            explain(image, text, settings, sides),
            model=model.digest,
            key=(model.digest, image.digest, text.digest, settings, frozenset(sides)),
            rows=settings.rows,
            work=work(settings, sides),
            priority=prepared.priority,
            so_far=attribution_so_far,
        )
        caller: Caller[Attribution] = Caller(
            on_step=on_step, deadline_ns=self._deadline_ns(prepared, call), wants_partial=prepared.wants_partial
        )
        engine = self._fleet.engine_for(image.digest)
        return Submitted(prepared=prepared, job=engine.submit(job, caller), caller=caller)

    def _deadline_ns(self, prepared: Prepared, call: Call) -> int | None:
        """Return by when the engine must be done; a partial answer has to be written and sent before the deadline."""
        if call.deadline_ns is None or not prepared.wants_partial:
            return call.deadline_ns
        left = (call.deadline_ns - time.monotonic_ns()) / 1e9
        return call.deadline_ns - int(1e9 * self._pace.seconds(prepared.outputs, prepared.image.pixels, left=left))

    def _explanation(self, submitted: Submitted, attribution: Attribution) -> pb.Explanation:
        prepared, course = submitted.prepared, attribution.course
        model = prepared.model
        rank = model.references.rank(attribution.image_embedding, attribution.similarity)
        explanation = pb.Explanation(
            similarity=attribution.similarity,
            reference_rank=answer.write_rank(rank),
            provenance=self._provenance(submitted),
            partial=attribution.is_partial,
        )
        if Side.IMAGE in course:
            image = answer.write_image(
                course[Side.IMAGE], prepared.image.read, model, prepared.outputs, self._max_bytes
            )
            explanation.image.CopyFrom(image)
        if Side.TEXT in course:
            explanation.text.CopyFrom(answer.write_text(course[Side.TEXT], prepared.text, model))
        return explanation

    def _provenance(self, submitted: Submitted) -> pb.Provenance:
        prepared, cached = submitted.prepared, submitted.job.cached_roles
        model, image = prepared.model, prepared.image
        return pb.Provenance(
            model=model.manifest.name,
            version=model.manifest.version,
            digest=model.digest,
            method=NAME,
            settings=answer.write_settings(prepared.settings, prepared.effort),
            fit=answer.PROTO_BY_FIT[image.read.fit],
            image_sha256=image.sha256,
            text_sha256=prepared.text_sha256,
            rendering=answer.write_rendering(image.read.rendered.rendering),
            text_length=answer.write_length(prepared.text),
            image_features_cached=HEAD[Side.IMAGE] in cached,
            text_features_cached=HEAD[Side.TEXT] in cached,
            image_embedding_cached=TAIL[Side.IMAGE] in cached,
            text_embedding_cached=TAIL[Side.TEXT] in cached,
            shared=submitted.caller.is_shared,
            device=self._settings.device,
            software=self._software,
        )


def _timed(write: Callable[[], pb.Explanation], call: Call) -> tuple[pb.Explanation, float]:
    """Return an answer and the seconds that writing it took."""
    started = time.monotonic()
    with call.stage("render"):
        return write(), time.monotonic() - started


async def reply_of(caller: Caller[Any]) -> Any:
    """Wait for the answer to a caller; one that leaves takes its stake along."""
    try:
        return await asyncio.wrap_future(caller.reply)
    finally:
        caller.cancel()

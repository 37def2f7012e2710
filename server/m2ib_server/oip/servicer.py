"""The Open Inference Protocol's service: one short method for each RPC, over the explainer that all services share."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import ExitStack, aclosing, contextmanager

from m2ib.oip import inference_pb2 as oip
from m2ib.v1 import attribution_pb2 as pb
from m2ib_server import __version__
from m2ib_server.api.call import Call
from m2ib_server.api.desk import Desk
from m2ib_server.api.feed import StepFeed
from m2ib_server.api.reception import Reception, answered, answered_in_every_phase, streamed
from m2ib_server.engine import LoadedModel, Priority
from m2ib_server.errors import ModelUnknown
from m2ib_server.oip.answer import write_answer, write_step
from m2ib_server.oip.description import write_config, write_metadata
from m2ib_server.oip.health import Health
from m2ib_server.oip.index import Shelves, write_index
from m2ib_server.oip.parameters import renamed_faults
from m2ib_server.oip.refusals import Refusals
from m2ib_server.oip.request import Asked, read_request
from m2ib_server.oip.statistics import InferenceStatistics
from m2ib_server.oip.stream import InferStream, Tell
from m2ib_server.settings import ServerSettings

SERVER_NAME = "m2ib-server"
EXTENSIONS = ("model_configuration", "parameters", "schedule_policy", "statistics")
UNKNOWN_MODEL = "Request for unknown model"  # what clients of Triton look for in a NOT_FOUND


class InferenceServicer(Refusals):
    """Implements inference.GRPCInferenceService. Made and used on one event loop."""

    def __init__(
        self,
        desk: Desk,
        reception: Reception,
        shelves: Shelves,
        health: Health,
        statistics: InferenceStatistics,
        settings: ServerSettings,
    ) -> None:
        """Serve the models of the desk's catalogue, which come from `shelves`; `statistics` observe the reception."""
        self.reception = reception
        self._desk = desk
        self._shelves = shelves
        self._health = health
        self._statistics = statistics
        self._settings = settings

    @answered_in_every_phase
    async def ServerLive(self, wire: oip.ServerLiveRequest, call: Call) -> oip.ServerLiveResponse:
        """Give a sign of life."""
        return oip.ServerLiveResponse(live=True)

    @answered_in_every_phase
    async def ServerReady(self, wire: oip.ServerReadyRequest, call: Call) -> oip.ServerReadyResponse:
        """Say whether the server serves."""
        return oip.ServerReadyResponse(ready=self._health.is_serving())

    @answered_in_every_phase
    async def ModelReady(self, wire: oip.ModelReadyRequest, call: Call) -> oip.ModelReadyResponse:
        """Say whether a version serves, without one that which the name leads to; what is not loaded does not."""
        try:
            with self._leased(wire.name, wire.version, call) as model:
                return oip.ModelReadyResponse(ready=self._health.is_serving(exact_name(model)))
        except ModelUnknown:
            return oip.ModelReadyResponse(ready=False)

    @answered
    async def ServerMetadata(self, wire: oip.ServerMetadataRequest, call: Call) -> oip.ServerMetadataResponse:
        """Name the server and what it implements."""
        return oip.ServerMetadataResponse(name=SERVER_NAME, version=__version__, extensions=EXTENSIONS)

    @answered
    async def ModelMetadata(self, wire: oip.ModelMetadataRequest, call: Call) -> oip.ModelMetadataResponse:
        """Describe a model's tensors."""
        with self._leased(wire.name, wire.version, call) as model:
            versions = [each.manifest.version for each in self._desk.catalogue if is_namesake(each, model)]
            return write_metadata(model, versions)

    @answered
    async def ModelConfig(self, wire: oip.ModelConfigRequest, call: Call) -> oip.ModelConfigResponse:
        """Describe a model as Triton would."""
        settings = self._settings
        with self._leased(wire.name, wire.version, call) as model:
            return oip.ModelConfigResponse(config=write_config(model, device=settings.device, engines=settings.devices))

    @answered
    async def ModelStatistics(self, wire: oip.ModelStatisticsRequest, call: Call) -> oip.ModelStatisticsResponse:
        """Tell how many explanations there were, of one model or of all."""
        found = list(self._desk.catalogue)
        if wire.name:
            with self._leased(wire.name, wire.version, call) as model:
                found = [each for each in found if is_namesake(each, model) and (each is model or not wire.version)]
        return oip.ModelStatisticsResponse(
            model_stats=[self._statistics.write(each.manifest.name, each.manifest.version) for each in found]
        )

    @answered
    async def RepositoryIndex(self, wire: oip.RepositoryIndexRequest, call: Call) -> oip.RepositoryIndexResponse:
        """List every version, loaded or not."""
        return await write_index(wire, self._shelves, self._health)

    @answered
    async def ModelInfer(self, wire: oip.ModelInferRequest, call: Call) -> oip.ModelInferResponse:
        """Explain one pair."""
        return await self._infer(wire, call)

    @streamed
    async def ModelStreamInfer(
        self, wires: AsyncIterator[oip.ModelInferRequest], call: Call
    ) -> AsyncGenerator[oip.ModelStreamInferResponse]:
        """Explain many pairs side by side, with a message for each step where that is wished."""
        stream = InferStream(
            self._infer, self.reception, call, max_in_flight=self._settings.requests.max_batch_in_flight
        )
        async with aclosing(stream.answers(wires)) as messages:
            async for message in messages:
                yield message

    async def _infer(self, wire: oip.ModelInferRequest, call: Call, tell: Tell | None = None) -> oip.ModelInferResponse:
        with self._leased(wire.model_name, wire.model_version, call) as model, renamed_faults():
            asked = read_request(wire, is_stream=tell is not None)
            asked.pair.model = exact_name(model)
            tighten(call, asked.parameters.timeout_us)
            if tell is None or not asked.parameters.progress:
                explanation = await self._desk.explainer.explain(asked.pair, call, Priority.INTERACTIVE)
            else:
                explanation = await self._explain_step_by_step(asked, call, wire.id, tell)
            return write_answer(explanation, asked.outputs, model, wire.id)

    async def _explain_step_by_step(self, asked: Asked, call: Call, request_id: str, tell: Tell) -> pb.Explanation:
        feed, explainer = StepFeed(asyncio.get_running_loop()), self._desk.explainer
        async with explainer.submitted(asked.pair, call, Priority.INTERACTIVE, feed.put) as submitted:
            submitted.caller.reply.add_done_callback(lambda _: feed.end())
            async for step in feed.steps():
                model = submitted.prepared.model
                await tell(write_step(step, model, request_id, grid=asked.parameters.partial_grids))
            return await explainer.finish(submitted, call)

    @contextmanager
    def _leased(self, name: str, version: str, call: Call) -> Iterator[LoadedModel]:
        """Hold the model of that name and version; the fault opens as this protocol's clients expect."""
        with ExitStack() as stack:
            try:
                model = stack.enter_context(self._desk.explainer.leased(f"{name}:{version}" if version else name, call))
            except ModelUnknown as error:
                raise ModelUnknown(loaded=error.loaded, opening=UNKNOWN_MODEL) from error
            yield model


def exact_name(model: LoadedModel) -> str:
    """Return the name that leads to this version of a model and to no other."""
    return f"{model.manifest.name}:{model.manifest.version}"


def is_namesake(one: LoadedModel, other: LoadedModel) -> bool:
    """Return whether two models are versions of one."""
    return one.manifest.name == other.manifest.name


def tighten(call: Call, timeout_us: int) -> None:
    """Move a call's deadline forward to so many microseconds after its begin; 0 leaves it."""
    if timeout_us:
        until_ns = int(call.started * 1e9) + 1000 * timeout_us
        call.deadline_ns = until_ns if call.deadline_ns is None else min(call.deadline_ns, until_ns)

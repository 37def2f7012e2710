"""Serves the made-up answers over a real channel on a free port of this machine, and fails when told to."""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType

import grpc
from google.protobuf.message import Message

from m2ib.v1 import attribution_pb2, attribution_pb2_grpc
from m2ib_client._channel import MAX_MESSAGE_BYTES
from m2ib_client._errors import M2IBError, NotFoundError
from m2ib_client.testing import _answers, _model
from m2ib_client.testing._batch import batch_answers
from m2ib_client.testing._failure import abort
from m2ib_client.testing._faults import Faults
from m2ib_client.testing._images import FakeImages
from m2ib_client.testing._visit import Visit

WORKERS = 8
# How much of the time that is left a partial answer is allowed to take.
DEADLINE_SHARE = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeCall:
    """A call that the fake received: the RPC's name (`Explain`) and its request as it came over the wire.

    Of an `UploadImage` the request is its header; an `ExplainBatch` counts once for every pair. `metadata` is what
    the client sent beside the request, by lower-case name; of a pair of a batch, beside its stream.
    """

    method: str
    request: Message
    metadata: Mapping[str, str | bytes] = field(default_factory=dict)


class FakeService(attribution_pb2_grpc.AttributionServiceServicer):
    """The service itself; `serve_fake` makes one and serves it.

    `step_seconds` is how long a streamed step takes, and a call that is not streamed takes as long as all its
    steps.
    """

    def __init__(self, *, model: str = "fake", step_seconds: float = 0.0) -> None:
        """Serve one made-up model of that name."""
        self.address = ""
        self._model = _model.fake_model(model)
        self._step_seconds = step_seconds
        self._images = FakeImages()
        self._faults = Faults()
        self._calls: list[FakeCall] = []
        self._cancelled = 0
        self._lock = threading.Lock()

    @property
    def calls(self) -> tuple[FakeCall, ...]:
        """The calls so far, retries included, in the order of their arrival."""
        with self._lock:
            return tuple(self._calls)

    @property
    def cancelled_calls(self) -> int:
        """How many callers left before their answer was complete."""
        with self._lock:
            return self._cancelled

    def fail_next(self, error: M2IBError, *, times: int = 1) -> None:
        """Let the next calls fail so that the client raises such an error."""
        self._faults.plan_calls(error, times)

    def fail_next_uploads(self, error: M2IBError, *, times: int = 1) -> None:
        """Let the next uploads fail, for instance as busy: a server that has no room for another image."""
        self._faults.plan_uploads(error, times)

    def fail_next_pairs(self, error: M2IBError, *, times: int = 1) -> None:
        """Let the next pairs of a batch fail so that their results have such an error."""
        self._faults.plan_pairs(error, times)

    def break_next_batch(self, error: M2IBError, *, after: int) -> None:
        """Let the next batch end with such an error after so many answers; more calls speak of the batches after it."""
        self._faults.plan_break(error, after)

    def forget_images(self) -> None:
        """Let go of every uploaded image, as a true server does when their time has passed."""
        self._images.forget()

    def Explain(
        self, request: attribution_pb2.ExplainRequest, context: grpc.ServicerContext
    ) -> attribution_pb2.ExplainResponse:
        """Explain one pair."""
        with self._visit("Explain", request, request.model, context) as visit:
            explanation = self._explain(request, visit, context)
        return attribution_pb2.ExplainResponse(explanation=explanation)

    def ExplainBatch(
        self, request_iterator: Iterator[attribution_pb2.ExplainBatchRequest], context: grpc.ServicerContext
    ) -> Iterator[attribution_pb2.ExplainBatchResponse]:
        """Explain many pairs side by side."""
        with self._visit("ExplainBatch", None, "", context) as visit:
            after, error = self._faults.next_break()

            def explain(request: attribution_pb2.ExplainRequest) -> attribution_pb2.Explanation:
                self._faults.play_pair()
                self._check_model(request.model)
                return self._explain(request, visit, context)

            pairs = self._noted(request_iterator, context)
            for count, answer in enumerate(batch_answers(pairs, explain, self._model.limits.max_batch_in_flight)):
                if count == after:
                    raise error
                yield answer

    def UploadImage(
        self, request_iterator: Iterator[attribution_pb2.UploadImageRequest], context: grpc.ServicerContext
    ) -> attribution_pb2.UploadImageResponse:
        """Keep an image."""
        header = next(request_iterator).header
        with self._visit("UploadImage", header, "", context):
            self._faults.play_upload()
            name = self._images.keep(header, request_iterator)
        return attribution_pb2.UploadImageResponse(handle=name, time_to_live=self._model.limits.image_time_to_live)

    def ExplainStream(
        self, request: attribution_pb2.ExplainStreamRequest, context: grpc.ServicerContext
    ) -> Iterator[attribution_pb2.ExplainStreamResponse]:
        """Explain one pair, step by step."""
        with self._visit("ExplainStream", request, request.request.model, context) as visit:
            pair = self._resolved(request.request)
            sides = len(set(pair.sides)) or 2
            steps = self._steps_in_time(pair, context.time_remaining(), sides)
            explanation = _answers.fake_explanation(pair, self._model, steps=steps)
            for progress in _answers.fake_progress(request, self._model):
                if progress.step <= steps:
                    visit.work(self._step_seconds)
                    yield attribution_pb2.ExplainStreamResponse(progress=progress)
        yield attribution_pb2.ExplainStreamResponse(explanation=explanation)

    def Score(
        self, request: attribution_pb2.ScoreRequest, context: grpc.ServicerContext
    ) -> attribution_pb2.ScoreResponse:
        """Score every image against every text."""
        with self._visit("Score", request, request.model, context):
            found = attribution_pb2.ScoreRequest()
            found.CopyFrom(request)
            for image in found.images:
                image.CopyFrom(self._images.resolved(image))
            return _answers.fake_scores(found, self._model)

    def ListModels(
        self, request: attribution_pb2.ListModelsRequest, context: grpc.ServicerContext
    ) -> attribution_pb2.ListModelsResponse:
        """List the one model."""
        with self._visit("ListModels", request, "", context):
            return attribution_pb2.ListModelsResponse(models=[self._model])

    def GetModel(
        self, request: attribution_pb2.GetModelRequest, context: grpc.ServicerContext
    ) -> attribution_pb2.GetModelResponse:
        """Describe the one model."""
        with self._visit("GetModel", request, request.model, context):
            return attribution_pb2.GetModelResponse(model=self._model)

    def _explain(
        self, request: attribution_pb2.ExplainRequest, visit: Visit, context: grpc.ServicerContext
    ) -> attribution_pb2.Explanation:
        found = self._resolved(request)
        steps = self._steps_in_time(found, context.time_remaining(), 1)
        explanation = _answers.fake_explanation(found, self._model, steps=steps)
        visit.work(steps * self._step_seconds)
        return explanation

    def _resolved(self, request: attribution_pb2.ExplainRequest) -> attribution_pb2.ExplainRequest:
        found = attribution_pb2.ExplainRequest()
        found.CopyFrom(request)
        found.image.CopyFrom(self._images.resolved(request.image))
        return found

    def _steps_in_time(self, request: attribution_pb2.ExplainRequest, seconds: float | None, sides: int) -> int:
        """Return how many steps a side gets: all of them, unless a partial answer is wanted in time."""
        steps = _model.settings_in_force(request, self._model).steps
        is_partial = request.on_deadline == attribution_pb2.ON_DEADLINE_PARTIAL
        if not is_partial or seconds is None or not self._step_seconds:
            return steps
        return min(steps, max(1, int(seconds * DEADLINE_SHARE / (sides * self._step_seconds))))

    def _noted(
        self, requests: Iterator[attribution_pb2.ExplainBatchRequest], context: grpc.ServicerContext
    ) -> Iterator[attribution_pb2.ExplainBatchRequest]:
        for request in requests:
            with self._lock:
                self._calls.append(_call("ExplainBatch", request, context))
            yield request

    @contextmanager
    def _visit(
        self, method: str, request: Message | None, model: str, context: grpc.ServicerContext
    ) -> Iterator[Visit]:
        """Note the call, fail it if that was asked for or is due, and notice if its caller leaves before the end."""
        visit = Visit()
        if not context.add_callback(lambda: self._note_end(visit)):
            self._note_end(visit)
        try:
            self._admit(None if request is None else _call(method, request, context), model)
            yield visit
        except M2IBError as error:
            visit.is_answered = True
            abort(context, error)
        visit.is_answered = True

    def _admit(self, call: FakeCall | None, model: str) -> None:
        if call is not None:
            with self._lock:
                self._calls.append(call)
        self._faults.play_call()
        self._check_model(model)

    def _check_model(self, model: str) -> None:
        if model not in ("", self._model.name, f"{self._model.name}:{self._model.version}"):
            raise NotFoundError("model: no such model is loaded", allowed=self._model.name)

    def _note_end(self, visit: Visit) -> None:
        visit.ended.set()
        if not visit.is_answered:
            with self._lock:
                self._cancelled += 1


@contextmanager
def serve_fake(service: FakeService | None = None, *, port: int = 0) -> Iterator[FakeService]:
    """Serve a fake on a port of this machine, a free one by default; its `address` tells which.

    Serving the same port again is a server that starts anew.
    """
    fake = service or FakeService()
    limits = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.so_reuseport", 0)]
    server = grpc.server(ThreadPoolExecutor(WORKERS), options=limits)
    attribution_pb2_grpc.add_AttributionServiceServicer_to_server(fake, server)
    fake.address = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    server.start()
    try:
        yield fake
    finally:
        server.stop(grace=None).wait()


def _call(method: str, request: Message, context: grpc.ServicerContext) -> FakeCall:
    metadata = MappingProxyType(dict(context.invocation_metadata()))
    return FakeCall(method=method, request=request, metadata=metadata)

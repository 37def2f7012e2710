"""Serves the made-up answers over a real channel on a free port of this machine, and fails when told to."""

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from google.protobuf.message import Message

from m2ib.v1 import attribution_pb2, attribution_pb2_grpc
from m2ib_client._channel import MAX_MESSAGE_BYTES
from m2ib_client._errors import (
    CallCancelledError,
    M2IBError,
    NotFoundError,
)
from m2ib_client.testing import _answers, _model
from m2ib_client.testing._failure import STATUS_BY_ERROR, abort

WORKERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeCall:
    """A call that the fake received: the RPC's name (`Explain`) and its request as it came over the wire."""

    method: str
    request: Message


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
        self._failures: deque[M2IBError] = deque()
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
        if type(error) not in STATUS_BY_ERROR:
            raise ValueError(f"a server cannot cause {type(error).__name__}")
        with self._lock:
            self._failures.extend([error] * times)

    def Explain(
        self, request: attribution_pb2.ExplainRequest, context: grpc.ServicerContext
    ) -> attribution_pb2.ExplainResponse:
        """Explain one pair."""
        with self._visit("Explain", request, request.model, context) as visit:
            settings = _model.settings_in_force(request, self._model)
            explanation = _answers.fake_explanation(request, self._model)
            visit.work(settings.steps * self._step_seconds)
        return attribution_pb2.ExplainResponse(explanation=explanation)

    def ExplainStream(
        self, request: attribution_pb2.ExplainStreamRequest, context: grpc.ServicerContext
    ) -> Iterator[attribution_pb2.ExplainStreamResponse]:
        """Explain one pair, step by step."""
        with self._visit("ExplainStream", request, request.request.model, context) as visit:
            explanation = _answers.fake_explanation(request.request, self._model)
            for progress in _answers.fake_progress(request, self._model):
                visit.work(self._step_seconds)
                yield attribution_pb2.ExplainStreamResponse(progress=progress)
        yield attribution_pb2.ExplainStreamResponse(explanation=explanation)

    def Score(
        self, request: attribution_pb2.ScoreRequest, context: grpc.ServicerContext
    ) -> attribution_pb2.ScoreResponse:
        """Score every image against every text."""
        with self._visit("Score", request, request.model, context):
            return _answers.fake_scores(request, self._model)

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

    @contextmanager
    def _visit(self, method: str, request: Message, model: str, context: grpc.ServicerContext) -> Iterator["Visit"]:
        """Note the call, fail it if that was asked for or is due, and notice if its caller leaves before the end."""
        visit = Visit()
        if not context.add_callback(lambda: self._note_end(visit)):
            self._note_end(visit)
        try:
            self._admit(FakeCall(method=method, request=request), model)
            yield visit
        except M2IBError as error:
            visit.is_answered = True
            abort(context, error)
        visit.is_answered = True

    def _admit(self, call: FakeCall, model: str) -> None:
        with self._lock:
            self._calls.append(call)
            failure = self._failures.popleft() if self._failures else None
        if failure is not None:
            raise failure
        if model not in ("", self._model.name):
            raise NotFoundError("model: no such model is loaded", allowed=self._model.name)

    def _note_end(self, visit: "Visit") -> None:
        visit.ended.set()
        if not visit.is_answered:
            with self._lock:
                self._cancelled += 1


class Visit:
    """One call while it is being answered."""

    def __init__(self) -> None:
        """Begin unanswered."""
        self.ended = threading.Event()
        self.is_answered = False

    def work(self, seconds: float) -> None:
        """Take so much time, but no longer than the caller waits."""
        if self.ended.wait(seconds):
            raise CallCancelledError("the caller left")


@contextmanager
def serve_fake(service: FakeService | None = None) -> Iterator[FakeService]:
    """Serve a fake on a free port of this machine; its `address` tells which."""
    fake = service or FakeService()
    limits = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.so_reuseport", 0)]
    server = grpc.server(ThreadPoolExecutor(WORKERS), options=limits)
    attribution_pb2_grpc.add_AttributionServiceServicer_to_server(fake, server)
    fake.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield fake
    finally:
        server.stop(grace=None).wait()

"""Runs errands against a server, many side by side, and books each call's end exactly once."""

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import grpc
import numpy as np

from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import attribution_pb2_grpc, settings_pb2
from soak.errand import ALLOWED, Errand, Errands, Fate, Kind, Outcome, uploads

CALLERS = 24
CHANNELS = 3
HANG_SECONDS = 120.0
REQUEST_ID = "m2ib-request-id"
OUTCOME_BY_CODE = {
    grpc.StatusCode.DEADLINE_EXCEEDED: Outcome.EXPIRED,
    grpc.StatusCode.INVALID_ARGUMENT: Outcome.REFUSED,
    grpc.StatusCode.NOT_FOUND: Outcome.REFUSED,
}


class WrongAnswer(Exception):
    """The answer is not one to the request."""


@dataclass(slots=True)
class Ledger:
    """Every call that was begun, and how it ended.

    Attributes:
        begun: calls.
        ended: calls by kind, fate and outcome.
        faults: what should not have been, in words.
        answered_ids: the server's ids of the calls that were answered whole.
    """

    begun: int = 0
    ended: Counter[tuple[Kind, Fate, Outcome]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    answered_ids: list[str] = field(default_factory=list)

    def book(self, errand: Errand, outcome: Outcome, why: str = "") -> None:
        self.ended[errand.kind, errand.fate, outcome] += 1
        if outcome not in ALLOWED[errand.fate]:
            self.faults.append(f"{errand.kind} {errand.fate}: {outcome} {why}")


async def soak(address: str, seconds: float, seed: int) -> Ledger:
    """Let many callers run errands for so long; every channel is closed when this returns."""
    ledger, stop = Ledger(), time.monotonic() + seconds
    options = [("grpc.use_local_subchannel_pool", 1)]  # a connection for each channel
    async with AsyncExitStack() as stack:
        stubs = []
        for _ in range(CHANNELS):
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address, options))
            stubs.append(attribution_pb2_grpc.AttributionServiceStub(channel))
        callers = (
            _run(stubs[number % CHANNELS], Errands(1000 * seed + number), ledger, stop) for number in range(CALLERS)
        )
        await asyncio.gather(*callers)
    return ledger


async def _run(stub, errands: Errands, ledger: Ledger, stop: float) -> None:
    while time.monotonic() < stop:
        errand = errands.draw()
        ledger.begun += 1
        ledger.book(errand, *await _outcome(stub, errand, ledger))


async def _outcome(stub, errand: Errand, ledger: Ledger) -> tuple[Outcome, str]:
    try:
        async with asyncio.timeout(HANG_SECONDS):
            return await _DO_BY_KIND[errand.kind](stub, errand, ledger), ""
    except TimeoutError:
        return Outcome.LOST, ""
    except asyncio.CancelledError:  # nobody cancels this task: it is the call that was cancelled
        return (Outcome.CANCELLED if errand.fate is Fate.CANCELLED else Outcome.WRONG), "cancelled"
    except WrongAnswer as error:
        return Outcome.WRONG, str(error)
    except grpc.RpcError as error:
        return OUTCOME_BY_CODE.get(error.code(), Outcome.WRONG), f"{error.code()}: {error.details()}"


async def _explain(stub, errand: Errand, ledger: Ledger) -> Outcome:
    (request,) = errand.requests
    call = stub.Explain(request, timeout=_deadline(errand))
    _leave_in_time(call, errand)
    explanation = (await call).explanation
    await _note_id(call, ledger)
    return _checked(explanation, request)


async def _stream(stub, errand: Errand, ledger: Ledger) -> Outcome:
    (request,) = errand.requests
    call = stub.ExplainStream(pb.ExplainStreamRequest(request=request, partial_maps=True), timeout=_deadline(errand))
    _leave_in_time(call, errand)
    events = [event async for event in call]
    await _note_id(call, ledger)
    kinds = [event.WhichOneof("event") for event in events]
    if kinds.count("explanation") != 1 or kinds[-1] != "explanation":
        raise WrongAnswer(f"events {Counter(kinds)}")
    return _checked(events[-1].explanation, request)


async def _batch(stub, errand: Errand, ledger: Ledger) -> Outcome:
    async def pairs() -> AsyncIterator[pb.ExplainBatchRequest]:
        for index, request in enumerate(errand.requests):
            yield pb.ExplainBatchRequest(id=str(index), request=request)

    call = stub.ExplainBatch(pairs())
    _leave_in_time(call, errand)
    answers = [answer async for answer in call]
    await _note_id(call, ledger)
    if sorted(int(answer.id) for answer in answers) != list(range(len(errand.requests))):
        raise WrongAnswer(f"{len(errand.requests)} pairs, answers to {Counter(answer.id for answer in answers)}")
    for answer in answers:
        if (answer.WhichOneof("outcome") == "status") != (int(answer.id) in errand.broken_pairs):
            raise WrongAnswer(f"a pair's status: {answer.status.code} {answer.status.message}")
        if answer.HasField("explanation"):
            _checked(answer.explanation, errand.requests[int(answer.id)])
    return Outcome.ANSWERED


async def _handle(stub, errand: Errand, ledger: Ledger) -> Outcome:
    (request,) = errand.requests
    encoded = request.image.encoded or b"nothing"
    sha256 = hashlib.sha256(encoded).hexdigest()
    uploaded = await stub.UploadImage(iter(uploads(encoded, sha256)))
    by_handle = pb.ExplainRequest()
    by_handle.CopyFrom(request)
    by_handle.image.handle = uploaded.handle
    call = stub.Explain(by_handle, timeout=_deadline(errand))
    _leave_in_time(call, errand)
    explanation = (await call).explanation
    await _note_id(call, ledger)
    return _checked(explanation, request)


async def _score(stub, errand: Errand, ledger: Ledger) -> Outcome:
    (request,) = errand.requests
    call = stub.Score(pb.ScoreRequest(model=request.model, images=[request.image] * 2, texts=[request.text]))
    _leave_in_time(call, errand)
    similarities = (await call).similarities
    await _note_id(call, ledger)
    values = np.frombuffer(similarities.data, "<f4")
    if list(similarities.shape) != [2, 1] or np.abs(values).max() > 1 + 1e-5 or abs(values[0] - values[1]) > 1e-5:
        raise WrongAnswer(f"similarities {values} of shape {list(similarities.shape)}")
    return Outcome.ANSWERED


_DO_BY_KIND = {
    Kind.EXPLAIN: _explain,
    Kind.STREAM: _stream,
    Kind.BATCH: _batch,
    Kind.HANDLE: _handle,
    Kind.SCORE: _score,
}


def _deadline(errand: Errand) -> float | None:
    return errand.seconds if errand.fate is Fate.EXPIRING else None


def _leave_in_time(call, errand: Errand) -> None:
    if errand.fate is Fate.CANCELLED:
        asyncio.get_running_loop().call_later(errand.seconds, call.cancel)


async def _note_id(call, ledger: Ledger) -> None:
    ledger.answered_ids += [value for key, value in await call.trailing_metadata() if key == REQUEST_ID]


def _checked(explanation: pb.Explanation, request: pb.ExplainRequest) -> Outcome:
    """Hold an answer against its request: a neighbour's answer would show in one of these."""
    provenance, sides = explanation.provenance, request.sides or (settings_pb2.SIDE_IMAGE, settings_pb2.SIDE_TEXT)
    seen = (provenance.model, provenance.settings.seed, provenance.image_sha256)
    wanted = (request.model, request.settings.seed, hashlib.sha256(request.image.encoded).hexdigest())
    if seen != wanted:
        raise WrongAnswer(f"an answer to {seen}, not to {wanted}")
    if explanation.partial:
        return Outcome.PARTIAL
    courses = {settings_pb2.SIDE_IMAGE: explanation.image, settings_pb2.SIDE_TEXT: explanation.text}
    steps = {side: len(course.trace) for side, course in courses.items()}
    if steps != {side: request.settings.steps if side in sides else 0 for side in courses}:
        raise WrongAnswer(f"steps {steps}")
    said = " ".join(word.text for word in explanation.text.words)
    if settings_pb2.SIDE_TEXT in sides and said != request.text:
        raise WrongAnswer(f"words {said!r}")
    if not np.isfinite(np.frombuffer(explanation.image.grid_bits.data, "<f4")).all():
        raise WrongAnswer("a map that is not finite")
    return Outcome.ANSWERED

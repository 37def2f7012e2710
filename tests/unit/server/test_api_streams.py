"""What both kinds of streams of requests keep: they end as the server drains, and as their caller is taken back."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import pytest

from m2ib.oip import inference_pb2 as oip
from m2ib.v1 import attribution_pb2 as pb
from m2ib_server.api.batch import Batch
from m2ib_server.api.call import Call, never_admitted
from m2ib_server.api.reception import OpenGate, Reception
from m2ib_server.errors import CredentialsExpired, CredentialsInvalid, Draining, ScopeMissing
from m2ib_server.oip.stream import InferStream

SECONDS = 60


class Explaining:
    """Answers requests by their name: one whose name begins with "held" waits to be let go."""

    def __init__(self):
        self.begun = []
        self.free = asyncio.Event()

    async def explain(self, wire, call, default):
        await self._work(wire.text)
        return pb.Explanation()

    async def infer(self, wire, call, tell):
        await self._work(wire.id)
        return oip.ModelInferResponse(id=wire.id)

    async def _work(self, name):
        self.begun.append(name)
        if name.startswith("held"):
            await self.free.wait()


class Gate:
    """Admits everybody until it is told of a refusal."""

    def __init__(self):
        self.asked, self.refusal = 0, None

    def readmit(self):
        self.asked += 1
        if self.refusal is not None:
            raise self.refusal


class Ends:
    """An observer that keeps how calls ended."""

    def __init__(self):
        self.seen = []

    def begun(self, call):
        pass

    def ended(self, call, end):
        self.seen.append((end.code, end.reason))


@dataclass(frozen=True, kw_only=True)
class Kind:
    """How a stream of one kind is made, what goes into it and what comes out."""

    make: Callable
    wire: Callable
    read: Callable  # an answer's name, and whether it is a refusal


def batch(explaining, *context, **limits):
    return Batch(explaining, *context, **limits)


def inferences(explaining, *context, **limits):
    return InferStream(explaining.infer, *context, **limits)


KINDS = {
    "batch": Kind(
        make=batch,
        wire=lambda name: pb.ExplainBatchRequest(id=name, request=pb.ExplainRequest(text=name)),
        read=lambda answer: (answer.id, answer.WhichOneof("outcome") == "status"),
    ),
    "inferences": Kind(
        make=inferences,
        wire=lambda name: oip.ModelInferRequest(id=name),
        read=lambda message: (message.infer_response.id, bool(message.error_message)),
    ),
}


class Running:
    """A stream that is being read by a client that sends when it is told to, and is silent otherwise."""

    def __init__(self, kind, *, max_in_flight=4, requests=None, readmit=None):
        self.kind = kind
        self.explaining = Explaining()
        self.gate, self.ends = Gate(), Ends()
        self.reception = Reception(OpenGate(), [self.ends])
        self.answers = []
        self._sent = asyncio.Queue()
        call = Call(service="", method="Stream", deadline_ns=None, readmit=readmit or self.gate.readmit)
        stream = kind.make(self.explaining, self.reception, call, max_in_flight=max_in_flight)
        self.reading = asyncio.create_task(self._read(stream.answers(requests or self._requests())))

    def send(self, name):
        self._sent.put_nowait(self.kind.wire(name))

    def half_close(self):
        self._sent.put_nowait(None)

    async def settle(self):
        """Let everything happen that waits for nobody."""
        for _ in range(50):
            await asyncio.sleep(0)

    async def end(self):
        """Return the answers, or raise what the stream ends with."""
        async with asyncio.timeout(SECONDS):
            await self.reading
        return self.answers

    async def _read(self, answers):
        async for answer in answers:
            self.answers.append(self.kind.read(answer))

    async def _requests(self):
        while (wire := await self._sent.get()) is not None:
            yield wire


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


async def test_an_idle_open_stream_ends_once_the_server_drains(kind):
    running = Running(kind)
    running.send("a")
    await running.settle()
    assert running.answers == [("a", False)]
    running.reception.lifecycle.drain()
    with pytest.raises(Draining):
        await running.end()


async def test_what_was_taken_before_the_drain_is_answered_and_nothing_later_is_begun(kind):
    running = Running(kind)
    running.send("held")
    await running.settle()
    running.reception.lifecycle.drain()
    running.send("late")
    await running.settle()
    assert not running.reading.done()
    running.explaining.free.set()
    with pytest.raises(Draining):
        await running.end()
    assert running.answers == [("held", False)]
    assert running.explaining.begun == ["held"]


async def test_what_waits_for_a_place_as_the_drain_begins_is_not_begun(kind):
    running = Running(kind, max_in_flight=1)
    running.send("held")
    running.send("next")
    await running.settle()
    running.reception.lifecycle.drain()
    running.explaining.free.set()
    with pytest.raises(Draining):
        await running.end()
    assert running.explaining.begun == ["held"]


async def test_a_request_that_arrives_as_the_drain_begins_is_not_begun(kind):
    async def last_minute():
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        yield kind.wire("late")

    running = Running(kind, requests=last_minute())
    await running.settle()
    running.reception.lifecycle.drain()
    with pytest.raises(Draining):
        await running.end()
    assert running.explaining.begun == running.answers == []


async def test_a_stream_that_begins_as_the_server_drains_takes_nothing(kind):
    running = Running(kind)
    running.send("late")
    running.reception.lifecycle.drain()
    with pytest.raises(Draining):
        await running.end()
    assert running.explaining.begun == []


async def test_a_stream_whose_client_has_sent_everything_ends_well_although_the_server_drains(kind):
    running = Running(kind)
    running.send("held")
    running.half_close()
    await running.settle()
    running.reception.lifecycle.drain()
    running.explaining.free.set()
    assert await running.end() == [("held", False)]


async def test_a_stream_whose_client_ends_as_the_drain_begins_ends_well(kind):
    async def just_in_time():
        yield kind.wire("a")
        asyncio.get_running_loop().call_soon(running.reception.lifecycle.drain)

    running = Running(kind, requests=just_in_time())
    assert await running.end() == [("a", False)]
    assert not running.reception.lifecycle.is_open


@pytest.mark.parametrize("refusal", [CredentialsInvalid(), CredentialsExpired(), ScopeMissing("explain")])
async def test_the_gate_is_asked_for_each_request_and_its_refusal_ends_the_stream(kind, refusal):
    running = Running(kind)
    for name in ("a", "b"):
        running.send(name)
        await running.settle()
    assert running.gate.asked == 2
    running.gate.refusal = refusal
    running.send("late")
    with pytest.raises(type(refusal)):
        await running.end()  # although the client has not ended it
    assert running.answers == [("a", False), ("b", False), ("late", True)]
    assert running.explaining.begun == ["a", "b"]
    assert [reason for _, reason in running.ends.seen] == ["", "", refusal.reason]


async def test_what_was_begun_before_its_caller_was_taken_back_is_answered_and_nothing_later_is_read(kind):
    running = Running(kind)
    running.send("held")
    await running.settle()
    running.gate.refusal = CredentialsInvalid()
    running.send("late")
    await running.settle()
    running.gate.refusal = None
    running.send("later")
    await running.settle()
    assert running.answers == [("late", True)]
    running.explaining.free.set()
    with pytest.raises(CredentialsInvalid):
        await running.end()
    assert running.answers == [("late", True), ("held", False)]
    assert running.explaining.begun == ["held"]


async def test_a_caller_that_is_taken_back_after_it_sent_everything_is_told_so_at_the_end_too(kind):
    running = Running(kind)
    running.gate.refusal = CredentialsExpired()
    running.send("late")
    running.half_close()
    with pytest.raises(CredentialsExpired):
        await running.end()
    assert running.answers == [("late", True)]


async def test_a_request_whose_call_no_gate_admitted_is_not_begun(kind):
    running = Running(kind, readmit=never_admitted)
    running.send("a")
    running.half_close()
    assert await running.end() == [("a", True)]
    assert running.explaining.begun == []
    assert running.ends.seen == [("INTERNAL", "")]

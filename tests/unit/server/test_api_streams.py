"""What both kinds of streams of requests keep: a batch of pairs and a stream of inferences end as their server does."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import pytest

from m2ib.oip import inference_pb2 as oip
from m2ib.v1 import attribution_pb2 as pb
from m2ib_server.api.batch import Batch
from m2ib_server.api.call import Call
from m2ib_server.api.reception import OpenGate, Reception
from m2ib_server.errors import Draining
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

    def __init__(self, kind, *, max_in_flight=4, requests=None):
        self.kind = kind
        self.explaining = Explaining()
        self.reception = Reception(OpenGate(), [])
        self.answers = []
        self._sent = asyncio.Queue()
        call = Call(service="", method="Stream", deadline_ns=None)
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

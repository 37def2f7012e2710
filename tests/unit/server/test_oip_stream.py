"""A stream of requests: side by side, bounded, each ended once, and nobody waits for a reader that has left."""

import asyncio
from contextlib import aclosing

import pytest

from m2ib.oip import inference_pb2 as oip
from m2ib_server.api.call import Call
from m2ib_server.api.reception import OpenGate, Reception
from m2ib_server.errors import InvalidField
from m2ib_server.oip.answer import FINAL
from m2ib_server.oip.request import check_id
from m2ib_server.oip.stream import MAX_UNREAD, InferStream

SECONDS = 60


class Explaining:
    """Answers requests by their id: "bad" is refused, "held" waits to be let go, "chatty" tells of a hundred steps."""

    def __init__(self):
        self.begun, self.cancelled, self.told = [], [], 0
        self.free = asyncio.Event()

    async def infer(self, wire, call, tell):
        self.begun.append(wire.id)
        try:
            return await self._answer(wire, tell)
        except asyncio.CancelledError:
            self.cancelled.append(wire.id)
            raise

    async def _answer(self, wire, tell):
        if wire.id == "bad":
            raise InvalidField("id", seen="bad", allowed="good")
        if wire.id == "held":
            await self.free.wait()
        for _ in range(100 if wire.id == "chatty" else 0):
            await tell(oip.ModelStreamInferResponse(infer_response=oip.ModelInferResponse(id=wire.id)))
            self.told += 1
        return oip.ModelInferResponse(id=wire.id)


class Ends:
    """An observer that keeps how calls ended."""

    def __init__(self):
        self.seen = []

    def begun(self, call):
        pass

    def ended(self, call, end):
        self.seen.append((call.method, end.code))


def stream_of(explaining, *, max_in_flight=4, flags=(), observers=()):
    call = Call(
        service="",
        method="ModelStreamInfer",
        deadline_ns=None,
        caller="ward",
        flags=frozenset(flags),
        readmit=lambda: "ward",
    )
    reception = Reception(OpenGate(), observers)
    return InferStream(explaining.infer, reception, call, max_in_flight=max_in_flight)


async def wires(*names):
    for name in names:
        yield oip.ModelInferRequest(id=name)


async def never_ending():
    while True:
        yield oip.ModelInferRequest(id="held")


def is_final(message):
    return message.infer_response.parameters[FINAL].bool_param


async def test_each_request_is_answered_once_as_it_finishes():
    explaining = Explaining()
    seen = []
    async with asyncio.timeout(SECONDS), aclosing(stream_of(explaining).answers(wires("held", "b", "c"))) as answers:
        async for message in answers:
            seen.append(message.infer_response.id)
            if len(seen) == 2:
                explaining.free.set()
    assert sorted(seen[:2]) == ["b", "c"]
    assert seen[2:] == ["held"]


async def test_a_bad_request_is_told_of_by_its_id_and_ends_no_other():
    ends = Ends()
    stream = stream_of(Explaining(), observers=[ends])
    async with asyncio.timeout(SECONDS):
        messages = {each.infer_response.id: each async for each in stream.answers(wires("bad", "good"))}
    assert messages["bad"].error_message == "id: seen bad; allowed: good"
    assert messages["good"].error_message == ""
    assert all(is_final(message) for message in messages.values())
    assert sorted(ends.seen) == [
        ("ModelStreamInfer.request", "INVALID_ARGUMENT"),
        ("ModelStreamInfer.request", "OK"),
    ]


async def test_an_id_that_is_too_long_to_be_carried_about_is_not_sent_back():
    class Refusing(Explaining):
        async def _answer(self, wire, tell):
            check_id(wire)

    async with asyncio.timeout(SECONDS):
        (message,) = [each async for each in stream_of(Refusing()).answers(wires("x" * 5000))]
    assert "5000 characters" in message.error_message
    assert message.infer_response.id == ""


async def test_a_fault_ends_the_stream_where_the_caller_wants_a_status():
    explaining = Explaining()
    stream = stream_of(explaining, flags=["triton_grpc_error"])
    with pytest.raises(InvalidField):
        async with asyncio.timeout(SECONDS):
            async for _ in stream.answers(wires("held", "bad")):
                pass
    assert explaining.cancelled == ["held"]


async def test_no_more_requests_are_under_way_than_allowed():
    explaining = Explaining()
    stream = stream_of(explaining, max_in_flight=3)
    answers = stream.answers(never_ending())
    waiting = asyncio.ensure_future(anext(answers))
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(explaining.begun) == 3
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert explaining.cancelled == ["held"] * 3


async def test_messages_do_not_pile_up_for_a_reader_that_is_slow():
    explaining = Explaining()
    answers = stream_of(explaining).answers(wires("chatty"))
    async with asyncio.timeout(SECONDS):
        await anext(answers)
        for _ in range(50):
            await asyncio.sleep(0)
        assert explaining.told <= MAX_UNREAD
        rest = [message async for message in answers]
    assert len(rest) == 100
    assert [is_final(message) for message in rest] == [False] * 99 + [True]


async def test_a_reader_that_leaves_takes_its_requests_along():
    explaining = Explaining()
    answers = stream_of(explaining).answers(wires("held", "chatty"))
    async with asyncio.timeout(SECONDS):
        await anext(answers)
        await answers.aclose()
    assert sorted(explaining.cancelled) == ["chatty", "held"]


async def test_a_request_within_a_stream_is_its_caller_s():
    call = Call(service="s", method="m", deadline_ns=5, caller="ward", trace_context={"traceparent": "00"})
    part = call.part("request")
    assert (part.service, part.method, part.deadline_ns, part.caller) == ("s", "m.request", 5, "ward")
    assert part.trace_context == call.trace_context
    assert part.request_id != call.request_id

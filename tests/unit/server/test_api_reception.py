import asyncio

import grpc
import pytest
from grpc_status import rpc_status

from m2ib_server.api.call import Call, CallEnd
from m2ib_server.api.reception import Last, OpenGate, Reception, answered, streamed
from m2ib_server.errors import Draining, QueueFull


class Aborted(Exception):
    pass


class Context:
    """What grpc.aio hands to a handler, as far as the reception uses it."""

    def __init__(self, metadata=()):
        self.metadata = metadata
        self.trailing = ()
        self.code = None

    def time_remaining(self):
        return None

    def invocation_metadata(self):
        return self.metadata

    def set_trailing_metadata(self, metadata):
        self.trailing = metadata

    async def abort(self, code, details, trailing_metadata=()):
        self.code, self.trailing = code, trailing_metadata
        raise Aborted(details)


class Watcher:
    def __init__(self, *, at_begin=None, at_end=None):
        self.seen = []
        self._at_begin, self._at_end = at_begin, at_end

    def begun(self, call: Call) -> None:
        self.seen.append("begun")
        if self._at_begin is not None:
            raise self._at_begin

    def ended(self, call: Call, end: CallEnd) -> None:
        self.seen.append(f"{end.code} {end.reason}".strip())
        if self._at_end is not None:
            raise self._at_end


class Notary(Watcher):
    """Notes an end in its own time."""

    def __init__(self, **faults):
        super().__init__(**faults)
        self.gate = asyncio.Event()

    def ended(self, call: Call, end: CallEnd):
        return asyncio.ensure_future(self._note(call, end))

    async def _note(self, call, end):
        await self.gate.wait()
        super().ended(call, end)


class Servicer:
    name = "test.Service"
    scope = "explain"

    def __init__(self, reception, fault=None):
        self.reception = reception
        self._fault = fault

    @answered
    async def Answer(self, wire, call):
        if self._fault is not None:
            raise self._fault
        return call

    @streamed
    async def Stream(self, wire, call):
        yield call
        if self._fault is not None:
            raise self._fault

    @streamed
    async def StreamToTheLast(self, wire, call):
        yield "progress"
        yield Last("answer")


async def test_every_observer_sees_each_call_begin_and_end():
    watchers = [Watcher(), Watcher()]
    call = await Servicer(Reception(OpenGate(), watchers)).Answer(None, Context())
    assert (call.service, call.method) == ("test.Service", "Answer")
    assert [watcher.seen for watcher in watchers] == [["begun", "OK"]] * 2


@pytest.mark.parametrize(
    ("fault", "code", "seen"),
    [
        (QueueFull(depth=1, limit=1), grpc.StatusCode.RESOURCE_EXHAUSTED, "RESOURCE_EXHAUSTED QUEUE_FULL"),
        (ValueError("Zebrafinch"), grpc.StatusCode.INTERNAL, "INTERNAL"),
    ],
)
async def test_a_fault_becomes_one_status_and_one_end(fault, code, seen):
    watcher, context = Watcher(), Context()
    with pytest.raises(Aborted) as caught:
        await Servicer(Reception(OpenGate(), [watcher]), fault).Answer(None, context)
    assert context.code is code
    assert "Zebrafinch" not in f"{caught.value} {context.trailing}"
    assert watcher.seen == ["begun", seen]


async def test_a_caller_that_leaves_is_an_end_of_its_own():
    watcher = Watcher()
    with pytest.raises(asyncio.CancelledError):
        await Servicer(Reception(OpenGate(), [watcher]), asyncio.CancelledError()).Answer(None, Context())
    assert watcher.seen == ["begun", "CANCELLED"]


async def test_a_reader_that_drops_a_stream_ends_its_call():
    watcher = Watcher()
    stream = Servicer(Reception(OpenGate(), [watcher])).Stream(None, Context())
    await anext(stream)
    await stream.aclose()
    assert watcher.seen == ["begun", "CANCELLED"]


async def test_an_observer_may_refuse_a_call_and_those_before_it_see_the_end():
    first, refusing, last = Watcher(), Watcher(at_begin=Draining()), Watcher()
    context = Context()
    with pytest.raises(Aborted):
        await Servicer(Reception(OpenGate(), [first, refusing, last])).Answer(None, context)
    assert context.code is grpc.StatusCode.UNAVAILABLE
    assert first.seen == refusing.seen == ["begun", "UNAVAILABLE DRAINING"]
    assert last.seen == []


async def test_an_end_that_cannot_be_noted_takes_the_answer_s_place_and_the_others_still_hear_of_the_call():
    failing, last, context = Watcher(at_end=Draining()), Watcher(), Context()
    with pytest.raises(Aborted):
        await Servicer(Reception(OpenGate(), [failing, last])).Answer(None, context)
    assert context.code is grpc.StatusCode.UNAVAILABLE
    assert last.seen == ["begun", "OK"]


async def test_an_answer_waits_until_its_end_is_noted():
    notary = Notary()
    answering = asyncio.create_task(Servicer(Reception(OpenGate(), [notary])).Answer(None, Context()))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not answering.done()
    notary.gate.set()
    await answering
    assert notary.seen == ["begun", "OK"]


async def test_an_end_that_cannot_be_noted_later_takes_the_answer_s_place_too():
    notary, context = Notary(at_end=Draining()), Context()
    notary.gate.set()
    with pytest.raises(Aborted):
        await Servicer(Reception(OpenGate(), [notary])).Answer(None, context)
    assert context.code is grpc.StatusCode.UNAVAILABLE


async def test_the_message_that_a_stream_is_for_waits_until_its_end_is_noted():
    notary = Notary()
    stream = Servicer(Reception(OpenGate(), [notary])).StreamToTheLast(None, Context())
    assert await anext(stream) == "progress"
    last = asyncio.create_task(anext(stream))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not last.done()
    notary.gate.set()
    assert await last == "answer"
    assert notary.seen == ["begun", "OK"]
    assert [each async for each in stream] == []


async def test_the_request_id_goes_back_with_an_answer_and_with_a_refusal():
    context = Context()
    call = await Servicer(Reception(OpenGate(), [])).Answer(None, context)
    assert dict(context.trailing)["m2ib-request-id"] == call.request_id
    with pytest.raises(Aborted):
        await Servicer(Reception(OpenGate(), []), Draining()).Answer(None, context)
    trailing = dict(context.trailing)
    assert len(trailing["m2ib-request-id"]) == 32
    assert rpc_status.GRPC_DETAILS_METADATA_KEY in trailing


@pytest.mark.parametrize(
    ("fault", "pause"),
    [
        (QueueFull(depth=1, limit=1, retry_seconds=2.5), "2500"),
        (Draining(), "1000"),
        (ValueError("Zebrafinch"), None),
    ],
)
async def test_a_refusal_that_passes_tells_the_client_s_library_when_to_come_back(fault, pause):
    context = Context()
    with pytest.raises(Aborted):
        await Servicer(Reception(OpenGate(), []), fault).Answer(None, context)
    assert dict(context.trailing).get("grpc-retry-pushback-ms") == pause


async def test_of_a_caller_s_metadata_the_trace_s_context_is_kept_and_nothing_else():
    metadata = (("traceparent", "00-" + "1" * 32 + "-" + "2" * 16 + "-01"), ("x-patient", "Zebrafinch"))
    call = await Servicer(Reception(OpenGate(), [])).Answer(None, Context(metadata))
    assert dict(call.trace_context) == dict(metadata[:1])

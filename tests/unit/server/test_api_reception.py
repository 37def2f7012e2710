import asyncio
import logging

import grpc
import pytest
from grpc_status import rpc_status

from m2ib_server.api.call import Call, CallEnd
from m2ib_server.api.lifecycle import Lifecycle, Phase
from m2ib_server.api.reception import Last, OpenGate, Reception, answered, streamed
from m2ib_server.errors import AuditUnavailable, CredentialsInvalid, Draining, QueueFull

REFUSED = "UNAVAILABLE AUDIT_UNAVAILABLE"


class Aborted(Exception):
    pass


class Context:
    """What grpc.aio hands to a handler, as far as the reception uses it."""

    def __init__(self, metadata=(), remaining=None):
        self.metadata = metadata
        self.remaining = remaining
        self.trailing = ()
        self.code = None

    def time_remaining(self):
        return self.remaining

    def invocation_metadata(self):
        return self.metadata

    def set_trailing_metadata(self, metadata):
        self.trailing = metadata

    async def abort(self, code, details, trailing_metadata=()):
        self.code, self.trailing = code, trailing_metadata
        raise Aborted(details)


class Watcher:
    """An observer that may fail."""

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


class Notary:
    """A recorder, which may refuse a call; it notes an end at once, or in its own time, or fails to."""

    def __init__(self, *, at_begin=None, at_once=None, later=None, is_slow=False):
        self.seen = []
        self.notes = []
        self._at_begin, self._at_once, self._later = at_begin, at_once, later
        self._is_slow = is_slow

    def begun(self, call: Call) -> None:
        self.seen.append("begun")
        if self._at_begin is not None:
            raise self._at_begin

    def ended(self, call: Call, end: CallEnd) -> asyncio.Future[None]:
        self.seen.append(f"{end.code} {end.reason}".strip())
        if self._at_once is not None:
            raise self._at_once
        self.notes.append(asyncio.get_running_loop().create_future())
        if not self._is_slow:
            self.note()
        return self.notes[-1]

    def note(self) -> None:
        if self._later is None:
            self.notes[-1].set_result(None)
        else:
            self.notes[-1].set_exception(self._later)


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


@pytest.mark.parametrize(
    ("remaining", "seen"), [(0.001, "DEADLINE_EXCEEDED DEADLINE_EXPIRED"), (60, "CANCELLED")], ids=["over", "left"]
)
async def test_a_deadline_that_passes_is_told_from_a_caller_that_leaves(remaining, seen):
    """gRPC cancels the handler of either."""
    watcher = Watcher()
    with pytest.raises(asyncio.CancelledError):
        await Servicer(Reception(OpenGate(), [watcher]), asyncio.CancelledError()).Answer(None, Context((), remaining))
    assert watcher.seen == ["begun", seen]


async def test_a_reader_that_drops_a_stream_ends_its_call():
    watcher = Watcher()
    stream = Servicer(Reception(OpenGate(), [watcher])).Stream(None, Context())
    await anext(stream)
    await stream.aclose()
    assert watcher.seen == ["begun", "CANCELLED"]


async def test_the_recorder_may_refuse_a_call_and_every_observer_hears_of_both():
    watchers, refusing, context = [Watcher(), Watcher()], Notary(at_begin=AuditUnavailable()), Context()
    with pytest.raises(Aborted):
        await Servicer(Reception(OpenGate(), watchers, recorder=refusing)).Answer(None, context)
    assert context.code is grpc.StatusCode.UNAVAILABLE
    assert [each.seen for each in (*watchers, refusing)] == [["begun", REFUSED]] * 3


async def test_a_call_whose_begin_an_observer_fails_on_ends_for_those_that_saw_it_begin_and_is_recorded():
    first, failing, last = Watcher(), Watcher(at_begin=ValueError("Zebrafinch")), Watcher()
    notary, context = Notary(), Context()
    with pytest.raises(Aborted):
        await Servicer(Reception(OpenGate(), [first, failing, last], recorder=notary)).Answer(None, context)
    assert context.code is grpc.StatusCode.INTERNAL
    assert first.seen == failing.seen == ["begun", "INTERNAL"]
    assert last.seen == []
    assert notary.seen == ["INTERNAL"]


async def test_an_observer_that_fails_at_the_end_changes_no_end_and_the_log_tells(caplog):
    failing, last = Watcher(at_end=ValueError("Zebrafinch")), Watcher()
    with caplog.at_level(logging.ERROR):
        call = await Servicer(Reception(OpenGate(), [failing, last])).Answer(None, Context())
    assert failing.seen == last.seen == ["begun", "OK"]
    (told,) = caplog.records
    assert told.m2ib_event == "observer failed"
    assert told.m2ib_fields.items() >= {"request_id": call.request_id, "error_type": "ValueError"}.items()
    assert "Zebrafinch" not in str(told.m2ib_fields)


@pytest.mark.parametrize("when", ["at_once", "later"])
@pytest.mark.parametrize("fault", [None, QueueFull(depth=1, limit=1)], ids=["answer", "fault"])
async def test_an_end_that_cannot_be_recorded_takes_the_answer_s_place_and_is_the_end_that_observers_hear(when, fault):
    watchers, notary, context = [Watcher(), Watcher()], Notary(**{when: AuditUnavailable()}), Context()
    with pytest.raises(Aborted):
        await Servicer(Reception(OpenGate(), watchers, recorder=notary), fault).Answer(None, context)
    assert context.code is grpc.StatusCode.UNAVAILABLE
    assert notary.seen == ["begun", "RESOURCE_EXHAUSTED QUEUE_FULL" if fault else "OK"]
    assert [watcher.seen for watcher in watchers] == [["begun", REFUSED]] * 2


async def settled() -> None:
    """Let everything that is under way go as far as it gets."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_an_answer_and_the_observers_wait_until_its_end_is_recorded():
    watcher, notary = Watcher(), Notary(is_slow=True)
    reception = Reception(OpenGate(), [watcher], recorder=notary)
    answering = asyncio.create_task(Servicer(reception).Answer(None, Context()))
    await settled()
    assert notary.seen == ["begun", "OK"]
    assert watcher.seen == ["begun"]
    assert not answering.done()
    notary.note()
    await answering
    assert watcher.seen == ["begun", "OK"]


async def test_the_message_that_a_stream_is_for_waits_until_its_end_is_recorded():
    notary = Notary(is_slow=True)
    stream = Servicer(Reception(OpenGate(), [], recorder=notary)).StreamToTheLast(None, Context())
    assert await anext(stream) == "progress"
    last = asyncio.create_task(anext(stream))
    await settled()
    assert notary.seen == ["begun", "OK"]
    assert not last.done()
    notary.note()
    assert await last == "answer"
    assert [each async for each in stream] == []


DRAINED = "UNAVAILABLE DRAINING"


async def test_a_call_is_under_way_until_its_end_is_recorded():
    notary, lifecycle = Notary(is_slow=True), Lifecycle(Phase.OPEN)
    reception = Reception(OpenGate(), [], lifecycle, recorder=notary)
    answering = asyncio.create_task(Servicer(reception).Answer(None, Context()))
    await settled()
    assert notary.seen == ["begun", "OK"]
    assert not await lifecycle.until_idle(0.01)
    notary.note()
    await answering
    assert await lifecycle.until_idle(0.01)


async def test_a_call_that_is_cut_off_while_its_end_is_being_recorded_ends_so_for_caller_and_observers():
    watcher, notary, lifecycle, context = Watcher(), Notary(is_slow=True), Lifecycle(Phase.OPEN), Context()
    reception = Reception(OpenGate(), [watcher], lifecycle, recorder=notary)
    answering = asyncio.create_task(Servicer(reception).Answer(None, context))
    await settled()
    assert lifecycle.cut() == 1
    with pytest.raises(Aborted):
        await answering
    assert context.code is grpc.StatusCode.UNAVAILABLE
    assert watcher.seen == ["begun", DRAINED]


async def test_a_stream_that_is_cut_off_while_its_reader_stalls_is_not_one_whose_caller_left():
    watcher, notary, lifecycle = Watcher(), Notary(), Lifecycle(Phase.OPEN)
    stream = Servicer(Reception(OpenGate(), [watcher], lifecycle, recorder=notary)).Stream(None, Context())

    async def send_to_a_reader_that_stalls():
        await anext(stream)
        await asyncio.Event().wait()

    sending = asyncio.create_task(send_to_a_reader_that_stalls())
    await settled()
    assert lifecycle.cut() == 1
    with pytest.raises(asyncio.CancelledError):
        await sending
    await stream.aclose()
    assert notary.seen == watcher.seen == ["begun", DRAINED]
    assert await lifecycle.until_idle(0.01)


async def test_a_caller_that_leaves_while_its_end_is_being_recorded_is_one_that_left_to_every_observer():
    watchers, notary = [Watcher(), Watcher()], Notary(is_slow=True)
    reception = Reception(OpenGate(), watchers, recorder=notary)
    answering = asyncio.create_task(Servicer(reception).Answer(None, Context()))
    await settled()
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering
    assert notary.seen == ["begun", "OK"]
    assert [watcher.seen for watcher in watchers] == [["begun", "CANCELLED"]] * 2


async def test_for_a_caller_that_has_left_nothing_is_waited_for():
    watcher, notary = Watcher(), Notary(is_slow=True)
    servicer = Servicer(Reception(OpenGate(), [watcher], recorder=notary), asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await servicer.Answer(None, Context())
    assert notary.seen == watcher.seen == ["begun", "CANCELLED"]


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


class Gate:
    """Admits everybody until it is told not to, and keeps what it was asked."""

    def __init__(self):
        self.asked, self.refusal = [], None

    def admit(self, context, scope):
        self.asked.append((context, scope))
        if self.refusal is not None:
            raise self.refusal
        return "ward"


async def test_the_gate_can_be_asked_again_of_the_same_caller_and_of_the_parts_of_its_call():
    gate, context = Gate(), Context()
    call = await Servicer(Reception(gate, [])).Answer(None, context)
    call.readmit()
    call.part("pair").readmit()
    assert gate.asked == [(context, "explain")] * 3
    gate.refusal = CredentialsInvalid()
    with pytest.raises(CredentialsInvalid):
        call.part("pair").readmit()


async def test_nothing_of_how_the_gate_is_asked_again_shows_in_a_call():
    context = Context((("authorization", "Bearer Zebrafinch"),))
    call = await Servicer(Reception(Gate(), [])).Answer(None, context)
    assert "readmit" not in repr(call)
    assert "Zebrafinch" not in repr(call)

"""Owns what is known of one call while it is under way, and of its end. Knows no service."""

import asyncio
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from m2ib.v1 import attribution_pb2 as pb
from m2ib.v1 import settings_pb2
from m2ib_server.engine import Period

OK = "OK"
_CLOCKS_NS = 10_000_000  # the deadline was read off gRPC's own clock when the call began

# W3C Trace Context: version, trace, parent, flags. Of what callers send only this form is kept, which holds no text.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def trace_context_of(metadata: Mapping[str, str]) -> Mapping[str, str]:
    """Return the W3C header `traceparent` of a call's metadata; nothing where there is none or it is malformed.

    `tracestate` is left out: it is a caller's free text, and nothing here is called with it.
    """
    traceparent = metadata.get("traceparent", "")
    return {"traceparent": traceparent} if _TRACEPARENT.fullmatch(traceparent) else {}


def never_admitted() -> None:
    """Stand in for the gate of a call that has not passed it.

    Raises:
        AssertionError: always.
    """
    raise AssertionError("only a call that the gate has admitted asks it again")


def never_cut() -> bool:
    """Stand in for what tells whether a call was cut off, of one that the server does not cut off."""
    return False


@dataclass(slots=True, kw_only=True)
class Call:
    """One call under way; what is not known yet is empty. No text, pixel, handle or metadata of the caller's is here.

    Attributes:
        service: the service's full name.
        method: the RPC's name; of one pair of a batch "ExplainBatch.pair".
        request_id: unique; the client gets it as trailing metadata.
        deadline_ns: on the monotonic clock, or None.
        caller: who calls, by the name that the operator gave; "" for an anonymous caller.
        readmit: asks the gate again whether the caller may go on; raises what the gate raises. What it asks with, it
            shows to nobody else.
        was_cut: tells whether the server has ended the call while it ran.
        trace_context: the W3C header `traceparent` that came with the call; of its own span, once it is traced.
        flags: the headers of FLAG_KEYS that came with the value "true".
        model: the name of the model, once known.
        version: its version, once known.
        digest: its package's digest, once known.
        images: the SHA-256 of each image as it was sent, in the order in which they were read, also of one that then
            proves to be broken.
        settings: the settings in force, once known.
        timings: how long each stage took, once answered.
        stages: when it was in which stage, as far as it got: prepare, the engine's, render.
        shared: whether an identical request was under way, whose computation this one shares; once answered.
        started_ns: when it began, on the wall clock.
        started: when it began, on the monotonic clock, in seconds.
    """

    service: str
    method: str
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    deadline_ns: int | None
    caller: str = ""
    readmit: Callable[[], object] = field(default=never_admitted, repr=False)
    was_cut: Callable[[], bool] = field(default=never_cut, repr=False)
    trace_context: Mapping[str, str] = field(default_factory=dict)
    flags: frozenset[str] = frozenset()
    model: str = ""
    version: str = ""
    digest: str = ""
    images: list[str] = field(default_factory=list)
    settings: settings_pb2.Settings | None = None
    timings: pb.Timings | None = None
    stages: list[Period] = field(default_factory=list)
    shared: bool = False
    started_ns: int = field(default_factory=time.time_ns)
    started: float = field(default_factory=time.monotonic)

    def part(self, name: str) -> "Call":
        """Return the call that one request within this stream is: by the same caller, within the same deadline."""
        return Call(
            service=self.service,
            method=f"{self.method}.{name}",
            deadline_ns=self.deadline_ns,
            caller=self.caller,
            readmit=self.readmit,
            was_cut=self.was_cut,
            trace_context=self.trace_context,
        )

    @property
    def seconds(self) -> float:
        """Seconds since the call began."""
        return time.monotonic() - self.started

    @property
    def is_expired(self) -> bool:
        """Whether its deadline has passed, or does within the time by which clocks may disagree."""
        return self.deadline_ns is not None and time.monotonic_ns() > self.deadline_ns - _CLOCKS_NS

    @property
    def trace_id(self) -> str:
        """The trace that the call belongs to, 32 hexadecimal digits; "" where there is none."""
        match = _TRACEPARENT.fullmatch(self.trace_context.get("traceparent", ""))
        return "" if match is None else match[1]

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Note when the body runs, whatever it ends in."""
        started_ns = time.monotonic_ns()
        try:
            yield
        finally:
            self.stages.append(Period(stage=name, started_ns=started_ns, ended_ns=time.monotonic_ns()))


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnd:
    """How a call ended.

    Attributes:
        code: the gRPC status code's name, such as "OK" or "INVALID_ARGUMENT".
        reason: the fault's stable reason; "" without a fault.
        error: what was raised; None where nothing was.
    """

    code: str
    reason: str = ""
    error: BaseException | None = None


class CallObserver(Protocol):
    """Watches calls begin and end. Each call that begins ends exactly once."""

    def begun(self, call: Call) -> None:
        """Note that a call begins, before anything is read of it."""
        ...

    def ended(self, call: Call, end: CallEnd) -> None:
        """Note that a call has ended, before its caller is told of it; the end is the caller's, nothing changes it."""
        ...


class CallRecorder(Protocol):
    """Keeps the record without which no call is answered. It hears of each call's end once, before the observers."""

    def begun(self, call: Call) -> None:
        """Note that a call begins, after the observers and before anything is read of it.

        Raises:
            ServiceError: the call must not go on; then it ends with that.
        """
        ...

    def ended(self, call: Call, end: CallEnd) -> asyncio.Future[None] | None:
        """Record that a call has ended.

        Returns:
            What its caller has to wait for; None for nothing. Who has left does not wait, and the end is recorded all
            the same. It raises what this method raises.

        Raises:
            ServiceError: the end cannot be recorded; the call then ends with that instead.
        """
        ...

"""Says what the audit log records of a call. No text, pixel, handle or bare digest of an image is in it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message

from m2ib.v1 import attribution_pb2 as pb
from m2ib_server.api.call import Call, CallEnd
from m2ib_server.sight.audit_chain import Body
from m2ib_server.sight.audit_key import image_hash


def call_record(call: Call, end: CallEnd, key: bytes, *, now_ns: int) -> Body:
    """Return the record of a call that has ended; every field is there, what is not known is empty.

    Args:
        call: the call.
        end: how it ended.
        key: the key of the images' hashes.
        now_ns: the wall clock, in nanoseconds.
    """
    return {
        "kind": "call",
        "time": timestamp(now_ns),
        "began": timestamp(call.started_ns),
        "caller": call.caller,
        "request_id": call.request_id,
        "service": call.service,
        "method": call.method,
        "model": call.model,
        "version": call.version,
        "digest": call.digest,
        "images": [image_hash(sha256, key) for sha256 in call.images],
        "settings": {} if call.settings is None else _fields_of(call.settings),
        "code": end.code,
        "reason": end.reason,
        "seconds": round(call.seconds, 6),
        "timings": {} if call.timings is None else _timings(call.timings),
    }


def suppressed_record(reasons: Mapping[str, int], *, began_ns: int, now_ns: int) -> Body:
    """Return the record of refused calls that have none of their own.

    Args:
        reasons: how many there are of each reason.
        began_ns: when the first of them was refused, on the wall clock, in nanoseconds.
        now_ns: the wall clock, in nanoseconds.
    """
    return {
        "kind": "suppressed",
        "time": timestamp(now_ns),
        "began": timestamp(began_ns),
        "calls": sum(reasons.values()),
        "reasons": dict(reasons),
    }


def timestamp(now_ns: int) -> str:
    """Return a time in UTC as RFC 3339 has it, to the millisecond."""
    when = datetime.fromtimestamp(now_ns // 1_000_000_000, UTC).replace(microsecond=now_ns // 1000 % 1_000_000)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields_of(message: Message) -> Mapping[str, Any]:
    """Return what is set in a message of numbers and enumerators, these by their names."""
    return {
        field.name: field.enum_type.values_by_number[value].name if field.enum_type else value
        for field, value in message.ListFields()
    }


def _timings(timings: pb.Timings) -> Mapping[str, float]:
    """Return the stages that took time, in seconds."""
    return {field.name: value.seconds + value.nanos / 1e9 for field, value in timings.ListFields()}

"""Ends a call of the fake in the service's own form: a status, and details that say what the exception says."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NoReturn

import grpc
from google.protobuf.any_pb2 import Any as PackedDetail
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from m2ib_client._errors import (
    AccessError,
    BusyError,
    CallCancelledError,
    DeadlineError,
    IncompatibleServerError,
    InvalidRequestError,
    M2IBError,
    NotFoundError,
    ServerError,
    TransientError,
    UnavailableError,
)
from m2ib_client._status import DETAILS_KEY, DOMAIN

PUSHBACK_KEY = "grpc-retry-pushback-ms"
STATUS_BY_ERROR: Mapping[type[M2IBError], grpc.StatusCode] = MappingProxyType(
    {
        InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
        NotFoundError: grpc.StatusCode.NOT_FOUND,
        AccessError: grpc.StatusCode.PERMISSION_DENIED,
        BusyError: grpc.StatusCode.RESOURCE_EXHAUSTED,
        UnavailableError: grpc.StatusCode.UNAVAILABLE,
        DeadlineError: grpc.StatusCode.DEADLINE_EXCEEDED,
        CallCancelledError: grpc.StatusCode.CANCELLED,
        ServerError: grpc.StatusCode.INTERNAL,
        IncompatibleServerError: grpc.StatusCode.UNIMPLEMENTED,
    }
)


def status_of(error: M2IBError) -> status_pb2.Status:
    """Return the status that makes a client raise such an error."""
    code: int = STATUS_BY_ERROR[type(error)].value[0]
    return status_pb2.Status(code=code, message=str(error), details=_details(error))


def abort(context: grpc.ServicerContext, error: M2IBError) -> NoReturn:
    """End the call with the status and the details that make a client raise such an error.

    As the service does, it also tells the client's gRPC library when to try again, if ever.
    """
    metadata: list[tuple[str, str | bytes]] = [(DETAILS_KEY, status_of(error).SerializeToString())]
    if isinstance(error, TransientError) and error.retry_after_seconds is not None:
        metadata.append((PUSHBACK_KEY, pushback(error.retry_after_seconds, context.time_remaining())))
    context.set_trailing_metadata(tuple(metadata))
    context.abort(STATUS_BY_ERROR[type(error)], str(error))


def pushback(seconds: float, seconds_left: float | None) -> str:
    """Return when to try again, in milliseconds; never where the deadline comes first."""
    if seconds_left is not None and seconds >= seconds_left:
        return "-1"
    return str(max(1, round(1000 * seconds)))  # told 0, a client of grpcio 1.85 hangs until its deadline


def _details(error: M2IBError) -> list[PackedDetail]:
    """Return the details in the service's own form."""
    info = error_details_pb2.ErrorInfo(reason=type(error).__name__, domain=DOMAIN)
    if error.request_id:
        info.metadata["request_id"] = error.request_id
    details: list[Message] = [info]
    if isinstance(error, AccessError | InvalidRequestError | NotFoundError):
        info.reason = error.reason
    if isinstance(error, InvalidRequestError):
        description = f"seen {error.seen}; allowed: {error.allowed}"
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=description)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, NotFoundError):
        details.append(error_details_pb2.ResourceInfo(description=f"{error}; allowed: {error.allowed}"))
    if isinstance(error, TransientError) and error.retry_after_seconds is not None:
        details.append(error_details_pb2.RetryInfo(retry_delay=_duration(error.retry_after_seconds)))
    return [_packed(detail) for detail in details]


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration


def _packed(detail: Message) -> PackedDetail:
    packed = PackedDetail()
    packed.Pack(detail)
    return packed

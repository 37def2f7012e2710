"""Turns a failed call into the client's own exception; the one place that reads gRPC's status codes."""

import asyncio
import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Protocol, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from m2ib.v1 import attribution_pb2
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
    UnavailableError,
)

DETAILS_KEY = "grpc-status-details-bin"
DOMAIN = "m2ib.v1"

ERROR_BY_STATUS: Mapping[grpc.StatusCode, type[M2IBError]] = MappingProxyType(
    {
        grpc.StatusCode.CANCELLED: CallCancelledError,
        grpc.StatusCode.UNKNOWN: ServerError,
        grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
        grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
        grpc.StatusCode.NOT_FOUND: NotFoundError,
        grpc.StatusCode.ALREADY_EXISTS: ServerError,
        grpc.StatusCode.PERMISSION_DENIED: AccessError,
        grpc.StatusCode.UNAUTHENTICATED: AccessError,
        grpc.StatusCode.RESOURCE_EXHAUSTED: BusyError,
        grpc.StatusCode.FAILED_PRECONDITION: InvalidRequestError,
        grpc.StatusCode.ABORTED: ServerError,
        grpc.StatusCode.OUT_OF_RANGE: InvalidRequestError,
        grpc.StatusCode.UNIMPLEMENTED: IncompatibleServerError,
        grpc.StatusCode.INTERNAL: ServerError,
        grpc.StatusCode.UNAVAILABLE: UnavailableError,
        grpc.StatusCode.DATA_LOSS: ServerError,
    }
)
ERROR_BY_NUMBER: Mapping[int, type[M2IBError]] = MappingProxyType(
    {status.value[0]: kind for status, kind in ERROR_BY_STATUS.items()}
)

Detail = TypeVar("Detail", bound=Message)
Metadata = Sequence[tuple[str, str | bytes]]


class FailedCall(Protocol):
    """What a failed call of either shell can tell."""

    def code(self) -> grpc.StatusCode:
        """Return the status."""

    def details(self) -> str | None:
        """Return the status's text."""

    def trailing_metadata(self) -> Metadata | None:
        """Return what came after the answer."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What the server says of a fault beyond its status and text; the fields are those of the exceptions."""

    field: str = ""
    seen: str = ""
    allowed: str = ""
    reason: str = ""
    request_id: str = ""
    retry_after_seconds: float | None = None


@contextmanager
def translated() -> Iterator[None]:
    """Raise every failure of a call as an `M2IBError`; works around an awaited call too.

    A cancellation of the caller's own task passes through. One that the task did not ask for is the
    channel's, which was closed under the call.
    """
    try:
        yield
    except grpc.RpcError as failure:
        raise error_of(cast(FailedCall, failure)) from failure
    except asyncio.CancelledError as cancellation:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise CallCancelledError("the client was closed while the call ran") from cancellation


def error_of(call: FailedCall) -> M2IBError:
    """Return the exception for a failed call."""
    code, text = call.code(), call.details() or ""
    details = read_details(call.trailing_metadata() or ())
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in text:
        return _message_too_large()
    kind = ERROR_BY_STATUS.get(code, ServerError)
    return _build(kind, text or f"the call ended with {code.name}", details)


def error_of_status(status: attribution_pb2.RequestStatus) -> M2IBError:
    """Return the exception for one failed pair of a batch, as if it had been a call of its own."""
    kind = ERROR_BY_NUMBER.get(status.code, ServerError)
    return _build(kind, status.message or f"the pair ended with status {status.code}", _unpack(status))


def read_details(metadata: Metadata) -> Details:
    """Return the rich details of a fault; empty ones where there are none or they cannot be read.

    The status alone already says what kind of fault it is, so unreadable details must not hide it.
    """
    packed = next((value for key, value in metadata if key == DETAILS_KEY), None)
    if not isinstance(packed, bytes):
        return Details()
    try:
        return _unpack(status_pb2.Status.FromString(packed))
    except DecodeError:
        return Details()


def _unpack(status: status_pb2.Status | attribution_pb2.RequestStatus) -> Details:
    bad_request = _detail(status, error_details_pb2.BadRequest)
    info = _detail(status, error_details_pb2.ErrorInfo)
    resource = _detail(status, error_details_pb2.ResourceInfo)
    retry = _detail(status, error_details_pb2.RetryInfo)
    violation = next(iter(bad_request.field_violations), error_details_pb2.BadRequest.FieldViolation())
    seen, allowed = read_description(violation.description or resource.description)
    is_ours = info.domain == DOMAIN
    return Details(
        field=violation.field,
        seen=seen,
        allowed=allowed,
        reason=info.reason if is_ours else violation.reason,
        request_id=dict(info.metadata).get("request_id", "") if is_ours else "",
        retry_after_seconds=retry.retry_delay.ToNanoseconds() / 1e9 if retry.HasField("retry_delay") else None,
    )


def _detail(status: status_pb2.Status | attribution_pb2.RequestStatus, kind: type[Detail]) -> Detail:
    """Return the detail of that kind; an empty one where there is none."""
    detail = kind()
    for packed in status.details:
        if packed.Unpack(detail):
            break
    return detail


def read_description(description: str) -> tuple[str, str]:
    """Return what was seen and what is allowed, of the service's own wording `...seen S; allowed: A`."""
    seen, _, allowed = description.partition("; allowed: ")
    _, is_said, seen = seen.partition("seen ")
    return seen if is_said else "", allowed


def _build(kind: type[M2IBError], text: str, details: Details) -> M2IBError:
    """Return the exception with those of the details that it has a place for."""
    places = inspect.signature(kind).parameters
    values = {field.name: getattr(details, field.name) for field in dataclasses.fields(details)}
    return kind(text, **{name: value for name, value in values.items() if name in places})


def _message_too_large() -> InvalidRequestError:
    """Word gRPC's own refusal of a message, which carries the status of a full queue but is none."""
    return InvalidRequestError.of(
        "message",
        seen="a request or an answer above the message limit",
        allowed="a smaller image or fewer outputs",
        reason="MESSAGE_TOO_LARGE",
    )

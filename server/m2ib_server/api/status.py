"""Turns faults into gRPC statuses with rich details: one table. Text of unknown errors never leaves the server."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as PackedDetail
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from m2ib_server import errors
from m2ib_server.errors import Code, ServiceError

DOMAIN = "m2ib.v1"
PUSHBACK_KEY = "grpc-retry-pushback-ms"  # what gRPC's clients obey; they do not read RetryInfo
NEVER_AGAIN = "-1"

DEFAULT_RETRY_SECONDS = 1.0
LEAST_RETRY_SECONDS = 0.1  # a client of grpcio 1.85 that is told 0 never comes back and hangs until its deadline
MOST_RETRY_SECONDS = 30.0  # an estimate of minutes is not worth a wait of minutes

STATUS_BY_CODE = {
    Code.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Code.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Code.BUSY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Code.EXPIRED: grpc.StatusCode.DEADLINE_EXCEEDED,
    Code.UNIDENTIFIED: grpc.StatusCode.UNAUTHENTICATED,
    Code.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    Code.PRECONDITION: grpc.StatusCode.FAILED_PRECONDITION,
    Code.INTERNAL: grpc.StatusCode.INTERNAL,
    Code.UNSUPPORTED: grpc.StatusCode.UNIMPLEMENTED,
}

Detail = Callable[[Any], Message]  # makes a detail of an error of the kind that it belongs to


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a kind of error is answered with.

    Attributes:
        status: the gRPC status; that of the error's code.
        details: what is said beside ErrorInfo, which all have, and RetryInfo.
        may_pass: whether the same request may pass later; then RetryInfo and the pushback say when.
    """

    status: grpc.StatusCode
    details: tuple[Detail, ...] = ()
    may_pass: bool = False


def _bad_request(error: errors.InvalidField) -> error_details_pb2.BadRequest:
    violation = error_details_pb2.BadRequest.FieldViolation(
        field=error.field, description=f"seen {error.seen}; allowed: {error.allowed}", reason=error.reason
    )
    return error_details_pb2.BadRequest(field_violations=[violation])


def _missing(resource_type: str) -> Answer:
    def resource(error: ServiceError) -> error_details_pb2.ResourceInfo:
        return error_details_pb2.ResourceInfo(resource_type=resource_type, description=str(error))

    return Answer(status=grpc.StatusCode.NOT_FOUND, details=(resource,))


def _full(subject: str) -> Answer:
    """Answer that a quota of `subject`, a part of the server or the caller, is used up."""

    def quota(error: ServiceError) -> error_details_pb2.QuotaFailure:
        violation = error_details_pb2.QuotaFailure.Violation(
            subject=subject, description=str(error), api_service=DOMAIN, quota_id=error.reason
        )
        return error_details_pb2.QuotaFailure(violations=[violation])

    return Answer(status=grpc.StatusCode.RESOURCE_EXHAUSTED, details=(quota,), may_pass=True)


INVALID = Answer(status=grpc.StatusCode.INVALID_ARGUMENT, details=(_bad_request,))
AWAY = Answer(status=grpc.StatusCode.UNAVAILABLE, may_pass=True)
UNUSABLE = Answer(status=grpc.StatusCode.UNAVAILABLE)
REFUSED = Answer(status=grpc.StatusCode.FAILED_PRECONDITION)
EXPIRED = Answer(status=grpc.StatusCode.DEADLINE_EXCEEDED)
UNIDENTIFIED = Answer(status=grpc.StatusCode.UNAUTHENTICATED)
FORBIDDEN = Answer(status=grpc.StatusCode.PERMISSION_DENIED)
BROKEN = Answer(status=grpc.StatusCode.INTERNAL)
UNSUPPORTED = Answer(status=grpc.StatusCode.UNIMPLEMENTED)

ANSWERS: Mapping[type[ServiceError], Answer] = MappingProxyType(
    {
        errors.InvalidField: INVALID,
        errors.MessageMalformed: INVALID,
        errors.ImageEmpty: INVALID,
        errors.ImageUndecodable: INVALID,
        errors.ImageTooLarge: INVALID,
        errors.TransferSyntaxUnsupported: INVALID,
        errors.TensorInvalid: INVALID,
        errors.EmbeddingUndefined: INVALID,
        errors.TextEmpty: INVALID,
        errors.TextTooLong: INVALID,
        errors.SettingOutOfRange: INVALID,
        errors.ModelUnknown: _missing("m2ib.v1.Model"),
        errors.VersionAbsent: _missing("m2ib.v1.ModelVersion"),
        errors.VersionNotLoaded: REFUSED,
        errors.VersionAliased: REFUSED,
        errors.ModelMemoryExceeded: REFUSED,
        errors.AliasesUnwritable: REFUSED,
        errors.AliasesCorrupt: REFUSED,
        errors.HandleUnknown: _missing("m2ib.v1.Image"),
        errors.QueueFull: _full("engine"),
        errors.WaitTooLong: _full("engine"),
        errors.ServerFull: _full("server"),
        errors.UploadStoreFull: _full("uploads"),
        errors.CallerFull: _full("caller"),
        errors.CredentialsMissing: UNIDENTIFIED,
        errors.CredentialsInvalid: UNIDENTIFIED,
        errors.CredentialsExpired: UNIDENTIFIED,
        errors.ScopeMissing: FORBIDDEN,
        errors.AccessFileUnusable: UNUSABLE,
        errors.ModelsStalled: AWAY,
        errors.ModelGone: AWAY,
        errors.Loading: AWAY,
        errors.Draining: AWAY,
        errors.EngineRestarting: AWAY,
        errors.AuditUnavailable: AWAY,
        errors.AuditUnusable: UNUSABLE,
        errors.PackageCorrupt: REFUSED,
        errors.DeviceUnavailable: UNUSABLE,
        errors.DeadlineExpired: EXPIRED,
        errors.DeadlineTooShort: EXPIRED,
        errors.UploadStalled: EXPIRED,
        errors.EngineFailed: BROKEN,
        errors.EvaluationFailed: BROKEN,
        errors.EvaluationAborted: BROKEN,
        errors.CallNotOffered: UNSUPPORTED,
    }
)


def answer_to(error: ServiceError) -> Answer:
    """Return the answer to an error; one that nobody has put into the table has its code's status and no more."""
    return ANSWERS.get(type(error)) or Answer(status=STATUS_BY_CODE[error.code])


def retry_seconds(error: ServiceError) -> float | None:
    """Return after how many seconds the same request is worth another attempt; None where it never is."""
    if not answer_to(error).may_pass:
        return None
    estimate = DEFAULT_RETRY_SECONDS if error.retry_seconds is None else error.retry_seconds
    return min(max(estimate, LEAST_RETRY_SECONDS), MOST_RETRY_SECONDS)


def pushback(error: Exception, seconds_left: float | None) -> str | None:
    """Return what to tell a client's gRPC library of another attempt; None for a status that none repeats.

    `seconds_left` is what the call's deadline leaves. Who would have to wait past it is told to give up at once, and
    learns why, where it would otherwise learn of its deadline only.
    """
    if not isinstance(error, ServiceError):
        return None
    if answer_to(error).status not in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE):
        return None
    seconds = retry_seconds(error)
    if seconds is None or (seconds_left is not None and seconds >= seconds_left):
        return NEVER_AGAIN
    return str(round(1000 * seconds))


def rich_status(error: ServiceError, request_id: str) -> status_pb2.Status:
    """Return the status of a fault of ours, with ErrorInfo and what else fits the fault."""
    answer = answer_to(error)
    details: list[Message] = [_error_info(error.reason, request_id), *(write(error) for write in answer.details)]
    if (seconds := retry_seconds(error)) is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(1000 * seconds))
        details.append(retry)
    return _status(answer.status, str(error), details)


def unknown_status(request_id: str) -> status_pb2.Status:
    """Return the status of a fault that nobody foresaw: a fixed text and the request's id, nothing else."""
    text = "an internal error; the server's log has it under the request id"
    return _status(grpc.StatusCode.INTERNAL, text, [_error_info("INTERNAL", request_id)])


def _error_info(reason: str, request_id: str) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata={"request_id": request_id})


def _status(code: grpc.StatusCode, message: str, details: list[Message]) -> status_pb2.Status:
    packed = []
    for detail in details:
        packed.append(PackedDetail())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=code.value[0], message=message, details=packed)

"""Turns faults into gRPC statuses with rich details. Text of unknown errors never leaves the server."""

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from m2ib_server.errors import Code, HandleUnknown, InvalidField, ModelUnknown, ServiceError

DOMAIN = "m2ib.v1"
RETRY_SECONDS = 1

STATUS_BY_CODE = {
    Code.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Code.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Code.BUSY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Code.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Code.EXPIRED: grpc.StatusCode.DEADLINE_EXCEEDED,
    Code.INTERNAL: grpc.StatusCode.INTERNAL,
}


def rich_status(error: ServiceError, request_id: str) -> status_pb2.Status:
    """Return the status of a fault of ours, with ErrorInfo and what else fits the fault."""
    details: list[Message] = [_error_info(error.reason, request_id)]
    if isinstance(error, InvalidField):
        details.append(_bad_request(error))
    if isinstance(error, ModelUnknown):
        details.append(error_details_pb2.ResourceInfo(resource_type="m2ib.v1.Model", description=str(error)))
    if isinstance(error, HandleUnknown):
        details.append(error_details_pb2.ResourceInfo(resource_type="m2ib.v1.Image", description=str(error)))
    if error.code in (Code.BUSY, Code.UNAVAILABLE):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromSeconds(RETRY_SECONDS)
        details.append(retry)
    return _status(STATUS_BY_CODE[error.code], str(error), details)


def unknown_status(request_id: str) -> status_pb2.Status:
    """Return the status of a fault that nobody foresaw: a fixed text and the request's id, nothing else."""
    text = "an internal error; the server's log has it under the request id"
    return _status(grpc.StatusCode.INTERNAL, text, [_error_info("INTERNAL", request_id)])


def _error_info(reason: str, request_id: str) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata={"request_id": request_id})


def _bad_request(error: InvalidField) -> error_details_pb2.BadRequest:
    violation = error_details_pb2.BadRequest.FieldViolation(
        field=error.field, description=f"seen {error.seen}; allowed: {error.allowed}", reason=error.reason
    )
    return error_details_pb2.BadRequest(field_violations=[violation])


def _status(code: grpc.StatusCode, message: str, details: list[Message]) -> status_pb2.Status:
    packed = []
    for detail in details:
        packed.append(Any())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=code.value[0], message=message, details=packed)

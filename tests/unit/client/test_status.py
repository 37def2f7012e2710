"""Checks the passage from gRPC's statuses to the client's exceptions."""

from dataclasses import dataclass

import grpc
import pytest
from google.protobuf.any_pb2 import Any as PackedDetail
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from m2ib.v1 import attribution_pb2
from m2ib_client import InvalidRequestError, M2IBError, ServerError
from m2ib_client._status import DETAILS_KEY, ERROR_BY_STATUS, error_of, error_of_status, read_description


@dataclass(frozen=True)
class FailedCall:
    status: grpc.StatusCode
    text: str | None = ""
    metadata: tuple[tuple[str, str | bytes], ...] | None = ()

    def code(self) -> grpc.StatusCode:
        return self.status

    def details(self) -> str | None:
        return self.text

    def trailing_metadata(self) -> tuple[tuple[str, str | bytes], ...] | None:
        return self.metadata


def packed(*details: Message) -> tuple[tuple[str, bytes]]:
    wrapped = [PackedDetail() for _ in details]
    for wrapper, detail in zip(wrapped, details, strict=True):
        wrapper.Pack(detail)
    return ((DETAILS_KEY, status_pb2.Status(code=3, details=wrapped).SerializeToString()),)


def test_every_status_has_an_exception() -> None:
    assert set(ERROR_BY_STATUS) == set(grpc.StatusCode) - {grpc.StatusCode.OK}


@pytest.mark.parametrize("status", ERROR_BY_STATUS)
def test_status_alone_is_enough(status: grpc.StatusCode) -> None:
    error = error_of(FailedCall(status, None, None))
    assert type(error) is ERROR_BY_STATUS[status]
    assert status.name in str(error)


def test_unreadable_details_do_not_hide_the_fault() -> None:
    error = error_of(FailedCall(grpc.StatusCode.INTERNAL, "broken", ((DETAILS_KEY, b"\xff\xff"),)))
    assert type(error) is ServerError
    assert str(error) == "broken"


def test_field_comes_from_the_violation_and_the_rest_from_the_info() -> None:
    violation = error_details_pb2.BadRequest.FieldViolation(
        field="settings.beta", description="seen -1; allowed: above 0, at most 100", reason="THEIRS"
    )
    info = error_details_pb2.ErrorInfo(reason="SETTING_OUT_OF_RANGE", domain="m2ib.v1", metadata={"request_id": "r"})
    metadata = packed(error_details_pb2.BadRequest(field_violations=[violation]), info)
    error = error_of(FailedCall(grpc.StatusCode.INVALID_ARGUMENT, "text", metadata))
    assert isinstance(error, InvalidRequestError)
    assert vars(error) == {
        "field": "settings.beta",
        "seen": "-1",
        "allowed": "above 0, at most 100",
        "reason": "SETTING_OUT_OF_RANGE",
        "request_id": "r",
    }


@pytest.mark.parametrize(
    ("description", "seen", "allowed"),
    [
        ("seen 3; allowed: 1 or 2", "3", "1 or 2"),
        ("model: no such model is loaded; allowed: a, b", "", "a, b"),
        ("something else altogether", "", ""),
        ("", "", ""),
    ],
)
def test_description_is_read_as_the_service_words_it(description: str, seen: str, allowed: str) -> None:
    assert read_description(description) == (seen, allowed)


def test_info_of_another_domain_is_not_ours() -> None:
    info = error_details_pb2.ErrorInfo(reason="X", domain="proxy.example", metadata={"request_id": "theirs"})
    assert error_of(FailedCall(grpc.StatusCode.INTERNAL, "t", packed(info))).request_id == ""


@pytest.mark.parametrize("status", ERROR_BY_STATUS)
def test_status_of_a_pair_means_what_that_of_a_call_means(status: grpc.StatusCode) -> None:
    info = error_details_pb2.ErrorInfo(domain="m2ib.v1", metadata={"request_id": "r"})
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(1500)
    ((_, metadata),) = packed(info, retry)
    details = status_pb2.Status.FromString(metadata).details
    sent = attribution_pb2.RequestStatus(code=status.value[0], message="what", details=details)
    error, whole = error_of_status(sent), error_of(FailedCall(status, "what", packed(info, retry)))
    assert type(error) is type(whole)
    assert (str(error), vars(error)) == (str(whole), vars(whole))


@pytest.mark.parametrize("code", [0, 99, -1])
def test_status_of_a_pair_that_nobody_knows_is_a_fault_of_the_server(code: int) -> None:
    error = error_of_status(attribution_pb2.RequestStatus(code=code))
    assert type(error) is ServerError
    assert str(code) in str(error)


def test_unknown_details_are_passed_over() -> None:
    info = error_details_pb2.ErrorInfo(domain="m2ib.v1", metadata={"request_id": "r"})
    metadata = packed(error_details_pb2.Help(), info)
    assert error_of(FailedCall(grpc.StatusCode.INTERNAL, "t", metadata)).request_id == "r"


@pytest.mark.parametrize(
    "text",
    [
        "CLIENT: Received message larger than max (70000000 vs. 67108864)",
        "SERVER: Received message larger than max (70000000 vs. 4194304)",
    ],
)
def test_message_above_the_limit_is_no_full_queue(text: str) -> None:
    error: M2IBError = error_of(FailedCall(grpc.StatusCode.RESOURCE_EXHAUSTED, text))
    assert isinstance(error, InvalidRequestError)
    assert error.reason == "MESSAGE_TOO_LARGE"

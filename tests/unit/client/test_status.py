"""Checks the passage from gRPC's statuses to the client's exceptions."""

from dataclasses import dataclass

import grpc
import pytest
from google.protobuf.any_pb2 import Any as PackedDetail
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from m2ib_client import InvalidRequestError, M2IBError, ServerError
from m2ib_client._status import DETAILS_KEY, ERROR_BY_STATUS, error_of, read_description


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

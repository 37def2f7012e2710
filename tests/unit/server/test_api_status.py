"""Every fault of ours has one row in one table, which says its status, its details and whether to come back."""

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2

from every_error import every_error, example
from m2ib_server import errors
from m2ib_server.api.status import (
    ANSWERS,
    DOMAIN,
    LEAST_RETRY_SECONDS,
    MOST_RETRY_SECONDS,
    STATUS_BY_CODE,
    answer_to,
    pushback,
    retry_seconds,
    rich_status,
    unknown_status,
)


def details_of(status):
    """Return the details of a status by the name of their kind."""
    found = {}
    for packed in status.details:
        kind = getattr(error_details_pb2, packed.type_url.rpartition(".")[2])
        found[kind.__name__] = kind()
        packed.Unpack(found[kind.__name__])
    return found


def test_every_code_has_a_status():
    assert set(STATUS_BY_CODE) == set(errors.Code)


def test_every_error_has_a_reason_of_its_own():
    reasons = [kind.reason for kind in every_error()]
    assert len(set(reasons)) == len(reasons) > 10


def test_every_error_has_one_row_in_the_table_and_no_row_is_without_an_error():
    assert set(ANSWERS) == set(every_error())


@pytest.mark.parametrize("kind", list(ANSWERS), ids=lambda kind: kind.__name__)
def test_every_error_is_answered_with_its_code_s_status_its_reason_and_the_details_that_it_calls_for(kind):
    error = example(kind)
    status = rich_status(error, "some-id")
    details = details_of(status)
    assert status.code == STATUS_BY_CODE[kind.code].value[0]
    assert status.message == str(error)
    info = details.pop("ErrorInfo")
    assert (info.reason, info.domain, dict(info.metadata)) == (kind.reason, DOMAIN, {"request_id": "some-id"})
    expected = {
        errors.Code.INVALID: {"BadRequest"},
        errors.Code.NOT_FOUND: {"ResourceInfo"},
        errors.Code.BUSY: {"QuotaFailure", "RetryInfo"},
        errors.Code.UNAVAILABLE: {"RetryInfo"} if ANSWERS[kind].may_pass else set(),
    }
    assert set(details) == expected.get(kind.code, set())


def test_a_bad_field_is_named_with_what_was_seen_and_what_is_allowed():
    error = errors.SettingOutOfRange("settings.beta", seen="-1", allowed="0 to 100")
    (violation,) = details_of(rich_status(error, "id"))["BadRequest"].field_violations
    assert (violation.field, violation.reason) == ("settings.beta", "SETTING_OUT_OF_RANGE")
    assert violation.description == "seen -1; allowed: 0 to 100"


def test_a_quota_that_is_used_up_says_whose_which_and_how_much():
    error = errors.ServerFull(what="bytes", used=90, limit=100)
    (violation,) = details_of(rich_status(error, "id"))["QuotaFailure"].violations
    assert (violation.subject, violation.quota_id, violation.api_service) == ("server", "SERVER_FULL", DOMAIN)
    assert "90 of 100 bytes" in violation.description


@pytest.mark.parametrize(
    ("estimate", "told"),
    [(None, 1.0), (0.0, LEAST_RETRY_SECONDS), (4.2, 4.2), (9000.0, MOST_RETRY_SECONDS)],
)
def test_when_to_come_back_is_the_estimate_within_bounds(estimate, told):
    error = errors.QueueFull(depth=3, limit=3, retry_seconds=estimate)
    assert retry_seconds(error) == told
    assert pushback(error, None) == str(round(1000 * told))
    assert details_of(rich_status(error, "id"))["RetryInfo"].retry_delay.ToMilliseconds() == round(1000 * told)


def test_a_wait_that_is_too_long_is_over_when_the_excess_has_passed():
    assert retry_seconds(errors.WaitTooLong(wait=65.0, limit=60.0)) == 5.0


def test_no_client_is_told_to_wait_for_nothing():
    """A pushback of 0 makes grpcio 1.85 hang until the deadline."""
    assert all(int(pushback(example(kind), None) or 1) != 0 for kind in every_error())


def test_whose_deadline_ends_before_the_pause_does_is_told_to_give_up_at_once():
    error = errors.QueueFull(depth=3, limit=3, retry_seconds=5.0)
    assert pushback(error, 6.0) == "5000"
    assert pushback(error, 4.0) == "-1"


@pytest.mark.parametrize("kind", [errors.DeviceUnavailable])
def test_what_does_not_pass_is_not_tried_again_although_its_status_would_be(kind):
    assert answer_to(example(kind)).status is grpc.StatusCode.UNAVAILABLE
    assert pushback(example(kind), None) == "-1"


@pytest.mark.parametrize(
    "error", [ValueError("Zebrafinch"), errors.EvaluationFailed(), errors.TextEmpty("text", seen="", allowed="")]
)
def test_a_status_that_no_client_repeats_has_no_pushback(error):
    assert pushback(error, None) is None


def test_an_error_that_is_missing_in_the_table_still_has_the_status_of_its_code():
    class Newcomer(errors.ServiceError):
        code = errors.Code.BUSY
        reason = "NEWCOMER"

    status = rich_status(Newcomer("text"), "id")
    assert status.code == code_pb2.RESOURCE_EXHAUSTED
    assert set(details_of(status)) == {"ErrorInfo"}


def test_the_status_of_an_unknown_error_has_a_fixed_text():
    status = unknown_status("id")
    assert status.code == code_pb2.INTERNAL
    assert status.message == "an internal error; the server's log has it under the request id"
    assert details_of(status)["ErrorInfo"].metadata["request_id"] == "id"

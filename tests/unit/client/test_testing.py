"""Checks the public fake: what it promises to those who test with it."""

from typing import Any

import grpc
import pytest

from m2ib_client import (
    AccessError,
    BusyError,
    Client,
    ClosedError,
    ImageHandle,
    InvalidRequestError,
    M2IBError,
    NotFoundError,
    ServerError,
    UnavailableError,
)
from m2ib_client._status import ERROR_BY_STATUS
from m2ib_client.testing import FakeService, serve_fake
from m2ib_client.testing._failure import STATUS_BY_ERROR


def test_every_fault_that_a_server_can_cause_can_be_played() -> None:
    assert set(STATUS_BY_ERROR) == set(ERROR_BY_STATUS.values())


@pytest.mark.parametrize(("error", "status"), STATUS_BY_ERROR.items())
def test_played_fault_is_the_one_that_its_status_means(error: type[M2IBError], status: grpc.StatusCode) -> None:
    assert ERROR_BY_STATUS[status] is error


def test_fault_that_no_server_causes_is_refused(fake: FakeService) -> None:
    with pytest.raises(ValueError, match="ClosedError"):
        fake.fail_next(ClosedError("no"))


def test_faults_are_played_once_each_and_in_order(fake: FakeService) -> None:
    fake.fail_next(UnavailableError("one"), times=3)
    with Client(fake.address) as client:
        with pytest.raises(UnavailableError):
            client.models()
        assert [model.name for model in client.models()] == ["fake"]
    assert [call.method for call in fake.calls] == ["ListModels"] * 4


def test_faults_of_pairs_and_batches_are_checked_too(fake: FakeService) -> None:
    with pytest.raises(ValueError, match="ClosedError"):
        fake.fail_next_pairs(ClosedError("no"))
    with pytest.raises(ValueError, match="ClosedError"):
        fake.break_next_batch(ClosedError("no"), after=1)


def test_faults_of_pairs_are_played_in_a_batch_only(fake: FakeService, image: Any) -> None:
    fake.fail_next_pairs(ServerError("one"))
    with Client(fake.address) as client:
        assert client.explain(image, "a").similarity > 0
        first, second = client.explain_many([(image, "a"), (image, "b")], ahead=1)
    assert isinstance(first.error, ServerError)
    assert second.error is None
    assert [call.method for call in fake.calls] == ["Explain", "ExplainBatch", "UploadImage", "ExplainBatch"]


def test_faults_of_uploads_are_played_in_an_upload_only(fake: FakeService, image: Any) -> None:
    with pytest.raises(ValueError, match="ClosedError"):
        fake.fail_next_uploads(ClosedError("no"))
    fake.fail_next_uploads(BusyError("full"), times=2)
    with Client(fake.address) as client:
        assert client.explain(image, "a").similarity > 0
        for _ in range(2):
            with pytest.raises(BusyError, match="full"):
                client.upload(image)
        assert client.upload(image).size_bytes > 0


def test_batch_ends_after_so_many_answers(fake: FakeService, image: Any) -> None:
    fake.break_next_batch(AccessError("no more"), after=2)
    with Client(fake.address) as client:
        results = client.explain_many(((image, f"text {index}") for index in range(5)), ordered=False)
        assert [next(results).error for _ in range(2)] == [None, None]
        with pytest.raises(AccessError, match="no more"):
            next(results)


def test_batch_works_at_no_more_pairs_than_its_limit(image: Any) -> None:
    with serve_fake(FakeService(step_seconds=0.3)) as fake, Client(fake.address) as client:
        results = client.explain_many(((image, f"text {index}") for index in range(20)), steps=1, ordered=False)
        next(results)
        read = sum(call.method == "ExplainBatch" for call in fake.calls)
        assert read <= 2 * client.model().limits.max_batch_in_flight
        results.close()


def test_file_that_is_not_what_its_header_promised_is_refused(fake: FakeService) -> None:
    image = ImageHandle(encoded=b"film", sha256="0" * 64)
    with Client(fake.address) as client, pytest.raises(InvalidRequestError, match="header"):
        client.explain(image, "a")


def test_model_has_the_name_it_was_given() -> None:
    with serve_fake(FakeService(model="other")) as fake, Client(fake.address) as client:
        assert client.model("other").name == client.model("other:1").name == "other"
        with pytest.raises(NotFoundError):
            client.model("other:2")

"""Checks the public fake: what it promises to those who test with it."""

import grpc
import pytest

from m2ib_client import Client, ClosedError, M2IBError, UnavailableError
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


def test_model_has_the_name_it_was_given() -> None:
    with serve_fake(FakeService(model="other")) as fake, Client(fake.address) as client:
        assert client.model("other").name == "other"

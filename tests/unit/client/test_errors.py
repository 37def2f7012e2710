"""Checks what every exception of the client owes its user."""

import pickle

import pytest

import m2ib_client
from m2ib_client import M2IBError, _errors


def all_errors(kind: type[M2IBError] = M2IBError) -> list[type[M2IBError]]:
    return [kind, *(error for child in kind.__subclasses__() for error in all_errors(child))]


@pytest.mark.parametrize("kind", all_errors())
def test_exception_is_public_and_drawn_in_the_tree(kind: type[M2IBError]) -> None:
    assert getattr(m2ib_client, kind.__name__) is kind
    assert kind.__name__ in (_errors.__doc__ or "")


@pytest.mark.parametrize("kind", all_errors())
def test_exception_survives_the_way_to_another_process(kind: type[M2IBError]) -> None:
    error = kind("text", request_id="r")
    for name in set(vars(error)) - {"request_id"}:
        setattr(error, name, "kept")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(copy) is kind
    assert (str(copy), vars(copy)) == (str(error), vars(error))

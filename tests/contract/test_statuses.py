"""What operators are told of statuses and reasons is what the server answers, and all of it."""

from collections.abc import Iterator
from pathlib import Path

import grpc
from google.rpc import code_pb2, status_pb2

from every_error import every_error, example
from knock import STATUSES
from m2ib.oip import inference_pb2
from m2ib.v1 import attribution_pb2, model_repository_pb2
from m2ib_server.api.status import rich_status, unknown_status

PAGE = Path(__file__).resolve().parents[2] / "docs/operations/statuses.md"
CONTRACTS = (attribution_pb2.DESCRIPTOR, model_repository_pb2.DESCRIPTOR, inference_pb2.DESCRIPTOR)


def rows(columns: int) -> Iterator[list[str]]:
    """The cells of the page's rows of so many columns, headings and rules left out."""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == columns and cells[0].strip("-") not in ("", "service", "reason"):
            yield cells


def told() -> dict[str, dict[str, frozenset[str]]]:
    """The page's rows of three columns."""
    services: dict[str, dict[str, frozenset[str]]] = {}
    for service, method, codes in rows(3):
        services.setdefault(service, {})[method] = frozenset(codes.split(", "))
    return services


def answered(status: status_pb2.Status) -> tuple[str, list[str]]:
    """A status as the page tells it: its name, and its details in the order in which they are sent."""
    return code_pb2.Code.Name(status.code), [detail.type_url.rpartition(".")[2] for detail in status.details]


def test_the_page_tells_the_statuses_that_the_server_is_held_to():
    assert told() == STATUSES


def test_every_method_of_every_service_has_its_statuses():
    services = [service for contract in CONTRACTS for service in contract.services_by_name.values()]
    assert {each.full_name: set(each.methods_by_name) for each in services} == {
        name: set(methods) for name, methods in STATUSES.items()
    }


def test_every_status_that_is_told_exists():
    names = {status.name for status in grpc.StatusCode}
    assert all(codes <= names for methods in told().values() for codes in methods.values())


def test_every_reason_is_told_once_with_its_status_and_details_and_no_other_is():
    listed = list(rows(4))
    given = {kind.reason: answered(rich_status(example(kind), "id")) for kind in every_error()}
    given["INTERNAL"] = answered(unknown_status("id"))
    assert {reason: (status, details.split(", ")) for reason, status, details, _ in listed} == given
    assert len(listed) == len(given)
    assert all(when for *_, when in listed)

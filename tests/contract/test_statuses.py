"""What operators are told of statuses is what the fuzzing holds the server to."""

from pathlib import Path

import grpc

from knock import STATUSES

PAGE = Path(__file__).resolve().parents[2] / "docs/operations/statuses.md"


def told() -> dict[str, dict[str, frozenset[str]]]:
    """The page's rows of three columns."""
    services: dict[str, dict[str, frozenset[str]]] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and "." in cells[0]:
            services.setdefault(cells[0], {})[cells[1]] = frozenset(cells[2].split(", "))
    return services


def test_the_page_tells_the_statuses_that_the_server_is_held_to():
    assert told() == STATUSES


def test_every_status_that_is_told_exists():
    names = {status.name for status in grpc.StatusCode}
    assert all(codes <= names for methods in told().values() for codes in methods.values())

"""What operators are told of refusals that pass is what the server answers, and all of it."""

from pathlib import Path

from google.rpc import code_pb2

from every_error import every_error, example
from m2ib_server.api.status import rich_status

PAGE = Path(__file__).resolve().parents[2] / "docs/operations/overload.md"


def told() -> list[tuple[str, str, list[str]]]:
    """The reason, status and details of each row of the page's table of four columns."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [(row[0].strip("`"), row[1], row[2].split(", ")) for row in rows if len(row) == 4]


def test_every_refusal_that_passes_is_told_once_with_its_status_and_details_and_no_other_is():
    answers = {kind.reason: rich_status(example(kind), "id") for kind in every_error()}
    details = {
        reason: [detail.type_url.rpartition(".")[2] for detail in status.details] for reason, status in answers.items()
    }
    passing = [
        (reason, code_pb2.Code.Name(status.code), details[reason][1:])  # all have the first, ErrorInfo
        for reason, status in answers.items()
        if "RetryInfo" in details[reason]
    ]
    assert sorted(told()) == sorted(passing)

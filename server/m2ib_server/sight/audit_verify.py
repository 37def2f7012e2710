"""Checks the chain of an audit log over all its files, line by line and in little memory."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m2ib_server.sight.audit_chain import START, Body, LineBroken, Link, Record, may_be_torn, read_line, torn_entry

MAX_LINE_BYTES = 16 << 20  # no record is a thousandth of it


class ChainBroken(Exception):
    """The chain does not hold.

    Attributes:
        file: the file where it breaks.
        line: the line in it, from 1; 0 where no line is at fault but one is missing.
    """

    def __init__(self, what: str, *, file: Path | None = None, line: int = 0) -> None:
        """Say what is wrong."""
        super().__init__(what)
        self.file = file
        self.line = line


@dataclass(slots=True)
class Finding:
    """What is known of a chain that held so far.

    Attributes:
        head: the place of its last record.
        records: how many there are, of all kinds.
        calls: how many of them are calls.
        suppressed: how many calls, refused for want of credentials, the log itself says have no record of their own.
        unrecorded: how many calls the log itself says it could not record.
        torn_lines: the file and line, from 1, of what a crash cut short, each accounted for by a recovery record.
        first_time: of the first record, RFC 3339.
        last_time: of the last one.
        has_expected: whether the expected head was among the records.
    """

    head: Link
    records: int = 0
    calls: int = 0
    suppressed: int = 0
    unrecorded: int = 0
    torn_lines: list[tuple[Path, int]] = field(default_factory=list)
    first_time: str = ""
    last_time: str = ""
    has_expected: bool = False

    @property
    def torn(self) -> int:
        """How many lines a crash cut short."""
        return len(self.torn_lines)


@dataclass(slots=True)
class _Cut:
    """Lines that are no JSON and wait for the record that accounts for them."""

    number: int = 0
    what: str = ""
    entries: list[dict[str, Any]] = field(default_factory=list)


def verify(files: Sequence[Path], *, after: str = START.hash, expect_head: str | None = None) -> Finding:
    """Check the chain over the files of one log, in whichever order they are given.

    Args:
        files: the log and those it was continued from.
        after: the hash after which the first record comes; another than the default when older files are kept
            elsewhere, whose last record has it.
        expect_head: a hash that must be among the records, such as the head that was noted lately.

    Raises:
        ChainBroken: at the first line that is changed, missing or out of order, or the expected head is not found.
        OSError: a file cannot be read.
    """
    finding = Finding(head=Link(-1 if after != START.hash else 0, after), has_expected=expect_head in (None, after))
    for file in _in_order(files):
        with file.open("rb") as stream:
            _verify_file(file, _lines(stream), finding, expect_head)
    if not finding.has_expected:
        raise ChainBroken("the expected head is not among the records: records at the end are missing, or changed")
    return finding


def _verify_file(file: Path, lines: Iterable[bytes], finding: Finding, expect_head: str | None) -> None:
    cut = _Cut()
    number = 0
    for number, line in enumerate(lines, start=1):
        try:
            record = read_line(line)
        except LineBroken as error:
            if error.is_json:
                raise ChainBroken(str(error), file=file, line=number) from None
            if not may_be_torn(line, is_first=not cut.entries):
                raise ChainBroken(
                    "the line is no record, and none that a crash leaves", file=file, line=number
                ) from None
            cut = cut if cut.entries else _Cut(number, str(error))
            cut.entries.append(torn_entry(line))
            continue
        _check_cut(record, cut, file)
        _check_order(record, finding.head, file, number)
        finding.torn_lines.extend((file, cut.number + place) for place in range(len(cut.entries)))
        _count(record, finding, expect_head)
        cut = _Cut()
    if cut.entries:
        raise ChainBroken(cut.what, file=file, line=cut.number)


def _check_cut(record: Record, cut: _Cut, file: Path) -> None:
    """Hold lines that are no records against the recovery record that must come next."""
    if record.body.get("kind") == "recovery" and record.body.get("torn") == cut.entries:
        return
    if cut.entries:
        raise ChainBroken(cut.what, file=file, line=cut.number)
    if record.body.get("torn"):
        raise ChainBroken(f"the lines that record {record.link.sequence} speaks of are missing", file=file)


def _check_order(record: Record, head: Link, file: Path, number: int) -> None:
    is_next = head.sequence < 0 or record.link.sequence == head.sequence + 1  # a chain's later part may begin anywhere
    if record.previous == head.hash and is_next:
        return
    if record.link.sequence == head.sequence + 1:
        what = f"record {record.link.sequence} does not continue the record before it, which was replaced"
    else:
        expected = f"record {head.sequence + 1}" if head.sequence >= 0 else f"the record after {head.hash}"
        what = f"record {record.link.sequence} stands where {expected} belongs: records are missing or out of order"
    raise ChainBroken(what, file=file, line=number)


def _count(record: Record, finding: Finding, expect_head: str | None) -> None:
    body, time = record.body, str(record.body.get("time", ""))
    finding.head = record.link
    finding.records += 1
    finding.calls += body.get("kind") == "call"
    finding.suppressed += _number(body, "calls") if body.get("kind") == "suppressed" else 0
    finding.unrecorded += _number(body, "unrecorded")
    finding.first_time = finding.first_time or time
    finding.last_time = time
    finding.has_expected |= record.link.hash == expect_head


def _number(body: Body, name: str) -> int:
    number = body.get(name, 0)
    return number if isinstance(number, int) else 0


def _lines(stream: Any) -> Iterator[bytes]:
    while line := stream.readline(MAX_LINE_BYTES):
        yield line


def _in_order(files: Sequence[Path]) -> list[Path]:
    """Return the files by their first records' numbers; where one has none to read, by the numbers in their names."""
    firsts = {file: _first_sequence(file) for file in files if file.stat().st_size}
    if all(firsts.values()):
        return sorted(firsts, key=lambda file: firsts[file])
    return sorted(firsts, key=lambda file: (not file.suffix[1:].isdigit(), file.name))


def _first_sequence(file: Path) -> int:
    """Return the number of a file's first record, 0 where it cannot be read."""
    with file.open("rb") as stream:
        try:
            return read_line(stream.readline(MAX_LINE_BYTES)).link.sequence
        except LineBroken:
            return 0

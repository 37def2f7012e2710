"""Reads the file of pairs for `m2ib explain-many`; quotes nothing of it but line numbers and the names of columns."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import typer

COLUMNS = ("image", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row: its place from 1, and its cells as they stand in the file."""

    place: int
    image: str
    text: str
    id: str


def read_rows(file: Path) -> list[Row]:
    """Return the rows of the file.

    Raises:
        typer.BadParameter: it is neither CSV nor JSON lines, or a row lacks its image or its text.
    """
    reader = {".csv": _csv_rows, ".jsonl": _json_rows}.get(file.suffix.lower())
    if reader is None:
        raise _refusal("name a file that ends in .csv or .jsonl")
    try:
        return [_row(place, line, cells) for place, (line, cells) in enumerate(reader(file), start=1)]
    except UnicodeDecodeError:
        raise _refusal("the file is not UTF-8") from None
    except csv.Error:
        raise _refusal("the file is not CSV") from None


def _csv_rows(file: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        rows = csv.DictReader(lines)
        missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
        if missing:
            raise _refusal(f"the first line names no column {' and no column '.join(missing)}")
        for cells in rows:
            yield rows.line_num, cells


def _json_rows(file: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    with file.open(encoding="utf-8-sig") as lines:
        for line, written in enumerate(lines, start=1):
            if written.strip():
                yield line, _json_object(line, written)


def _json_object(line: int, written: str) -> Mapping[str, object]:
    try:
        cells = json.loads(written)
    except ValueError:
        cells = None
    if not isinstance(cells, dict):
        raise _refusal(f"line {line} is no JSON object")
    return cells


def _row(place: int, line: int, cells: Mapping[str, object]) -> Row:
    image, text, name = cells.get("image"), cells.get("text"), cells.get("id")
    if not isinstance(image, str) or not image or not isinstance(text, str):
        raise _refusal(f"line {line} lacks its image or its text")
    return Row(place=place, image=image, text=text, id="" if name is None else str(name))


def _refusal(message: str) -> typer.BadParameter:
    return typer.BadParameter(message, param_hint="PAIRS")

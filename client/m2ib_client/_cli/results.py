"""Owns the folder that `m2ib explain-many` writes: a line for each pair as it is done, and the overlays.

A line is known by its row and by the settings it was made with. Lines are only ever added while pairs are explained;
where a row has several, the last one counts, and the others go when the folder is closed. A line that was cut off,
because the machine went down while it was written, counts as not written.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TypeAlias

from m2ib_client._cli.pairs import Row
from m2ib_client._many.pair import ManyResult
from m2ib_client._plain import PlainValue

Key: TypeAlias = tuple[str, str, str, str]
UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
NAME_LENGTH = 80


class ResultsFolder:
    """The results of one run; open it before writing."""

    def __init__(self, folder: Path, options: dict[str, PlainValue]) -> None:
        """Keep where to write, and the settings that every line tells."""
        self._folder = folder
        self._options = options
        self._lines: IO[str] | None = None

    @property
    def file(self) -> Path:
        """The file with a JSON object for each pair."""
        return self._folder / "results.jsonl"

    def open(self, rows: Sequence[Row], *, force: bool) -> list[Row]:
        """Prepare the folder and return the rows that have no explanation yet; with `force`, all of them."""
        self._folder.mkdir(parents=True, exist_ok=True)
        is_done = {} if force else {key: line.get("error") is None for _, key, line in self._written()}
        is_cut = self.file.exists() and not _ends_a_line(self.file)
        self._lines = self.file.open("a", encoding="utf-8")
        self._lines.write("\n" if is_cut else "")
        return [row for row in rows if not is_done.get(self._key(row), False)]

    def close(self) -> None:
        """Close the file and drop the lines that later ones replace."""
        if self._lines is not None:
            self._lines.close()
            self._lines = None
            self._drop_replaced()

    def write(self, row: Row, result: ManyResult, *, overlay: bool) -> None:
        """Write what came of a row: the overlay first, then its line."""
        explanation = result.explanation
        line: dict[str, PlainValue] = {"id": row.id, "image": row.image, "text": row.text, "options": self._options}
        if explanation is None:
            line["error"] = _error(result.error)
        else:
            if overlay and explanation.image is not None:
                line["overlay"] = self._write_overlay(row, explanation.image.overlay_png)
            line["explanation"] = explanation.to_dict()
        assert self._lines is not None, "the folder is open"
        self._lines.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        self._lines.flush()

    def _write_overlay(self, row: Row, png: bytes) -> str:
        """Write an overlay and return its place in the folder; the row's number keeps like ids apart."""
        name = UNSAFE.sub("_", row.id)[:NAME_LENGTH]
        place = Path("overlays", f"{row.place:06}-{name}.png" if name else f"{row.place:06}.png")
        (self._folder / place).parent.mkdir(exist_ok=True)
        (self._folder / place).write_bytes(png)
        return place.as_posix()

    def _written(self) -> Iterator[tuple[str, Key, dict[str, Any]]]:
        """Yield the lines that are whole: as written, what they are known by, and what they hold."""
        if not self.file.exists():
            return
        with self.file.open(encoding="utf-8", errors="replace") as lines:
            for written in lines:
                line = _read(written)
                if line is not None:
                    yield written, _key_of_line(line), line

    def _drop_replaced(self) -> None:
        last = {key: number for number, (_, key, _) in enumerate(self._written())}
        part = self.file.with_suffix(".part")
        with part.open("w", encoding="utf-8") as lines:
            lines.writelines(written for number, (written, key, _) in enumerate(self._written()) if last[key] == number)
        part.replace(self.file)

    def _key(self, row: Row) -> Key:
        return row.id, row.image, row.text, _canonical(self._options)


def _ends_a_line(file: Path) -> bool:
    with file.open("rb") as written:
        written.seek(0, os.SEEK_END)
        if written.tell() == 0:
            return True
        written.seek(-1, os.SEEK_END)
        return written.read() == b"\n"


def _read(written: str) -> dict[str, Any] | None:
    """Return the line; None for one that was cut off."""
    try:
        line = json.loads(written)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


def _key_of_line(line: dict[str, Any]) -> Key:
    return str(line.get("id")), str(line.get("image")), str(line.get("text")), _canonical(line.get("options"))


def _canonical(options: object) -> str:
    return json.dumps(options, sort_keys=True)


def _error(error: Exception | None) -> dict[str, PlainValue]:
    """Return the error's kind and words; of a file that cannot be read, why."""
    message = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    told: dict[str, PlainValue] = {"kind": type(error).__name__, "message": message}
    for name in ("field", "reason", "request_id"):
        if getattr(error, name, ""):
            told[name] = str(getattr(error, name))
    return told

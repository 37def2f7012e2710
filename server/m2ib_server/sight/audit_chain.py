"""Owns the audit log's chain: how a record becomes a line, and what a line must be to be believed. No I/O."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Body = Mapping[str, Any]

_RECOVERY = ((0, b'{"hash":"'), (73, b'","kind":"recovery","previous":"'))  # where each part of one begins
LINKED = ("sequence", "previous", "hash")  # the fields that the chain gives to every record


@dataclass(frozen=True, slots=True)
class Link:
    """A place in the chain: a record's number, from 1, and its hash, 64 lower-case hexadecimal digits."""

    sequence: int
    hash: str


START = Link(0, "0" * 64)  # where a chain begins


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it was read: its own place, the hash of the one before, and what it says."""

    link: Link
    previous: str
    body: Body


class LineBroken(Exception):
    """A line is no record as the log writes it.

    Attributes:
        is_json: whether the line is JSON nevertheless; a line that a crash cut short never is.
    """

    def __init__(self, what: str, *, is_json: bool) -> None:
        """Say what is wrong with it."""
        super().__init__(what)
        self.is_json = is_json


def canonical(body: Body) -> bytes:
    """Return the one way in which a record is written: keys sorted, no spaces, ASCII.

    Raises:
        ValueError: a value is not finite.
    """
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def link(body: Body, head: Link) -> tuple[bytes, Link]:
    """Return the line of the record that comes after `head`, and its link.

    The hash is SHA-256 over the previous record's hash, in hexadecimal digits, and over the record's canonical JSON
    without its hash.
    """
    assert not body.keys() & set(LINKED), "the chain's own fields"
    linked = {**body, "sequence": head.sequence + 1, "previous": head.hash}
    digest = _hash(head.hash, linked)
    return canonical({**linked, "hash": digest}) + b"\n", Link(head.sequence + 1, digest)


def read_line(line: bytes) -> Record:
    """Return the record of a line, which is held against its own hash; the order of lines is not looked at.

    Raises:
        LineBroken: saying why it is none.
    """
    if not line.endswith(b"\n"):
        raise LineBroken("the line has no end", is_json=False)
    fields = _fields(line)
    if canonical(fields) + b"\n" != line:
        raise LineBroken("the line is not written as the log writes it", is_json=True)
    own, previous, sequence = (fields.get(name) for name in ("hash", "previous", "sequence"))
    if not (isinstance(own, str) and isinstance(previous, str) and isinstance(sequence, int)):
        raise LineBroken("the record has no place in a chain", is_json=True)
    if own != _hash(previous, {name: value for name, value in fields.items() if name != "hash"}):
        raise LineBroken("the record's hash does not fit what it says", is_json=True)
    body = {name: value for name, value in fields.items() if name not in LINKED}
    return Record(link=Link(sequence, own), previous=previous, body=body)


def torn_entry(line: bytes) -> dict[str, Any]:
    """Return what a recovery record says of a line that a crash cut short, its end not counted."""
    cut = line.removesuffix(b"\n")
    return {"bytes": len(cut), "sha256": hashlib.sha256(cut).hexdigest()}


def may_be_torn(line: bytes, *, is_first: bool) -> bool:
    """Return whether a crash or a full disk can have left a line that is no record, going by how the log is written.

    The first such line is any beginning of a record. What is written after it accounts for it, and a record is a
    recovery in its first hundred bytes already, so each further one is the beginning of a recovery record.
    """
    return is_first or (
        bool(line.strip(b"\n"))
        and all(part.startswith(line[at : at + len(part)].rstrip(b"\n")) for at, part in _RECOVERY)
    )


def _fields(line: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise LineBroken("the line is no JSON", is_json=False) from None
    if not isinstance(fields, dict):
        raise LineBroken("the line is no JSON object", is_json=True)
    try:
        canonical(fields)
    except (ValueError, RecursionError):
        raise LineBroken("the record holds a number that is not finite", is_json=True) from None
    return fields


def _hash(previous: str, linked: Body) -> str:
    return hashlib.sha256(previous.encode("utf-8", "surrogatepass") + canonical(linked)).hexdigest()

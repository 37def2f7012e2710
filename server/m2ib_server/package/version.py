"""Owns how the versions of a model are ordered. Pure."""

import re

_PART = re.compile(r"[0-9]+|[a-z]+")
_WORD, _END, _NUMBER = range(3)

VersionKey = tuple[tuple[tuple[int, int, str], ...], str]


def version_key(version: str) -> VersionKey:
    """Return what versions are sorted by, lowest first.

    A version is read as its numbers and its words, whatever stands between them. Numbers compare as numbers, so 10
    comes after 9 and 1.10 after 1.9. A word comes before the end and a number after it, so that `2.0-rc1` comes before
    `2.0`, which comes before `2.0.1`. Versions that read alike, such as `1.0` and `1-0`, compare by their characters.
    """
    parts = [(_NUMBER, int(part), "") if part.isdigit() else (_WORD, 0, part) for part in _PART.findall(version)]
    return (*parts, (_END, 0, "")), version

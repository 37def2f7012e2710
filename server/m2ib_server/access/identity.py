"""Owns what a caller is to this server: a name that is safe to log, and scopes."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

EXPLAIN = "explain"
ADMIN = "admin"
SCOPES = frozenset({EXPLAIN, ADMIN})
MAX_NAME_CHARACTERS = 128

# No space and nothing beyond ASCII: what identity providers put into `sub` and certificates into URIs fits, and no
# sentence does.
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._@:/|+=~-]{{0,{MAX_NAME_CHARACTERS - 1}}}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A caller.

    Attributes:
        name: its kind and name, such as "token:viewer"; "" for an anonymous one. Kinds keep issuers apart, so that a
            provider cannot hand out a name of the token file.
        scopes: what it may do.
    """

    name: str
    scopes: frozenset[str]


def is_name(name: object) -> bool:
    """Tell whether a name is short and plain enough to stand in a log."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def known_scopes(scopes: Iterable[object]) -> frozenset[str]:
    """Return those of the scopes that mean something here; a provider's token has others as well."""
    return SCOPES & frozenset(scope for scope in scopes if isinstance(scope, str))

"""Owns static bearer tokens: how they are made, how their file keeps only salted hashes, how one is recognised."""

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from m2ib_server.access.identity import SCOPES, Identity
from m2ib_server.errors import AccessFileUnusable, CredentialsInvalid

PREFIX = "m2ib_"
KIND = "token:"
MAX_NAME_CHARACTERS = 64
HEADER = "# m2ib-server tokens: name, scopes, salt, scrypt hash of the secret; `m2ib-server token add` writes a line"

_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,{MAX_NAME_CHARACTERS - 1}}}")
_HEX = re.compile("[0-9a-f]+")
_SECRET_BYTES = 32
_SALT_BYTES = 16
_HASH_BYTES = 32
# Cheap on purpose: the secret is 256 random bits of ours, which no speed of guessing finds, and whoever sends wrong
# ones must not be able to keep the event loop busy (docs/decisions/0007-identity.md).
_SCRYPT = {"n": 1 << 10, "r": 8, "p": 1, "dklen": _HASH_BYTES}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLine:
    """One caller's line of the file.

    Attributes:
        name: the caller's, by the operator.
        scopes: what the caller may do.
        salt: random, 16 bytes.
        hashed: scrypt of the secret with that salt, 32 bytes.
    """

    name: str
    scopes: frozenset[str]
    salt: bytes
    hashed: bytes

    def __str__(self) -> str:
        return f"{self.name} {','.join(sorted(self.scopes))} {self.salt.hex()} {self.hashed.hex()}"


def new_token(name: str, scopes: Iterable[str]) -> tuple[str, TokenLine]:
    """Make a token; return it, to be shown once, and the line that recognises it."""
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    salt = secrets.token_bytes(_SALT_BYTES)
    line = TokenLine(name=name, scopes=frozenset(scopes), salt=salt, hashed=_hash(secret, salt))
    return f"{PREFIX}{name}.{secret}", line


def identify(token: str, lines: Mapping[str, TokenLine]) -> Identity:
    """Return whose token it is; the hashes are compared in constant time.

    Raises:
        CredentialsInvalid: it is nobody's.
    """
    name, _, secret = token.removeprefix(PREFIX).partition(".")
    line = lines.get(name)
    if line is None or not hmac.compare_digest(_hash(secret, line.salt), line.hashed):
        raise CredentialsInvalid
    return Identity(name=f"{KIND}{line.name}", scopes=line.scopes)


def is_token_name(name: str) -> bool:
    """Tell whether a caller may be called so."""
    return _NAME.fullmatch(name) is not None


def read_tokens(path: Path) -> dict[str, TokenLine]:
    """Return the file's lines by their names; comments and empty lines are none.

    Raises:
        AccessFileUnusable: the file cannot be read, or a line of it is none.
    """
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise AccessFileUnusable(str(path), seen=type(error).__name__, allowed="a readable file in ASCII") from error
    lines: dict[str, TokenLine] = {}
    for number, row in enumerate(text.splitlines(), 1):
        if row.strip() and not row.startswith("#"):
            line = _read_line(row, f"{path}:{number}")
            if line.name in lines:
                raise AccessFileUnusable(
                    f"{path}:{number}", seen="a second line of one name", allowed="one line a name"
                )
            lines[line.name] = line
    return lines


def write_tokens(path: Path, lines: Mapping[str, TokenLine]) -> None:
    """Replace the file by one with these lines, readable by its owner alone, at once or not at all.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    text = "".join(f"{line}\n" for line in (HEADER, *lines.values()))
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    partial.unlink(missing_ok=True)
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as stream:
        os.fchmod(stream.fileno(), mode)
        stream.write(text)
    partial.rename(path)


def _read_line(row: str, where: str) -> TokenLine:
    allowed = "name, scopes, salt and hash, as `m2ib-server token add` writes them"
    match row.split():
        case [name, scopes, salt, hashed]:
            given = frozenset(scopes.split(","))
            is_right = _is_bytes(salt, _SALT_BYTES) and _is_bytes(hashed, _HASH_BYTES)
            if not (is_right and is_token_name(name) and given <= SCOPES):
                raise AccessFileUnusable(where, seen="a name, scope, salt or hash of another form", allowed=allowed)
            return TokenLine(name=name, scopes=given, salt=bytes.fromhex(salt), hashed=bytes.fromhex(hashed))
        case columns:
            raise AccessFileUnusable(where, seen=f"{len(columns)} columns", allowed=allowed)


def _is_bytes(text: str, size: int) -> bool:
    return len(text) == 2 * size and _HEX.fullmatch(text) is not None


def _hash(secret: str, salt: bytes) -> bytes:
    return hashlib.scrypt(secret.encode("utf-8", "surrogateescape"), salt=salt, **_SCRYPT)

"""Owns the file in which the aliases that operators set outlive the server."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from m2ib_server.engine import LATEST, Aliases
from m2ib_server.errors import AliasesCorrupt, AliasesUnwritable
from m2ib_server.package import MODEL_NAME

FILE_NAME = "aliases.json"
_SCHEMA = 1


class AliasFile:
    """A JSON file: `{"schema": 1, "aliases": {"name": {"champion": "version"}}}`."""

    def __init__(self, path: Path) -> None:
        """Keep aliases at `path`."""
        self.path = path

    def read(self) -> dict[str, dict[str, str]] | None:
        """Return versions by alias by model; None where there is no file, which is not one without aliases.

        Raises:
            AliasesCorrupt: the file cannot be read or is not what it should be.
        """
        try:
            read = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise AliasesCorrupt(str(self.path), seen="no readable JSON", allowed="what a server wrote") from error
        if not _is_sound(read):
            allowed = '{"schema": 1, "aliases": {"name": {"champion": "version"}}}'
            raise AliasesCorrupt(str(self.path), seen="another structure, or a malformed name", allowed=allowed)
        aliases: dict[str, dict[str, str]] = read["aliases"]
        return aliases

    def keep(self, before: Aliases, after: Aliases) -> None:
        """Write the aliases `after` a change, unless the file says them already or there is nothing to keep.

        Without a file there is nothing to keep where there was no alias `before` either. The last one that is deleted
        leaves an empty file, for servers that follow it take no alias away because a file has gone.

        Raises:
            AliasesUnwritable: nothing has changed.
        """
        with suppress(AliasesCorrupt):  # what nobody can read is replaced
            written = self.read()
            if written is None and not any(before.values()):
                written = {}
            if written is not None and _without_empty(written) == _without_empty(after):
                return
        self.write(after)

    def write(self, aliases: Aliases) -> None:
        """Replace the file in one step, so that whoever reads it, now or after a crash, finds the old or the new one.

        Raises:
            AliasesUnwritable: nothing has changed.
        """
        known = _without_empty(aliases)
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            with partial.open("w", encoding="utf-8") as file:
                json.dump({"schema": _SCHEMA, "aliases": known}, file, indent=2, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path)
            _sync_folder(self.path.parent)
        except OSError as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise AliasesUnwritable from error


def _without_empty(aliases: Aliases) -> dict[str, dict[str, str]]:
    """Leave out the models that have no alias."""
    return {name: dict(of_name) for name, of_name in aliases.items() if of_name}


def _sync_folder(folder: Path) -> None:
    """Let a rename outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_sound(read: Any) -> bool:
    if not isinstance(read, Mapping) or read.get("schema") != _SCHEMA or not isinstance(read.get("aliases"), Mapping):
        return False
    return all(
        MODEL_NAME.fullmatch(name)
        and isinstance(of_name, Mapping)
        and all(is_alias(alias) and isinstance(to, str) and MODEL_NAME.fullmatch(to) for alias, to in of_name.items())
        for name, of_name in read["aliases"].items()
    )


def is_alias(alias: str) -> bool:
    """Tell whether an operator may set an alias of that name."""
    return bool(MODEL_NAME.fullmatch(alias)) and alias != LATEST


def changed_aliases(before: Aliases, after: Aliases) -> dict[str, str]:
    """Return where each alias that is not as before leads now, by `name@alias`, sorted; "" for one that has gone."""
    then, now = (
        {f"{name}@{alias}": to for name, of_name in aliases.items() for alias, to in of_name.items()}
        for aliases in (before, after)
    )
    return {name: now.get(name, "") for name in sorted(then.keys() | now.keys()) if then.get(name) != now.get(name)}

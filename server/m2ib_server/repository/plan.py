"""Decides what a look at the models' folder changes. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from m2ib_server.repository.shelf import Entry, Key, Signature


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is loaded under a name and version: its package's digest, and the folder that it came from."""

    digest: str
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do after a look.

    Attributes:
        load: packages to load, in order.
        unload: versions to take out of service.
        missing: versions whose package was not there; those that are missing again at the next look go.
        kept: versions that are missing and stay, because an alias leads to them.
    """

    load: tuple[Entry, ...] = ()
    unload: tuple[Key, ...] = ()
    missing: frozenset[Key] = frozenset()
    kept: tuple[Key, ...] = ()


def plan_after(
    entries: Sequence[Entry],
    loaded: Mapping[Key, Known],
    *,
    aliased: Collection[Key],
    dismissed: Collection[str],
    failed: Mapping[Path, Signature],
    missing: Collection[Key],
) -> Plan:
    """Compare the folder with what is loaded.

    A package is loaded when its digest is not; not when an operator has unloaded that digest, and not again after it
    failed while no file of it has changed. A version goes when its package was missing at the look before this one too,
    so that a package which is put in another's place is not missed for a moment; not when an alias leads to it, for a
    name that was promised keeps its answer; and not when nothing at all is there, for then it is the folder that has
    gone, and a mount that is lost is nobody's wish. A package whose manifest cannot be read just now is not missing.

    Args:
        entries: what lies in the folder.
        loaded: what is loaded.
        aliased: the versions that aliases set by an operator lead to.
        dismissed: the digests that an operator has unloaded.
        failed: the folders that could not be loaded, as they were then.
        missing: the versions that were missing at the look before.
    """
    load = tuple(
        entry
        for entry in entries
        if entry.fault is None
        and entry.digest not in dismissed
        and failed.get(entry.folder) != entry.signature
        and (entry.key not in loaded or loaded[entry.key].digest != entry.digest)
    )
    if not entries:
        return Plan()
    keys, folders = {entry.key for entry in entries}, {entry.folder for entry in entries}
    gone = frozenset(key for key, known in loaded.items() if key not in keys and known.folder not in folders)
    again = sorted(gone.intersection(missing))
    return Plan(
        load=load,
        unload=tuple(key for key in again if key not in aliased),
        missing=gone,
        kept=tuple(key for key in again if key in aliased),
    )

"""Looks at what lies in the models' folder: manifests, and whether files have changed. Reads no weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from m2ib.v1 import manifest_pb2 as pb
from m2ib_server.errors import PackageCorrupt
from m2ib_server.package import find_packages, read_manifest, version_key

Key = tuple[str, str]  # a model's name and a version
Signature = tuple[tuple[str, int, int], ...]  # of each file of a folder: name, size, modification time in ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A package's folder as it was found.

    Attributes:
        folder: the folder.
        signature: changes when a file of the folder does.
        manifest: what it says of itself; empty where it could not be read.
        digest: the package's; "" where the manifest could not be read.
        fault: why it cannot be loaded, as far as a look tells; None where it may be.
    """

    folder: Path
    signature: Signature
    manifest: pb.Manifest
    digest: str = ""
    fault: PackageCorrupt | None = None

    @property
    def key(self) -> Key:
        """Name and version; of a package whose manifest cannot be read the folder's name and nothing."""
        return self.manifest.name or self.folder.name, self.manifest.version


def scan(models: Path) -> tuple[Entry, ...]:
    """Return the packages at or below a folder, at most two levels down, by name and version.

    The manifest says which name and version a package has, wherever its folder lies. A version that lies there twice
    cannot be told apart: the second is at fault. A folder that is not there or cannot be read holds nothing.
    """
    try:
        folders = find_packages(models)
    except PackageCorrupt:
        return ()
    entries: list[Entry] = []
    for folder in folders:
        entry = _look(folder)
        if entry.fault is None and any(entry.key == other.key and other.fault is None for other in entries):
            name, version = entry.key
            seen, allowed = f"a second model '{name}:{version}'", "one package for a version of a model"
            fault = PackageCorrupt(str(folder), seen=seen, allowed=allowed)
            entry = Entry(
                folder=folder,
                signature=entry.signature,
                manifest=entry.manifest,
                digest=entry.digest,
                fault=fault,
            )
        entries.append(entry)
    return tuple(sorted(entries, key=lambda entry: (entry.key[0], version_key(entry.key[1]))))


def find_entry(entries: Sequence[Entry], name: str, version: str) -> Entry | None:
    """Return the package of a version, the highest one where none is named; one without a fault where there is one."""
    ours = [entry for entry in entries if entry.key[0] == name and version in ("", entry.key[1])]
    sound = [entry for entry in ours if entry.fault is None]
    return next(reversed(sound or ours), None)


def _look(folder: Path) -> Entry:
    signature = signature_of(folder)
    try:
        manifest, digest = read_manifest(folder)
    except PackageCorrupt as fault:
        return Entry(folder=folder, signature=signature, manifest=pb.Manifest(), fault=fault)
    return Entry(folder=folder, signature=signature, manifest=manifest, digest=digest)


def signature_of(folder: Path) -> Signature:
    """Return what changes when a file of the folder does; empty where the folder has gone."""
    try:
        files = [(path.name, path.stat()) for path in folder.iterdir()]
    except OSError:
        return ()
    return tuple(sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in files))

"""Owns what is told of a version: where it stands, who leads to it, what it takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from m2ib_server.engine import LoadedModel
from m2ib_server.package import version_key
from m2ib_server.repository.shelf import Entry, Key, Signature


class State(StrEnum):
    """What has become of a version; see m2ib.v1.VersionState."""

    AVAILABLE = "available"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    UNUSABLE = "unusable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a package could not be loaded, and how its folder was then."""

    signature: Signature
    reason: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Resident:
    """A model that is loaded, whether names lead to it or not.

    Attributes:
        model: the model.
        memory_bytes: what it is held to take.
    """

    model: LoadedModel
    memory_bytes: int

    @property
    def key(self) -> Key:
        """Its name and version."""
        return self.model.manifest.name, self.model.manifest.version


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionReport:
    """What is told of a version; fields as in m2ib.v1.ModelVersion."""

    name: str
    version: str
    digest: str
    state: State
    aliases: tuple[str, ...] = ()
    is_default: bool = False
    memory_bytes: int = 0
    on_disk: bool = True
    fault: str = ""


def report_versions(
    loaded: Sequence[VersionReport], entries: Sequence[Entry], failures: Mapping[Path, Failure], loading: Key | None
) -> list[VersionReport]:
    """Put what lies in the folder beside what is loaded, by name and version."""
    known = {(report.name, report.version, report.digest) for report in loaded}
    lying = [
        report
        for entry in entries
        if ((report := _of_entry(entry, failures.get(entry.folder), loading)).name, report.version, report.digest)
        not in known
    ]
    return sorted([*loaded, *lying], key=lambda report: (report.name, version_key(report.version), report.digest))


def _of_entry(entry: Entry, failure: Failure | None, loading: Key | None) -> VersionReport:
    name, version = entry.key
    fault = str(entry.fault or "")
    if not fault and failure is not None and failure.signature == entry.signature:
        fault = failure.text
    state = State.UNUSABLE if fault else State.AVAILABLE
    if entry.fault is None and entry.key == loading:
        state, fault = State.LOADING, ""
    return VersionReport(name=name, version=version, digest=entry.digest, state=state, fault=fault)

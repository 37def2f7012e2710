"""Tells what the repository holds in this protocol's words: of every version whether it serves, and why not."""

from collections.abc import Iterable
from typing import Protocol

from m2ib.oip import inference_pb2 as oip
from m2ib_server.errors import InvalidField
from m2ib_server.oip.health import Health
from m2ib_server.repository import State, VersionReport

READY, UNAVAILABLE = "READY", "UNAVAILABLE"
ILL = "its health is not SERVING"
STATE_AND_REASON = {
    State.AVAILABLE: (UNAVAILABLE, "it is not loaded"),
    State.LOADING: ("LOADING", "it is being loaded"),
    State.READY: (READY, ""),
    State.DRAINING: ("UNLOADING", "it finishes what it began"),
    State.UNUSABLE: (UNAVAILABLE, "its package is not usable"),
}


class Shelves(Protocol):
    """Knows every version that lies on disk or is loaded."""

    async def versions(self) -> Iterable[VersionReport]:
        """Tell of every version, by name and version."""
        ...


async def write_index(
    request: oip.RepositoryIndexRequest, shelves: Shelves, health: Health
) -> oip.RepositoryIndexResponse:
    """List every version, or those that serve.

    Raises:
        InvalidField: a repository is named; there is one, without a name.
    """
    if request.repository_name:
        raise InvalidField("repository_name", seen="a name", allowed="none: there is one repository")
    index = oip.RepositoryIndexResponse()
    for report in await shelves.versions():
        state, reason = STATE_AND_REASON[report.state]
        if state == READY and not health.is_serving(f"{report.name}:{report.version}"):
            state, reason = UNAVAILABLE, ILL
        if state == READY or not request.ready:
            index.models.add(name=report.name, version=report.version, state=state, reason=reason)
    return index

"""The model repository's service: requests checked and handed on, reports written. Decides nothing."""

from m2ib.v1 import model_repository_pb2 as pb
from m2ib.v1 import model_repository_pb2_grpc
from m2ib_server.api.call import Call
from m2ib_server.api.reception import Reception, answered
from m2ib_server.errors import InvalidField
from m2ib_server.package import MODEL_NAME
from m2ib_server.repository import Repository, State, VersionReport

STATE_TO_PROTO = {
    State.AVAILABLE: pb.VERSION_STATE_AVAILABLE,
    State.LOADING: pb.VERSION_STATE_LOADING,
    State.READY: pb.VERSION_STATE_READY,
    State.DRAINING: pb.VERSION_STATE_DRAINING,
    State.UNUSABLE: pb.VERSION_STATE_UNUSABLE,
}


class ModelRepositoryServicer(model_repository_pb2_grpc.ModelRepositoryServicer):
    """Implements m2ib.v1.ModelRepository. Made and used on one event loop."""

    name = pb.DESCRIPTOR.services_by_name["ModelRepository"].full_name
    scope = "admin"

    def __init__(self, repository: Repository, reception: Reception) -> None:
        """Change this repository."""
        self.reception = reception
        self._repository = repository

    @answered
    async def ListVersions(self, wire: pb.ListVersionsRequest, call: Call) -> pb.ListVersionsResponse:
        """List the versions."""
        if wire.name:
            _check("name", wire.name)
        return pb.ListVersionsResponse(
            versions=[write_version(report) for report in await self._repository.versions(wire.name)],
            used_memory_bytes=self._repository.used_bytes,
            allowed_memory_bytes=self._repository.allowed_bytes,
        )

    @answered
    async def LoadModel(self, wire: pb.LoadModelRequest, call: Call) -> pb.LoadModelResponse:
        """Load a version."""
        _check("name", wire.name)
        if wire.version:
            _check("version", wire.version)
        report, was_loaded = await self._repository.load(wire.name, wire.version)
        _tell(call, report)
        return pb.LoadModelResponse(version=write_version(report), was_loaded=was_loaded)

    @answered
    async def UnloadModel(self, wire: pb.UnloadModelRequest, call: Call) -> pb.UnloadModelResponse:
        """Take a version out of service."""
        _check("name", wire.name)
        _check("version", wire.version)
        was_loaded = await self._repository.unload(wire.name, wire.version)
        call.model, call.version = wire.name, wire.version
        return pb.UnloadModelResponse(was_loaded=was_loaded)

    @answered
    async def SwapModel(self, wire: pb.SwapModelRequest, call: Call) -> pb.SwapModelResponse:
        """Let a version take the place of the others."""
        _check("name", wire.name)
        if wire.version:
            _check("version", wire.version)
        report, retired = await self._repository.swap(wire.name, wire.version)
        _tell(call, report)
        return pb.SwapModelResponse(version=write_version(report), retired=retired)

    @answered
    async def SetAlias(self, wire: pb.SetAliasRequest, call: Call) -> pb.SetAliasResponse:
        """Let an alias lead to a version."""
        _check("name", wire.name)
        _check("version", wire.version)
        previous = await self._repository.set_alias(wire.name, wire.alias, wire.version)
        call.model, call.version = wire.name, wire.version
        return pb.SetAliasResponse(previous=previous)

    @answered
    async def DeleteAlias(self, wire: pb.DeleteAliasRequest, call: Call) -> pb.DeleteAliasResponse:
        """Remove an alias."""
        _check("name", wire.name)
        return pb.DeleteAliasResponse(previous=await self._repository.delete_alias(wire.name, wire.alias))


def write_version(report: VersionReport) -> pb.ModelVersion:
    """Write a report."""
    return pb.ModelVersion(
        name=report.name,
        version=report.version,
        digest=report.digest,
        state=STATE_TO_PROTO[report.state],
        aliases=report.aliases,
        is_default=report.is_default,
        memory_bytes=report.memory_bytes,
        on_disk=report.on_disk,
        fault=report.fault,
    )


def _check(field: str, value: str) -> None:
    if not MODEL_NAME.fullmatch(value):
        raise InvalidField(field, seen="a malformed name or version", allowed=f"names like {MODEL_NAME.pattern}")


def _tell(call: Call, report: VersionReport) -> None:
    call.model, call.version, call.digest = report.name, report.version, report.digest

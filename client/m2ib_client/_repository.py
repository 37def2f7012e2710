"""Owns what an operator asks of a server's model repository, in both shells, and what it tells of versions."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

from m2ib.v1 import model_repository_pb2 as pb
from m2ib.v1 import model_repository_pb2_grpc
from m2ib_client._answer import copied, known
from m2ib_client._plain import PlainValue, plain
from m2ib_client._status import translated

LOAD_TIMEOUT_SECONDS = 600.0  # a model of gigabytes is read, checked and run before it is shown

VersionStateName: TypeAlias = Literal["available", "loading", "ready", "draining", "unusable"]
NAME_BY_STATE: dict[int, VersionStateName] = {
    pb.VERSION_STATE_AVAILABLE: "available",
    pb.VERSION_STATE_LOADING: "loading",
    pb.VERSION_STATE_READY: "ready",
    pb.VERSION_STATE_DRAINING: "draining",
    pb.VERSION_STATE_UNUSABLE: "unusable",
}

OpenStub: TypeAlias = Callable[[], model_repository_pb2_grpc.ModelRepositoryStub]
OpenAsyncStub: TypeAlias = Callable[[], Awaitable["model_repository_pb2_grpc.ModelRepositoryAsyncStub"]]
Seconds: TypeAlias = Callable[[float | None], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """One version of a model, in the server's folder or loaded; memory in bytes, by the server's estimate.

    `aliases` lead to it, "latest" among them; `is_default` says that the model's bare name does. `fault` says why a
    version is "unusable".
    """

    name: str
    version: str
    digest: str
    state: VersionStateName
    aliases: tuple[str, ...]
    is_default: bool
    memory_bytes: int
    on_disk: bool
    fault: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryListing:
    """The versions, and the memory that loaded ones take and may take, in bytes; 0 allows any."""

    versions: tuple[ModelVersion, ...]
    used_memory_bytes: int
    allowed_memory_bytes: int

    def to_dict(self) -> dict[str, PlainValue]:
        """Return all of it as JSON-safe values."""
        return cast(dict[str, PlainValue], plain(self))


class ModelRepository:
    """Changes which models a server has loaded; `Client.repository` is one. For operators, in the scope "admin"."""

    def __init__(self, open_stub: OpenStub, seconds: Seconds) -> None:
        """Ask through a client's channel; `seconds` is its timeout for a call that names none."""
        self._open_stub = open_stub
        self._seconds = seconds

    def versions(self, name: str = "", *, timeout: float | None = None) -> RepositoryListing:
        """List the versions that lie in the server's folder or are loaded; an empty name means all models."""
        with translated():
            answer = self._open_stub().ListVersions(pb.ListVersionsRequest(name=name), timeout=self._seconds(timeout))
        return read_listing(answer)

    def load(self, name: str, version: str = "", *, timeout: float | None = LOAD_TIMEOUT_SECONDS) -> ModelVersion:
        """Load a version beside the others; an empty one means the highest in the folder.

        Raises:
            InvalidRequestError: the package is not usable or does not fit; nothing has changed.
            NotFoundError: there is no such version.
        """
        with translated():
            request = pb.LoadModelRequest(name=name, version=version)
            answer = self._open_stub().LoadModel(request, timeout=self._seconds(timeout))
        return read_version(answer.version)

    def unload(self, name: str, version: str, *, timeout: float | None = None) -> bool:
        """Take a version out of service; return whether it was in service.

        Raises:
            InvalidRequestError: an alias leads to it.
            NotFoundError: there is no such version.
        """
        with translated():
            request = pb.UnloadModelRequest(name=name, version=version)
            return self._open_stub().UnloadModel(request, timeout=self._seconds(timeout)).was_loaded

    def swap(
        self, name: str, version: str = "", *, timeout: float | None = LOAD_TIMEOUT_SECONDS
    ) -> tuple[ModelVersion, tuple[str, ...]]:
        """Load a version and let it take the place of all others; return it and those. Raises as `load`."""
        with translated():
            request = pb.SwapModelRequest(name=name, version=version)
            answer = self._open_stub().SwapModel(request, timeout=self._seconds(timeout))
        return read_version(answer.version), tuple(answer.retired)

    def set_alias(self, name: str, alias: str, version: str, *, timeout: float | None = None) -> str:
        """Let an alias lead to a loaded version; return the version that it led to before, or "".

        Raises:
            InvalidRequestError: the alias may not be set, cannot be kept, or the version is not loaded.
        """
        with translated():
            request = pb.SetAliasRequest(name=name, alias=alias, version=version)
            return self._open_stub().SetAlias(request, timeout=self._seconds(timeout)).previous

    def delete_alias(self, name: str, alias: str, *, timeout: float | None = None) -> str:
        """Remove an alias; return the version that it led to, or ""."""
        with translated():
            request = pb.DeleteAliasRequest(name=name, alias=alias)
            return self._open_stub().DeleteAlias(request, timeout=self._seconds(timeout)).previous


class AsyncModelRepository:
    """`ModelRepository` in asyncio's terms; `AsyncClient.repository` is one."""

    def __init__(self, open_stub: OpenAsyncStub, seconds: Seconds) -> None:
        """Ask through a client's channel; `seconds` is its timeout for a call that names none."""
        self._open_stub = open_stub
        self._seconds = seconds

    async def versions(
        self,
        name: str = "",
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the server keeps it too
    ) -> RepositoryListing:
        """List the versions; as `ModelRepository.versions`."""
        stub = await self._open_stub()
        with translated():
            answer = await stub.ListVersions(pb.ListVersionsRequest(name=name), timeout=self._seconds(timeout))
        return read_listing(answer)

    async def load(
        self,
        name: str,
        version: str = "",
        *,
        timeout: float | None = LOAD_TIMEOUT_SECONDS,  # noqa: ASYNC109 - the server keeps it too
    ) -> ModelVersion:
        """Load a version beside the others; as `ModelRepository.load`."""
        stub = await self._open_stub()
        with translated():
            request = pb.LoadModelRequest(name=name, version=version)
            answer = await stub.LoadModel(request, timeout=self._seconds(timeout))
        return read_version(answer.version)

    async def unload(
        self,
        name: str,
        version: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the server keeps it too
    ) -> bool:
        """Take a version out of service; as `ModelRepository.unload`."""
        stub = await self._open_stub()
        with translated():
            request = pb.UnloadModelRequest(name=name, version=version)
            return (await stub.UnloadModel(request, timeout=self._seconds(timeout))).was_loaded

    async def swap(
        self,
        name: str,
        version: str = "",
        *,
        timeout: float | None = LOAD_TIMEOUT_SECONDS,  # noqa: ASYNC109 - the server keeps it too
    ) -> tuple[ModelVersion, tuple[str, ...]]:
        """Load a version and let it take the place of all others; as `ModelRepository.swap`."""
        stub = await self._open_stub()
        with translated():
            request = pb.SwapModelRequest(name=name, version=version)
            answer = await stub.SwapModel(request, timeout=self._seconds(timeout))
        return read_version(answer.version), tuple(answer.retired)

    async def set_alias(
        self,
        name: str,
        alias: str,
        version: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the server keeps it too
    ) -> str:
        """Let an alias lead to a loaded version; as `ModelRepository.set_alias`."""
        stub = await self._open_stub()
        with translated():
            request = pb.SetAliasRequest(name=name, alias=alias, version=version)
            return (await stub.SetAlias(request, timeout=self._seconds(timeout))).previous

    async def delete_alias(
        self,
        name: str,
        alias: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the server keeps it too
    ) -> str:
        """Remove an alias; as `ModelRepository.delete_alias`."""
        stub = await self._open_stub()
        with translated():
            request = pb.DeleteAliasRequest(name=name, alias=alias)
            return (await stub.DeleteAlias(request, timeout=self._seconds(timeout))).previous


def read_listing(message: pb.ListVersionsResponse) -> RepositoryListing:
    """Return the versions and the memory they take; raises as `read_version`."""
    versions = tuple(read_version(version) for version in message.versions)
    return copied(RepositoryListing, message, versions=versions)


def read_version(message: pb.ModelVersion) -> ModelVersion:
    """Return one version.

    Raises:
        IncompatibleServerError: its state is one that this client does not know.
    """
    state = known(NAME_BY_STATE, message.state, "state")
    return copied(ModelVersion, message, state=state, aliases=tuple(message.aliases))

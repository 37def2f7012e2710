"""Owns what is loaded: brings versions into service and takes them out, one change after the other, each whole."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from m2ib_server.engine import Aliases, Catalogue
from m2ib_server.errors import (
    AliasesCorrupt,
    InvalidField,
    ModelUnknown,
    PackageCorrupt,
    ServiceError,
    VersionAbsent,
    VersionAliased,
    VersionNotLoaded,
)
from m2ib_server.package import MODEL_NAME, find_packages, version_key
from m2ib_server.repository.aliases import FILE_NAME, AliasFile, changed_aliases, is_alias
from m2ib_server.repository.lane import Lane
from m2ib_server.repository.loader import Loader
from m2ib_server.repository.memory import check_room
from m2ib_server.repository.plan import Known, plan_after
from m2ib_server.repository.report import Failure, Resident, State, VersionReport, report_versions
from m2ib_server.repository.shelf import Entry, Key, find_entry, scan
from m2ib_server.settings import RepositorySettings
from m2ib_server.telemetry import log_event, origin_of

Outcome = TypeVar("Outcome")
PATIENCE_SECONDS = 30.0  # how long the folder, or the file of aliases, may take to answer


class Repository:
    """The models of a folder. One event loop's alone, but for `load_all`: nothing is asked before that has ended."""

    def __init__(
        self,
        models: Path,
        catalogue: Catalogue,
        loader: Loader,
        settings: RepositorySettings,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """Load from `models`, show in `catalogue`; `load_all` begins.

        Whatever looks at the folder or the file of aliases afterwards raises ModelsStalled after `patience_seconds`.
        """
        self._models = models
        self._catalogue = catalogue
        self._loader = loader
        self._settings = settings
        self._file = AliasFile(settings.aliases_file or models / FILE_NAME)
        self._ready: Mapping[Key, Resident] = {}
        self._aliases: dict[str, dict[str, str]] = {}
        self._draining: list[Resident] = []  # no name leads to them, requests may hold them
        self._leaving: list[Resident] = []  # nobody holds them, their memory is being given back
        self._loading: Key | None = None
        self._dismissed: set[str] = set()
        self._failures: dict[Path, Failure] = {}
        self._missing: frozenset[Key] = frozenset()
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._folder_lane, self._file_lane = Lane(patience_seconds), Lane(patience_seconds)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="m2ib-load")

    @property
    def used_bytes(self) -> int:
        """What all models take in memory, draining ones too: the sum of their estimates."""
        return sum(one.memory_bytes for one in (*self._ready.values(), *self._draining, *self._leaving))

    @property
    def allowed_bytes(self) -> int:
        """What they may take; 0 where there is no limit."""
        return self._settings.memory_bytes

    def load_all(self) -> None:
        """Load every package of the folder, each shown once it is ready. Blocks: for the time of boot.

        With polling a package that is not usable is left to be looked at again, as long as there is one that is.

        Raises:
            PackageCorrupt: there is no package, one is not what its manifest says, or two are of one version.
            ModelMemoryExceeded: they do not fit into the memory for models.
            AliasesCorrupt: the aliases' file cannot be read, or an alias leads to a version that is not loaded.
        """
        aliases = self._file.read() or {}
        find_packages(self._models)  # raises where there is none
        fault: ServiceError | None = None
        for entry in scan(self._models):
            try:
                self._show({**self._ready, entry.key: self._load_blocking(entry)}, {})
            except PackageCorrupt as error:
                if not self._settings.poll_seconds:
                    raise
                self._note_failure(entry, error)
                fault = fault or error
        if fault is not None and not self._ready:
            raise fault
        for name, of_name in aliases.items():
            for alias, version in of_name.items():
                if (name, version) not in self._ready:
                    seen, allowed = (
                        f"{name}@{alias} leading to {version}",
                        "aliases that lead to packages of the folder",
                    )
                    raise AliasesCorrupt(str(self._file.path), seen=seen, allowed=allowed)
        self._show(self._ready, aliases)

    async def versions(self, name: str = "") -> list[VersionReport]:
        """Tell of every version that lies in the folder or is loaded; of one model where a name is given."""
        entries = await self._scan()
        on_disk = {entry.digest for entry in entries}
        loaded = [self._report(one, State.READY, on_disk) for one in self._ready.values()]
        loaded += [self._report(one, State.DRAINING, on_disk) for one in self._draining]
        reports = report_versions(loaded, entries, self._failures, self._loading)
        return [report for report in reports if name in ("", report.name)]

    async def load(self, name: str, version: str = "") -> tuple[VersionReport, bool]:
        """Load a version beside the others; return it, and whether it was loaded before already.

        Raises:
            VersionAbsent: there is no such package, nor is it loaded.
            PackageCorrupt: it is not usable.
            ModelMemoryExceeded: there is no room for it.
        """
        return await self._serially(lambda: self._load(name, version))

    async def unload(self, name: str, version: str) -> bool:
        """Take a version out of service; return whether it was in service.

        Raises:
            VersionAbsent: there is no such version, loaded or not.
            VersionAliased: an alias leads to it.
        """
        return await self._serially(lambda: self._unload(name, version))

    async def swap(self, name: str, version: str = "") -> tuple[VersionReport, list[str]]:
        """Load a version and let it take the place of every other one; return it and the versions that it replaces.

        Raises:
            ServiceError: as `load` and `set_alias` do; then nothing has changed.
        """
        return await self._serially(lambda: self._swap(name, version))

    async def set_alias(self, name: str, alias: str, version: str) -> str:
        """Let an alias lead to a loaded version; return the version before, or "".

        Raises:
            InvalidField: the alias may not be set.
            VersionNotLoaded: the version is not loaded.
            AliasesUnwritable: the change could not be kept, so it was not made.
        """
        return await self._serially(lambda: self._alias(name, alias, version))

    async def delete_alias(self, name: str, alias: str) -> str:
        """Remove an alias; return the version that it led to, or "".

        Raises:
            InvalidField: the alias may not be set either.
            AliasesUnwritable: the change could not be kept, so it was not made.
        """
        return await self._serially(lambda: self._alias(name, alias, ""))

    async def look(self) -> None:
        """Look at the folder once and follow what has changed there; a package that is not usable changes nothing."""
        await self._serially(self._look)

    def close(self) -> None:
        """Begin no other load; one under way ends by itself, since the engines take no more work."""
        for task in self._tasks:
            task.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _load(self, name: str, version: str) -> tuple[VersionReport, bool]:
        entry, resident = await self._bring(name, version)
        was_loaded = self._ready.get(resident.key) is resident
        if not was_loaded:
            replaced = self._ready.get(resident.key)
            self._show({**self._ready, resident.key: resident}, self._aliases)
            self._retire([] if replaced is None else [replaced])
        return self._report(resident, State.READY, {entry.digest} if entry else set()), was_loaded

    async def _swap(self, name: str, version: str) -> tuple[VersionReport, list[str]]:
        entry, resident = await self._bring(name, version)
        name, version = resident.key
        others = [one for key, one in self._ready.items() if key[0] == name and one is not resident]
        ours = self._aliases.get(name)
        aliases = {**self._aliases, name: dict.fromkeys(ours, version)} if ours else self._aliases
        try:
            if ours:
                await self._keep(aliases)
        except ServiceError:
            if self._ready.get(resident.key) is not resident:
                self._retire([resident])
            raise
        rest = {key: one for key, one in self._ready.items() if key[0] != name}
        self._show({**rest, resident.key: resident}, aliases)
        self._retire(others)
        retired = sorted((one.key[1] for one in others), key=version_key)
        return self._report(resident, State.READY, {entry.digest} if entry else set()), retired

    async def _unload(self, name: str, version: str) -> bool:
        resident = self._ready.get((name, version))
        if resident is None:
            entries = await self._scan()
            draining = [one.key for one in (*self._draining, *self._leaving)]
            if (name, version) not in [*draining, *(entry.key for entry in entries)]:
                raise VersionAbsent(known=self._known(entries, name))
            return False
        aliases = [alias for alias, to in self._aliases.get(name, {}).items() if to == version]
        if aliases:
            raise VersionAliased(aliases=sorted(aliases))
        self._dismissed.add(resident.model.digest)
        self._withdraw(resident)
        return True

    async def _alias(self, name: str, alias: str, version: str) -> str:
        if not is_alias(alias):
            raise InvalidField("alias", seen="a name that is none", allowed=f"{MODEL_NAME.pattern}, not latest")
        previous = self._aliases.get(name, {}).get(alias, "")
        if version and (name, version) not in self._ready:
            raise VersionNotLoaded(loaded=[f"{one}:{each}" for one, each in self._ready if one == name])
        of_name = {known: to for known, to in self._aliases.get(name, {}).items() if known != alias}
        aliases = {**self._aliases, name: {**of_name, alias: version} if version else of_name}
        await self._keep(aliases)
        self._show(self._ready, aliases)
        return previous

    async def _look(self) -> None:
        entries = await self._scan()
        aliased = {(name, version) for name, of_name in self._aliases.items() for version in of_name.values()}
        plan = plan_after(
            entries,
            {key: Known(digest=one.model.digest, folder=one.model.package.folder) for key, one in self._ready.items()},
            aliased=aliased,
            dismissed=self._dismissed,
            failed={folder: failure.signature for folder, failure in self._failures.items()},
            missing=self._missing,
        )
        folders = {entry.folder for entry in entries}
        self._failures = {folder: failure for folder, failure in self._failures.items() if folder in folders}
        for key in plan.kept:
            if key not in self._missing:
                log_event("model kept for its aliases", model=key[0], version=key[1])
        self._missing = plan.missing
        for entry in plan.load:
            try:
                await self._load(*entry.key)
            except ServiceError as error:
                self._note_failure(entry, error)
            except Exception as error:  # whatever it is, the other packages and the aliases get their turn
                self._note_surprise(entry, error)
        for key in plan.unload:
            self._withdraw(self._ready[key])
        await self._follow_aliases()

    async def _follow_aliases(self) -> None:
        """Take over what another server, or a hand, has written to the aliases' file.

        A file that is gone takes no alias along: servers write an empty one. An alias of a version that is not loaded
        stays where it leads; one that leads nowhere yet does not fall back on another version.
        """
        try:
            written = await self._file_lane.run(self._file.read)
        except AliasesCorrupt as error:
            log_event("aliases not followed", reason=error.reason)
            return
        if written is None:
            if any(self._aliases.values()):
                log_event("aliases not followed", reason="ALIASES_ABSENT")
            return
        wanted = {
            name: {alias: self._followed(name, alias, to) for alias, to in of_name.items()}
            for name, of_name in written.items()
        }
        changed = changed_aliases(self._aliases, wanted)
        if changed:
            self._show(self._ready, wanted)
        for name, to in changed.items():
            log_event("alias followed", model=name, version=to)

    def _followed(self, name: str, alias: str, to: str) -> str:
        """Return where an alias leads whose file says `to`."""
        before = self._aliases.get(name, {}).get(alias, to)
        return before if (name, to) not in self._ready and (name, before) in self._ready else to

    async def _bring(self, name: str, version: str) -> tuple[Entry | None, Resident]:
        """Return a version's package, and the model that is loaded of it or is loaded now, not shown yet."""
        entries = await self._scan()
        entry = find_entry(entries, name, version)
        if entry is None:  # a loaded model serves on without its folder
            if (resident := self._ready.get((name, version))) is None:
                raise VersionAbsent(known=self._known(entries, name))
            return None, resident
        if entry.fault is not None:
            raise entry.fault
        for resident in (*self._ready.values(), *self._draining):
            if resident.model.digest == entry.digest and resident.key == entry.key:
                if resident in self._draining:
                    self._draining.remove(resident)
                self._dismissed.discard(entry.digest)
                return entry, resident
        self._loading = entry.key
        try:
            resident = await self._aside(lambda: self._load_blocking(entry))
        finally:
            self._loading = None
        self._dismissed.discard(entry.digest)
        self._failures.pop(entry.folder, None)
        return entry, resident

    def _load_blocking(self, entry: Entry) -> Resident:
        if entry.fault is not None:
            raise entry.fault
        needed = self._loader.estimate(entry.manifest)
        check_room(needed, self.used_bytes, self.allowed_bytes)
        return Resident(model=self._loader.load(entry.folder, entry.digest), memory_bytes=needed)

    def _show(self, ready: Mapping[Key, Resident], aliases: Aliases) -> None:
        """Change what names lead to, in one step."""
        self._ready, self._aliases = ready, {name: dict(of_name) for name, of_name in aliases.items()}
        self._catalogue.show([one.model for one in ready.values()], aliases)

    def _withdraw(self, resident: Resident) -> None:
        self._show({key: one for key, one in self._ready.items() if one is not resident}, self._aliases)
        self._retire([resident])

    def _retire(self, residents: list[Resident]) -> None:
        """Unload models once nobody holds them any more; no name leads to them."""
        for resident in residents:
            self._draining.append(resident)
            self._spawn(self._drain(resident))

    async def _drain(self, resident: Resident) -> None:
        name, version = resident.key
        log_event("model draining", model=name, version=version, digest=resident.model.digest)
        await self._catalogue.until_unused(resident.model)
        if resident not in self._draining:
            return  # it was called back into service meanwhile
        self._draining.remove(resident)
        self._leaving.append(resident)
        await self._aside(lambda: self._loader.unload(resident.model))
        self._leaving.remove(resident)
        log_event("model unloaded", model=name, version=version, digest=resident.model.digest)

    async def _keep(self, aliases: Aliases) -> None:
        """Keep aliases as an operator wants them, whatever is in force: the file may say otherwise."""
        before = self._aliases
        await self._file_lane.run(lambda: self._file.keep(before, aliases))

    def _note_failure(self, entry: Entry, error: ServiceError) -> None:
        """Log a package that could not be loaded, once; one that is not usable waits until a file of it changes."""
        known = self._failures.get(entry.folder)
        if known is None or known.reason != error.reason:
            name, version = entry.key
            log_event("model not loaded", model=name, version=version, reason=error.reason)
        signature = entry.signature if isinstance(error, PackageCorrupt) else ()
        self._failures[entry.folder] = Failure(signature=signature, reason=error.reason, text=str(error))

    def _note_surprise(self, entry: Entry, error: Exception) -> None:
        """Log a load that ended by a fault that nobody foresaw; the package waits until a file of it changes."""
        name, version = entry.key
        fields = {"reason": ServiceError.reason, "error_type": type(error).__name__, "origin": origin_of(error)}
        log_event("model not loaded", level=logging.ERROR, model=name, version=version, **fields)
        text = f"a load that ended in {type(error).__name__}; the log has its origin"
        self._failures[entry.folder] = Failure(signature=entry.signature, reason=ServiceError.reason, text=text)

    def _report(self, resident: Resident, state: State, on_disk: set[str]) -> VersionReport:
        model, (name, version) = resident.model, resident.key
        is_ready = state is State.READY
        return VersionReport(
            name=name,
            version=version,
            digest=model.digest,
            state=state,
            aliases=self._catalogue.aliases_of(model) if is_ready else (),
            is_default=is_ready and self._is_default(resident),
            memory_bytes=resident.memory_bytes,
            on_disk=model.digest in on_disk,
        )

    def _is_default(self, resident: Resident) -> bool:
        try:
            return self._catalogue.find(resident.key[0]) is resident.model
        except ModelUnknown:
            return False

    def _known(self, entries: tuple[Entry, ...], name: str) -> list[str]:
        """Return the versions there are of a model, or of all where it has none."""
        keys = {*self._ready, *(entry.key for entry in entries if entry.fault is None)}
        ours = [key for key in keys if key[0] == name] or list(keys)
        return [f"{one}:{version}" for one, version in sorted(ours, key=lambda key: (key[0], version_key(key[1])))]

    async def _serially(self, change: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """Make a change after those before it, to its end, whoever stops waiting for it."""

        async def changed() -> Outcome:
            async with self._changing:
                return await change()

        return await asyncio.shield(self._spawn(changed()))

    def _spawn(self, work: Coroutine[Any, Any, Outcome]) -> "asyncio.Task[Outcome]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits for it is told; one that left is not missed

    async def _scan(self) -> tuple[Entry, ...]:
        """Look at the folder, on a thread that no load holds up; who asks at the same time shares a look."""
        return await self._folder_lane.share(lambda: scan(self._models))

    async def _aside(self, work: Callable[[], Outcome]) -> Outcome:
        """Load or unload on the one thread for it, in the order asked for."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

"""Owns which models answer to which names: versions, aliases, and who still uses a model that no name leads to."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from m2ib_server.engine.model import LoadedModel
from m2ib_server.errors import ModelUnknown
from m2ib_server.package import version_key

LATEST = "latest"  # computed: the highest version that is loaded
CHAMPION = "champion"  # set by an operator: what a bare name means once it is set

Aliases = Mapping[str, Mapping[str, str]]  # by a model's name: versions by alias, `latest` not among them


class Shown:
    """Which models there are and what their names lead to, at one moment. Never changes."""

    def __init__(self, models: Collection[LoadedModel] = (), aliases: Aliases = MappingProxyType({})) -> None:
        """List models, each with a name and version of its own; an alias may lead to a version that is not loaded."""
        by_name: dict[str, dict[str, LoadedModel]] = {}
        for model in sorted(models, key=lambda model: (model.manifest.name, version_key(model.manifest.version))):
            versions = by_name.setdefault(model.manifest.name, {})
            assert model.manifest.version not in versions, "the repository lists a version once"
            versions[model.manifest.version] = model
        self._by_name = by_name
        self._aliases = {name: {**of_name} for name, of_name in aliases.items()}

    def __iter__(self) -> Iterator[LoadedModel]:
        return (model for versions in self._by_name.values() for model in versions.values())

    def names(self) -> list[str]:
        """Return the names of the models, sorted."""
        return list(self._by_name)

    def aliases_of(self, model: LoadedModel) -> tuple[str, ...]:
        """Return the aliases that lead to a model, sorted, `latest` among them."""
        name, version = model.manifest.name, model.manifest.version
        return tuple(sorted(alias for alias, target in self._targets(name).items() if target == version))

    def find(self, name: str) -> LoadedModel:
        """Return the model that `name`, `name:version` or `name@alias` leads to.

        A bare name leads to the champion where an operator has set one, and to the latest version otherwise: a model
        that was promoted stays the answer when a newer one arrives, until that is promoted too. A champion that is not
        loaded leads nowhere: another version in its place would be an answer that nobody chose. No name at all means
        the only model there is.

        Raises:
            ModelUnknown: nothing answers to that, or several models are loaded and no name was given.
        """
        if not name and len(self._by_name) == 1:
            name = next(iter(self._by_name))
        bare, version, alias = split_name(name)
        if not version:
            targets = self._targets(bare)
            version = targets.get(alias, "") if alias else targets.get(CHAMPION, targets.get(LATEST, ""))
        versions = self._by_name.get(bare, {})
        if version not in versions:
            raise ModelUnknown(loaded=[f"{bare}:{each}" for each in versions] or self.names())
        return versions[version]

    def _targets(self, name: str) -> Mapping[str, str]:
        """Return the versions of a model by alias."""
        versions = self._by_name.get(name, {})
        latest = {LATEST: next(reversed(versions))} if versions else {}
        return {**self._aliases.get(name, {}), **latest}


class Catalogue:
    """The loaded models. What is shown changes in one step, so that no reader sees half a change.

    Any thread may read. Leases belong to one event loop, and so does `show` once there is one.
    """

    def __init__(self, models: Collection[LoadedModel] = (), aliases: Aliases = MappingProxyType({})) -> None:
        """Show models."""
        self._shown = Shown(models, aliases)
        self._leases: Counter[LoadedModel] = Counter()
        self._waiting: dict[LoadedModel, list[asyncio.Future[None]]] = {}
        self._watchers: list[Callable[[], None]] = []

    def __iter__(self) -> Iterator[LoadedModel]:
        return iter(self._shown)

    def names(self) -> list[str]:
        """Return the names of the loaded models, sorted."""
        return self._shown.names()

    def aliases_of(self, model: LoadedModel) -> tuple[str, ...]:
        """Return the aliases that lead to a model, sorted, `latest` among them."""
        return self._shown.aliases_of(model)

    def find(self, name: str) -> LoadedModel:
        """Return the model that a name leads to, for a look that ends at once: see `Shown.find`.

        Raises:
            ModelUnknown: nothing answers to that name.
        """
        return self._shown.find(name)

    @contextmanager
    def lease(self, name: str) -> Iterator[LoadedModel]:
        """Hold the model that a name leads to: its graphs stay loaded until the body ends, whatever is shown meanwhile.

        Whoever hands a job to an engine does so, and waits for it, inside.

        Raises:
            ModelUnknown: nothing answers to that name.
        """
        model = self.find(name)
        self._leases[model] += 1
        try:
            yield model
        finally:
            self._leases[model] -= 1
            if not self._leases[model]:
                del self._leases[model]
                for waiter in self._waiting.pop(model, ()):
                    if not waiter.done():
                        waiter.set_result(None)

    async def until_unused(self, model: LoadedModel) -> None:
        """Wait until nobody holds the model."""
        while self._leases[model]:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(model, []).append(waiter)
            await waiter

    def show(self, models: Collection[LoadedModel], aliases: Aliases) -> None:
        """Show these models under these aliases in place of those before, in one step, and tell who watches."""
        self._shown = Shown(models, aliases)
        for watcher in self._watchers:
            watcher()

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call `watcher` after each change of what is shown; it must return at once and never raise.

        For health, metrics and whatever else follows the models: iterate, or ask for `names`, when called.
        """
        self._watchers.append(watcher)


def split_name(name: str) -> tuple[str, str, str]:
    """Split `name`, `name:version` or `name@alias` into its parts; what is not there is empty.

    A separator with nothing behind it, or a second one, makes a name that no model has: names hold neither.
    """
    bare, colon, version = name.partition(":")
    if colon and version:
        return bare, version, ""
    bare, at, alias = name.partition("@")
    return (bare, "", alias) if at and alias else (name, "", "")

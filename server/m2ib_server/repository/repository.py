"""Owns what is loaded: loads what a folder holds and shows it in the catalogue."""

from pathlib import Path

from m2ib_server.engine import Catalogue
from m2ib_server.errors import PackageCorrupt
from m2ib_server.package import find_packages
from m2ib_server.repository.loader import Loader


class Repository:
    """The models of a folder."""

    def __init__(self, models: Path, catalogue: Catalogue, loader: Loader) -> None:
        """Load from `models`, show in `catalogue`; `load_all` begins."""
        self._models = models
        self._catalogue = catalogue
        self._loader = loader

    def load_all(self) -> None:
        """Load every package of the folder, each shown once it is ready. Blocks: for the time of boot.

        Raises:
            PackageCorrupt: there is no package, one is not what its manifest says, or two are of one version.
        """
        for folder in find_packages(self._models):
            model = self._loader.load(folder)
            name, version = model.manifest.name, model.manifest.version
            if any((one.manifest.name, one.manifest.version) == (name, version) for one in self._catalogue):
                seen, allowed = f"a second model '{name}:{version}'", "one package for a version of a model"
                raise PackageCorrupt(str(folder), seen=seen, allowed=allowed)
            self._catalogue.show([*self._catalogue, model], {})

"""Brings a package onto every engine and runs it once, or leaves no trace of it. Blocks: not for an event loop."""

from collections.abc import Iterable
from pathlib import Path

from m2ib.v1 import manifest_pb2 as pb
from m2ib_server.engine import DeviceModel, Engine, Fleet, LoadedModel, warm_up
from m2ib_server.errors import EngineFailed, EvaluationAborted, EvaluationFailed, PackageCorrupt, ServiceError
from m2ib_server.package import open_package
from m2ib_server.repository.memory import load_bytes
from m2ib_server.runtime import DeviceKind, trim_heap
from m2ib_server.telemetry import log_event

PACKAGE_FAULTS = (EngineFailed, EvaluationAborted, EvaluationFailed)  # how a warm-up ends by it


class Loader:
    """Loads packages on the engines of a fleet, which run."""

    def __init__(self, fleet: Fleet, kind: DeviceKind) -> None:
        """Load on these engines, whose devices are of one kind."""
        self._fleet = fleet
        self._kind = kind

    def estimate(self, manifest: pb.Manifest) -> int:
        """Estimate what a model takes on all engines, in bytes."""
        return load_bytes(manifest, self._kind, len(tuple(self._fleet)))

    def load(self, folder: Path, digest: str) -> LoadedModel:
        """Check a package against its manifest, load it on every engine and run every graph there once.

        Args:
            folder: the package's.
            digest: what the package must have, and no model that is loaded has.

        Raises:
            PackageCorrupt: it is not what its manifest says, it is another one by now, or its warm-up failed.
            ServiceError: an engine takes no work, or the device cannot be had.
        """
        package = open_package(folder)
        if package.digest != digest:
            allowed = "files that stay as they are"
            raise PackageCorrupt(str(folder), seen="a manifest that changed meanwhile", allowed=allowed)
        model = LoadedModel(package)
        taking: list[Engine] = []
        try:
            for engine in self._fleet:
                engine.evaluator.add(digest, DeviceModel(package, engine.device))
                taking.append(engine)
                _warm_up(model, engine)
        except BaseException:
            _take_off(taking, digest)
            raise
        log_event("model ready", model=model.manifest.name, version=model.manifest.version, digest=model.digest)
        return model

    def unload(self, model: LoadedModel) -> None:
        """Take a model off every engine, with all that was kept of it; nobody holds it any more."""
        _take_off(self._fleet, model.digest)


def _take_off(engines: Iterable[Engine], digest: str) -> None:
    for engine in engines:
        engine.evaluator.remove(digest)
    trim_heap()


def _warm_up(model: LoadedModel, engine: Engine) -> None:
    """Run every graph once; whatever that ends in is the package's fault, which has passed every other check.

    So is an engine that hung or died meanwhile: whether it was the package's doing nobody can tell, and to try again at
    each look would end the engine each time. One that is full, closing or restarting says so itself: that is no fault
    of the package.
    """
    try:
        warm_up(model, engine)
    except Exception as error:  # KeyError, TimeoutError, whatever a runtime raises: an operator needs the folder
        if isinstance(error, ServiceError) and not isinstance(error, PACKAGE_FAULTS):
            raise
        seen = f"a warm-up that ended in {type(error.__cause__ or error).__name__}"
        raise PackageCorrupt(str(model.package.folder), seen=seen, allowed="graphs that run on its inputs") from error

"""Brings a package onto every engine and runs it once, or leaves no trace of it. Blocks: not for an event loop."""

from pathlib import Path

from m2ib.v1 import manifest_pb2 as pb
from m2ib_server.engine import DeviceModel, Engine, Fleet, LoadedModel, warm_up
from m2ib_server.errors import EvaluationFailed, PackageCorrupt, ServiceError
from m2ib_server.package import open_package
from m2ib_server.repository.memory import load_bytes
from m2ib_server.runtime import DeviceKind, trim_heap
from m2ib_server.telemetry import log_event


class Loader:
    """Loads packages on the engines of a fleet, which run."""

    def __init__(self, fleet: Fleet, kind: DeviceKind) -> None:
        """Load on these engines, whose devices are of one kind."""
        self._fleet = fleet
        self._kind = kind

    def estimate(self, manifest: pb.Manifest) -> int:
        """Estimate what a model takes on all engines, in bytes."""
        return load_bytes(manifest, self._kind, len(tuple(self._fleet)))

    def load(self, folder: Path) -> LoadedModel:
        """Check a package against its manifest, load it on every engine and run every graph there once.

        Raises:
            PackageCorrupt: it is not what its manifest says, or its warm-up failed.
            ServiceError: an engine takes no work, or the device cannot be had.
        """
        package = open_package(folder)
        model = LoadedModel(package)
        try:
            for engine in self._fleet:
                engine.evaluator.add(model.digest, DeviceModel(package, engine.device))
                _warm_up(model, engine)
        except BaseException:
            self.unload(model)
            raise
        log_event("model ready", model=model.manifest.name, version=model.manifest.version, digest=model.digest)
        return model

    def unload(self, model: LoadedModel) -> None:
        """Take a model off every engine, with all that was kept of it; nobody holds it any more."""
        for engine in self._fleet:
            engine.evaluator.remove(model.digest)
        trim_heap()


def _warm_up(model: LoadedModel, engine: Engine) -> None:
    """Run every graph once; whatever that ends in is the package's fault, which has passed every other check.

    An engine that is full or closing says so itself: that is no fault of the package.
    """
    try:
        warm_up(model, engine)
    except Exception as error:  # KeyError, TimeoutError, whatever a runtime raises: an operator needs the folder
        if isinstance(error, ServiceError) and not isinstance(error, EvaluationFailed):
            raise
        seen = f"a warm-up that ended in {type(error.__cause__ or error).__name__}"
        raise PackageCorrupt(str(model.package.folder), seen=seen, allowed="graphs that run on its inputs") from error

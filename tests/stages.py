"""Engines on exported packages, in the test's own process."""

from dataclasses import dataclass
from pathlib import Path

from m2ib_server.bootstrap import build_engine
from m2ib_server.engine import Caller, DeviceModel, Engine, Job, LoadedModel
from m2ib_server.package import open_package
from m2ib_server.runtime import DeviceKind, open_device
from m2ib_server.settings import EngineLimits, ServerSettings

SECONDS = 240


@dataclass(frozen=True)
class Stage:
    """A model and a running engine for it."""

    engine: Engine
    model: LoadedModel

    def run(self, *methods):
        """Run methods at the same time and return their outcomes."""
        callers = [Caller() for _ in methods]
        for method, caller in zip(methods, callers, strict=True):
            self.engine.submit(Job(method, model=self.model.digest, rows=10), caller)
        return [caller.reply.result(timeout=SECONDS) for caller in callers]


def open_stage(folder: Path, **limits) -> Stage:
    """Load a package on the CPU and start an engine; the caller closes it."""
    package = open_package(folder)
    settings = ServerSettings(models=folder.parent, listen="", device="cpu", threads=2, engine=EngineLimits(**limits))
    device = open_device(DeviceKind.CPU, threads=2)
    engine = build_engine(device, settings)
    engine.evaluator.add(package.digest, DeviceModel(package, device))
    engine.start()
    return Stage(engine, LoadedModel(package))

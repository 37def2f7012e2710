"""A package comes onto the engines whole, or leaves no trace of itself there, nor of another."""

import pytest

from fakes.engines import EndingEngine
from m2ib_server.bootstrap import build_engine
from m2ib_server.engine import Fleet, warm_up
from m2ib_server.errors import (
    Draining,
    EngineFailed,
    EngineRestarting,
    EvaluationAborted,
    EvaluationFailed,
    PackageCorrupt,
    QueueFull,
)
from m2ib_server.package import read_manifest
from m2ib_server.repository import Loader
from m2ib_server.runtime import DeviceKind, open_device
from m2ib_server.settings import ServerSettings


@pytest.fixture
def digest(tiny_package):
    return read_manifest(tiny_package)[1]


@pytest.fixture
def engine(tiny_package):
    settings = ServerSettings(models=tiny_package, listen="", device="cpu", threads=1)
    engine = build_engine(open_device(DeviceKind.CPU, threads=1), settings)
    engine.start()
    yield engine
    engine.close()


@pytest.mark.parametrize("error", [EvaluationFailed(), EvaluationAborted(), EngineFailed(), RuntimeError("41.5")])
def test_a_package_that_fails_or_ends_the_engine_in_its_warm_up_is_not_usable(tiny_package, digest, error):
    engine = EndingEngine(error, is_refusal=False)
    with pytest.raises(PackageCorrupt, match=f"tiny: seen a warm-up that ended in {type(error).__name__}; allowed"):
        Loader(Fleet([engine]), DeviceKind.CPU).load(tiny_package, digest)
    assert not engine.evaluator.holds(digest)


@pytest.mark.parametrize(
    ("error", "is_refusal"),
    [
        (QueueFull(depth=1, limit=1), True),
        (Draining(), True),
        (Draining(), False),
        (EngineRestarting(), True),
        (EngineRestarting(), False),
    ],
)
def test_an_engine_that_takes_no_work_is_no_fault_of_the_package(tiny_package, digest, error, is_refusal):
    engine = EndingEngine(error, is_refusal=is_refusal)
    with pytest.raises(type(error)):
        Loader(Fleet([engine]), DeviceKind.CPU).load(tiny_package, digest)
    assert not engine.evaluator.holds(digest)


def test_a_package_that_is_another_one_by_now_touches_no_engine(tiny_package):
    engine = EndingEngine(AssertionError("nothing is to be run"), is_refusal=True)
    with pytest.raises(PackageCorrupt, match="tiny: seen a manifest that changed meanwhile; allowed"):
        Loader(Fleet([engine]), DeviceKind.CPU).load(tiny_package, "0" * 64)


def test_a_model_that_serves_outlives_a_second_load_of_its_package(tiny_package, digest, engine):
    model = Loader(Fleet([engine]), DeviceKind.CPU).load(tiny_package, digest)
    with pytest.raises(AssertionError, match="once"):
        Loader(Fleet([engine]), DeviceKind.CPU).load(tiny_package, digest)
    warm_up(model, engine)

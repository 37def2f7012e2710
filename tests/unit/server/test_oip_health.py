"""Health in this protocol's words is grpc.health.v1's, in every phase of the server."""

from types import SimpleNamespace

import pytest
from grpc_health.v1 import health, health_pb2

from fakes.repository import FakeModel, write_package
from m2ib.oip import inference_pb2 as oip
from m2ib_server.api.lifecycle import Lifecycle, Phase
from m2ib_server.api.reception import OpenGate, Reception
from m2ib_server.engine import Catalogue
from m2ib_server.errors import ModelUnknown
from m2ib_server.oip import InferenceServicer, InferenceStatistics, MirroredHealth

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Aborted(Exception):
    pass


class Context:
    """What grpc.aio hands to a handler, as far as the reception uses it."""

    def time_remaining(self):
        return None

    def invocation_metadata(self):
        return ()

    def set_trailing_metadata(self, metadata):
        pass

    async def abort(self, code, details, trailing_metadata=()):
        raise Aborted(code.name)


def nothing_loaded(name, call):
    raise ModelUnknown(loaded=[])


def servicer_in(phase, status, catalogue=(), leased=nothing_loaded):
    desk = SimpleNamespace(catalogue=catalogue, explainer=SimpleNamespace(leased=leased))
    reception = Reception(OpenGate(), [], Lifecycle(phase))
    mirrored = MirroredHealth(status, "m/{name}")
    return InferenceServicer(desk, reception, None, mirrored, InferenceStatistics(), None)


async def test_health_is_mirrored_for_the_server_and_for_each_model():
    status = health.aio.HealthServicer()
    mirrored = MirroredHealth(status, "m/{name}")
    await status.set("", NOT_SERVING)
    await status.set("m/tiny", SERVING)
    assert await mirrored.is_serving("tiny")
    assert not await mirrored.is_serving()
    assert not await mirrored.is_serving("another")
    await status.enter_graceful_shutdown()
    assert not await mirrored.is_serving("tiny")


@pytest.mark.parametrize("phase", Phase)
async def test_health_is_answered_while_the_server_loads_and_drains(phase):
    status = health.aio.HealthServicer()
    await status.set("", SERVING if phase is Phase.OPEN else NOT_SERVING)
    servicer = servicer_in(phase, status)
    assert (await servicer.ServerLive(oip.ServerLiveRequest(), Context())).live
    ready = await servicer.ServerReady(oip.ServerReadyRequest(), Context())
    assert ready.ready == (phase is Phase.OPEN)
    assert not (await servicer.ModelReady(oip.ModelReadyRequest(name="tiny"), Context())).ready


@pytest.mark.parametrize("phase", set(Phase) - {Phase.OPEN})
async def test_other_calls_wait_until_the_server_takes_them(phase):
    servicer = servicer_in(phase, health.aio.HealthServicer())
    for call in (servicer.ServerMetadata, servicer.ModelInfer, servicer.RepositoryIndex):
        with pytest.raises(Aborted, match="UNAVAILABLE"):
            await call(oip.ServerMetadataRequest(), Context())


@pytest.fixture
def versions(tiny_package, tmp_path):
    """Two versions of one model, whose bare name leads to the first."""
    folders = [write_package(tiny_package, tmp_path / version, version=version) for version in ("1", "2")]
    return Catalogue([FakeModel(folder) for folder in folders], {"tiny": {"champion": "1"}})


@pytest.mark.parametrize("unproven", ["1", "2"])
async def test_a_version_that_does_not_serve_is_told_from_another_that_does(versions, unproven):
    status = health.aio.HealthServicer()
    of_version = {version: version != unproven for version in ("1", "2")}
    for version, serves in of_version.items():
        await status.set(f"m/tiny:{version}", SERVING if serves else NOT_SERVING)
    await status.set("m/tiny", SERVING if of_version["1"] else NOT_SERVING)
    servicer = servicer_in(Phase.OPEN, status, versions, lambda name, call: versions.lease(name))

    async def is_ready(version):
        return (await servicer.ModelReady(oip.ModelReadyRequest(name="tiny", version=version), Context())).ready

    assert {version: await is_ready(version) for version in of_version} == of_version
    assert await is_ready("") == of_version["1"]

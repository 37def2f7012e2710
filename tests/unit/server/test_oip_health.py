"""Health in this protocol's words is grpc.health.v1's, in every phase of the server."""

from types import SimpleNamespace

import pytest

from fakes.repository import FakeModel, write_package
from m2ib.oip import inference_pb2 as oip
from m2ib_server.api.lifecycle import Lifecycle, Phase
from m2ib_server.api.reception import OpenGate, Reception
from m2ib_server.engine import Catalogue
from m2ib_server.errors import ModelUnknown
from m2ib_server.oip import InferenceServicer, InferenceStatistics
from m2ib_server.watch import HealthBoard
from m2ib_server.watch.board import model_health


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


def board_of(**serving):
    """Show what serves: `server`, and models by their names."""
    board = HealthBoard()
    board.show({"" if name == "server" else model_health(name): serves for name, serves in serving.items()})
    return board


def servicer_in(phase, board, catalogue=(), leased=nothing_loaded):
    desk = SimpleNamespace(catalogue=catalogue, explainer=SimpleNamespace(leased=leased))
    reception = Reception(OpenGate(), [], Lifecycle(phase))
    return InferenceServicer(desk, reception, None, board, InferenceStatistics(), None)


@pytest.mark.parametrize("phase", Phase)
async def test_health_is_answered_while_the_server_loads_and_drains(phase):
    servicer = servicer_in(phase, board_of(server=phase is Phase.OPEN))
    assert (await servicer.ServerLive(oip.ServerLiveRequest(), Context())).live
    ready = await servicer.ServerReady(oip.ServerReadyRequest(), Context())
    assert ready.ready == (phase is Phase.OPEN)
    assert not (await servicer.ModelReady(oip.ModelReadyRequest(name="tiny"), Context())).ready


@pytest.mark.parametrize("phase", [Phase.LOADING, Phase.DRAINING])
async def test_other_calls_wait_until_the_server_takes_them(phase):
    servicer = servicer_in(phase, HealthBoard())
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
    of_version = {version: version != unproven for version in ("1", "2")}
    board = board_of(tiny=of_version["1"], **{f"tiny:{version}": serves for version, serves in of_version.items()})
    servicer = servicer_in(Phase.OPEN, board, versions, lambda name, call: versions.lease(name))

    async def is_ready(version):
        return (await servicer.ModelReady(oip.ModelReadyRequest(name="tiny", version=version), Context())).ready

    assert {version: await is_ready(version) for version in of_version} == of_version
    assert await is_ready("") == of_version["1"]

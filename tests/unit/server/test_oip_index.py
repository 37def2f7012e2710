"""The index tells of every version, also of those that are not loaded."""

import pytest

from m2ib.oip import inference_pb2 as oip
from m2ib_server.errors import InvalidField
from m2ib_server.oip.index import ILL, STATE_AND_REASON, write_index
from m2ib_server.repository import State, VersionReport


class FakeShelves:
    def __init__(self, **state_by_version):
        self._states = state_by_version

    async def versions(self):
        return [
            VersionReport(name="tiny", version=version, digest="", state=state)
            for version, state in self._states.items()
        ]


class FakeHealth:
    """Serves these models and no other."""

    def __init__(self, *serving):
        self._serving = serving

    def is_serving(self, model=""):
        return model in self._serving


async def index_of(shelves, health, **request):
    index = await write_index(oip.RepositoryIndexRequest(**request), shelves, health)
    return {each.version: (each.state, each.reason) for each in index.models}


async def test_a_version_of_every_state_is_listed_and_only_those_that_serve_are_ready():
    shelves = FakeShelves(**{state.value: state for state in State}, ill=State.READY)
    health = FakeHealth(*(f"tiny:{state.value}" for state in State))
    listed = await index_of(shelves, health)
    assert listed.pop("ill") == ("UNAVAILABLE", ILL)
    assert listed == {state.value: STATE_AND_REASON[state] for state in State}
    assert await index_of(shelves, health, ready=True) == {"ready": ("READY", "")}


async def test_a_repository_that_is_named_is_none_of_ours():
    with pytest.raises(InvalidField, match="repository_name"):
        await index_of(FakeShelves(), FakeHealth(), repository_name="another")


def test_every_state_has_a_word_and_whoever_does_not_serve_a_reason():
    assert set(STATE_AND_REASON) == set(State)
    assert all(bool(reason) == (state != "READY") for state, reason in STATE_AND_REASON.values())

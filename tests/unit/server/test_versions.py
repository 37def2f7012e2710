"""Which version is the latest, and what a name leads to."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2ib.v1 import manifest_pb2
from m2ib_server.engine import Catalogue
from m2ib_server.engine.catalogue import split_name
from m2ib_server.errors import ModelUnknown
from m2ib_server.package import version_key


class NamedModel:
    """A model of which only the name matters; equal to nothing but itself."""

    def __init__(self, name, version):
        self.manifest = manifest_pb2.Manifest(name=name, version=version)

    def __repr__(self):
        return f"{self.manifest.name}:{self.manifest.version}"


def catalogue_of(*names, **aliases):
    return Catalogue([NamedModel(*name.split(":")) for name in names], aliases)


@pytest.mark.parametrize(
    "ordered",
    [
        ["1", "2", "10"],
        ["1.9", "1.10"],
        ["2.0-rc1", "2.0", "2.0.1", "2.1"],
        ["1a", "1b", "1"],
        ["0.9", "1"],
        ["2025-12-31", "2026-01-01"],
        ["dev", "1"],
        ["1-0", "1.0"],
        ["v2", "v10"],
        ["007", "8"],
    ],
)
def test_versions_are_ordered_as_people_read_them(ordered):
    shuffled = ordered[::-1]
    assert sorted(shuffled, key=version_key) == ordered


VERSIONS = st.text("0123456789abc._-", min_size=1, max_size=6)


@given(VERSIONS, VERSIONS)
def test_no_two_versions_are_the_same_in_order(first, second):
    assert (version_key(first) == version_key(second)) == (first == second)
    assert version_key(first) < version_key(second) or version_key(second) < version_key(first) or first == second


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("tiny", ("tiny", "", "")),
        ("tiny:2", ("tiny", "2", "")),
        ("tiny@champion", ("tiny", "", "champion")),
        ("tiny:", ("tiny:", "", "")),
        ("tiny@", ("tiny@", "", "")),
        ("tiny:2@champion", ("tiny", "2@champion", "")),
        ("tiny@a:2", ("tiny@a", "2", "")),
        ("", ("", "", "")),
    ],
)
def test_a_name_is_split_at_its_one_separator(name, parts):
    assert split_name(name) == parts


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("tiny", "tiny:10"),
        ("tiny@latest", "tiny:10"),
        ("tiny:9", "tiny:9"),
        ("other", "other:1"),
        ("other@champion", "other:1"),
        ("other@latest", "other:2"),
        ("other@shadow", "other:2"),
    ],
)
def test_a_name_leads_to_its_champion_or_else_to_the_latest_version(name, found):
    catalogue = catalogue_of("tiny:9", "tiny:10", "other:2", "other:1", other={"champion": "1", "shadow": "2"})
    assert repr(catalogue.find(name)) == found


@pytest.mark.parametrize(
    "name", ["", "none", "tiny:3", "tiny@champion", "tiny:", "tiny:1@latest", "other", "other@champion"]
)
def test_what_leads_nowhere_is_unknown_and_a_lost_champion_has_no_silent_successor(name):
    catalogue = catalogue_of("tiny:1", "tiny:2", "other:2", other={"champion": "1"})
    with pytest.raises(ModelUnknown):
        catalogue.find(name)


def test_an_unknown_version_of_a_known_model_is_answered_with_the_versions_there_are():
    with pytest.raises(ModelUnknown) as caught:
        catalogue_of("tiny:1", "tiny:2", "other:1").find("tiny:3")
    assert caught.value.loaded == ["tiny:1", "tiny:2"]


def test_no_name_means_the_only_model_whatever_number_of_versions_it_has():
    assert repr(catalogue_of("tiny:1", "tiny:2").find("")) == "tiny:2"


def test_aliases_of_a_version_are_told_with_latest_among_them():
    catalogue = catalogue_of("tiny:1", "tiny:2", tiny={"champion": "1", "shadow": "2"})
    assert [catalogue.aliases_of(model) for model in catalogue] == [("champion",), ("latest", "shadow")]


def test_models_are_listed_by_name_and_version_order():
    assert list(map(repr, catalogue_of("b:1", "a:10", "a:9"))) == ["a:9", "a:10", "b:1"]


def test_who_watches_is_told_after_each_change_and_sees_it_whole():
    catalogue, seen = catalogue_of("a:1"), []
    catalogue.watch(lambda: seen.append(list(map(repr, catalogue))))
    catalogue.show([NamedModel("a", "2"), NamedModel("b", "1")], {})
    catalogue.show([], {})
    assert seen == [["a:2", "b:1"], []]


async def test_a_model_that_is_held_stays_in_use_until_the_last_holder_lets_go():
    catalogue = catalogue_of("a:1")
    with catalogue.lease("a") as model:
        with catalogue.lease("a:1") as same:
            assert same is model
        catalogue.show([], {})
        waiting = asyncio.ensure_future(catalogue.until_unused(model))
        await asyncio.sleep(0)
        assert not waiting.done()
    await asyncio.wait_for(waiting, 10)
    await catalogue.until_unused(model)


async def test_a_body_that_fails_lets_go_too():
    catalogue = catalogue_of("a:1")
    with pytest.raises(ZeroDivisionError), catalogue.lease("a") as model:
        raise ZeroDivisionError
    await asyncio.wait_for(catalogue.until_unused(model), 10)

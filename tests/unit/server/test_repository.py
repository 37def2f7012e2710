"""Versions come into service and leave it, each change whole, one after the other."""

import asyncio
import logging
import os
import shutil
import threading

import pytest

from fakes.repository import FakeLoader, write_package
from m2ib_server.engine import Catalogue
from m2ib_server.errors import (
    AliasesCorrupt,
    AliasesUnwritable,
    InvalidField,
    ModelMemoryExceeded,
    ModelsStalled,
    ModelUnknown,
    PackageCorrupt,
    VersionAbsent,
    VersionAliased,
    VersionNotLoaded,
)
from m2ib_server.repository import Repository, State
from m2ib_server.repository.aliases import AliasFile
from m2ib_server.settings import RepositorySettings

SECONDS = 60


class Bench:
    """A repository over packages that are manifests, with one version loaded."""

    def __init__(self, original, models, *, patience_seconds=SECONDS, **settings):
        self.original, self.models = original, models
        self.loader, self.catalogue = FakeLoader(), Catalogue()
        self.repository = Repository(
            models, self.catalogue, self.loader, RepositorySettings(**settings), patience_seconds=patience_seconds
        )

    def put(self, version, **changes):
        return write_package(self.original, self.models / "tiny" / version, version=version, **changes)

    @property
    def shown(self):
        return list(map(repr, self.catalogue))


@pytest.fixture
def make_bench(tiny_package, tmp_path):
    benches = []

    def make(**settings):
        benches.append(Bench(tiny_package, tmp_path / "models", **settings))
        benches[-1].put("1")
        benches[-1].repository.load_all()
        return benches[-1]

    yield make
    for bench in benches:
        bench.loader.gate.set()


@pytest.fixture
def bench(make_bench):
    return make_bench()


async def settled(condition):
    """Wait until something has become true that others make true."""
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110 - it is made true on another thread, or by a task that tells nobody
            await asyncio.sleep(0.005)


def states(reports):
    return {f"{report.name}:{report.version}": report.state for report in reports}


async def test_a_version_is_loaded_beside_the_others_and_is_the_latest(bench):
    bench.put("2")
    report, was_loaded = await bench.repository.load("tiny", "2")
    assert (report.version, report.aliases, report.is_default, was_loaded) == ("2", ("latest",), True, False)
    assert bench.shown == ["tiny:1", "tiny:2"]
    assert repr(bench.catalogue.find("tiny")) == "tiny:2"


async def test_no_version_means_the_highest_in_the_folder(bench):
    bench.put("9")
    bench.put("10")
    report, _ = await bench.repository.load("tiny")
    assert report.version == "10"


async def test_loading_what_is_loaded_is_no_fault_also_once_its_folder_has_gone(bench):
    assert (await bench.repository.load("tiny", "1"))[1]
    shutil.rmtree(bench.models / "tiny" / "1")
    report, was_loaded = await bench.repository.load("tiny", "1")
    assert (was_loaded, report.on_disk) == (True, False)
    assert len(bench.loader.loaded) == 1


@pytest.mark.parametrize("change", ["load", "swap"])
async def test_a_version_that_is_not_there_is_refused_and_nothing_changes(bench, change):
    shutil.rmtree(bench.put("2"))
    with pytest.raises(VersionAbsent, match="tiny:1"):
        await getattr(bench.repository, change)("tiny", "2")
    assert bench.shown == ["tiny:1"]


@pytest.mark.parametrize("change", ["load", "swap"])
async def test_a_version_that_fails_never_becomes_visible(bench, change):
    bench.loader.faulty.add(bench.put("2"))
    seen = []
    bench.catalogue.watch(lambda: seen.append(bench.shown))
    with pytest.raises(PackageCorrupt, match="not finite"):
        await getattr(bench.repository, change)("tiny", "2")
    assert (bench.shown, seen) == (["tiny:1"], [])


async def test_a_package_that_becomes_the_one_that_serves_while_it_is_loaded_takes_nothing_off_the_engines(bench):
    folder = bench.put("2")
    bench.loader.gate.clear()
    load = asyncio.ensure_future(bench.repository.load("tiny", "2"))
    await settled(lambda: bench.loader.at_once == 1)
    shutil.copy(bench.models / "tiny" / "1" / "manifest.json", folder)
    bench.loader.gate.set()
    with pytest.raises(PackageCorrupt, match="seen a manifest that changed meanwhile"):
        await load
    assert (bench.shown, bench.loader.unloaded) == (["tiny:1"], [])


async def test_a_swap_is_one_step_and_the_old_version_stays_until_it_is_let_go(bench):
    bench.put("2")
    seen = []
    with bench.catalogue.lease("tiny") as old:
        bench.catalogue.watch(lambda: seen.append(bench.shown))
        report, retired = await bench.repository.swap("tiny", "2")
        assert (repr(old), report.version, retired) == ("tiny:1", "2", ["1"])
        assert seen == [["tiny:2"]]
        assert states(await bench.repository.versions()) == {"tiny:1": State.DRAINING, "tiny:2": State.READY}
        assert bench.repository.used_bytes == 200
        assert not bench.loader.unloaded
    await settled(lambda: bench.loader.unloaded == ["tiny:1"] and bench.repository.used_bytes == 100)
    assert states(await bench.repository.versions())["tiny:1"] is State.AVAILABLE


async def test_a_swap_takes_the_aliases_along(bench):
    await bench.repository.set_alias("tiny", "champion", "1")
    bench.put("2")
    await bench.repository.swap("tiny", "2")
    assert repr(bench.catalogue.find("tiny@champion")) == "tiny:2"
    assert '"champion": "2"' in (bench.models / "aliases.json").read_text()


async def test_a_swap_whose_aliases_cannot_be_kept_changes_nothing(make_bench, tmp_path):
    folder = tmp_path / "kept"
    folder.mkdir()
    bench = make_bench(aliases_file=folder / "aliases.json")
    await bench.repository.set_alias("tiny", "champion", "1")
    shutil.rmtree(folder)
    bench.put("2")
    with pytest.raises(AliasesUnwritable):
        await bench.repository.swap("tiny", "2")
    assert repr(bench.catalogue.find("tiny")) == "tiny:1"
    await settled(lambda: bench.repository.used_bytes == 100)
    assert bench.loader.unloaded == ["tiny:2"]


async def test_another_package_under_a_loaded_version_takes_its_place(bench):
    before = bench.catalogue.find("tiny:1").digest
    bench.put("1", family="other")
    _, was_loaded = await bench.repository.load("tiny", "1")
    assert not was_loaded
    assert bench.catalogue.find("tiny:1").digest != before
    await settled(lambda: bench.loader.unloaded == ["tiny:1"])


async def test_an_unloaded_version_is_no_longer_found_and_goes_when_the_last_request_ends(bench):
    with bench.catalogue.lease("tiny"):
        assert await bench.repository.unload("tiny", "1")
        with pytest.raises(ModelUnknown):
            bench.catalogue.find("tiny")
        assert not bench.loader.unloaded
    await settled(lambda: bench.loader.unloaded == ["tiny:1"])
    assert not await bench.repository.unload("tiny", "1")  # it lies in the folder and is not loaded: no fault
    with pytest.raises(VersionAbsent):
        await bench.repository.unload("tiny", "3")


async def test_a_version_that_drains_is_called_back_without_being_loaded_again(bench):
    with bench.catalogue.lease("tiny"):
        await bench.repository.unload("tiny", "1")
        report, was_loaded = await bench.repository.load("tiny", "1")
        assert (report.state, was_loaded) == (State.READY, False)
    await asyncio.sleep(0.05)
    assert (len(bench.loader.loaded), bench.loader.unloaded, bench.shown) == (1, [], ["tiny:1"])


async def test_a_version_that_an_alias_leads_to_stays_in_service(bench):
    await bench.repository.set_alias("tiny", "champion", "1")
    with pytest.raises(VersionAliased, match="champion"):
        await bench.repository.unload("tiny", "1")
    assert await bench.repository.delete_alias("tiny", "champion") == "1"
    assert await bench.repository.unload("tiny", "1")


async def test_an_alias_leads_to_loaded_versions_only_and_latest_is_computed(bench):
    bench.put("2")
    with pytest.raises(VersionNotLoaded, match="tiny:1"):
        await bench.repository.set_alias("tiny", "champion", "2")
    for alias in ("latest", "", "a:b", "A"):
        with pytest.raises(InvalidField):
            await bench.repository.set_alias("tiny", alias, "1")
    await bench.repository.load("tiny", "2")
    assert await bench.repository.set_alias("tiny", "champion", "1") == ""
    assert repr(bench.catalogue.find("tiny")) == "tiny:1"
    assert await bench.repository.set_alias("tiny", "champion", "2") == "1"
    assert await bench.repository.delete_alias("tiny", "shadow") == ""


async def test_aliases_outlive_the_server_and_one_that_leads_nowhere_stops_boot(bench, tiny_package):
    bench.put("2")
    await bench.repository.load("tiny", "2")
    await bench.repository.set_alias("tiny", "champion", "1")
    again = Bench(tiny_package, bench.models)
    again.repository.load_all()
    assert repr(again.catalogue.find("tiny")) == "tiny:1"
    shutil.rmtree(bench.models / "tiny" / "1")
    with pytest.raises(AliasesCorrupt, match="tiny@champion leading to 1"):
        Bench(tiny_package, bench.models).repository.load_all()


async def test_a_model_that_does_not_fit_is_refused_and_a_draining_one_counts(make_bench):
    bench = make_bench(memory_bytes=200)
    bench.put("2")
    bench.put("3")
    with bench.catalogue.lease("tiny:1"):
        await bench.repository.swap("tiny", "2")
        with pytest.raises(ModelMemoryExceeded, match="needs 100 bytes and those loaded or draining take 200 of 200"):
            await bench.repository.load("tiny", "3")
    await settled(lambda: bench.repository.used_bytes == 100)
    await bench.repository.load("tiny", "3")


async def test_loads_are_made_one_after_the_other_and_the_folder_can_be_looked_at_meanwhile(bench):
    bench.put("2")
    bench.put("3")
    bench.loader.gate.clear()
    loads = [asyncio.ensure_future(bench.repository.load("tiny", version)) for version in ("2", "3", "2")]
    await settled(lambda: bench.loader.at_once == 1)
    told = states(await bench.repository.versions("tiny"))
    assert told == {"tiny:1": State.READY, "tiny:2": State.LOADING, "tiny:3": State.AVAILABLE}
    bench.loader.gate.set()
    assert [was_loaded for _, was_loaded in await asyncio.gather(*loads)] == [False, False, True]
    assert bench.loader.most_at_once == 1


async def test_a_change_goes_on_when_its_caller_leaves(bench):
    bench.put("2")
    bench.loader.gate.clear()
    load = asyncio.ensure_future(bench.repository.load("tiny", "2"))
    await settled(lambda: bench.loader.at_once == 1)
    load.cancel()
    bench.loader.gate.set()
    await settled(lambda: bench.shown == ["tiny:1", "tiny:2"])


async def test_a_look_loads_what_is_new_and_unloads_what_is_gone_twice(bench):
    bench.put("2")
    await bench.repository.look()
    assert bench.shown == ["tiny:1", "tiny:2"]
    shutil.rmtree(bench.models / "tiny" / "1")
    await bench.repository.look()
    assert bench.shown == ["tiny:1", "tiny:2"]
    await bench.repository.look()
    assert bench.shown == ["tiny:2"]
    await settled(lambda: bench.loader.unloaded == ["tiny:1"])


async def test_a_look_leaves_everything_when_the_whole_folder_has_gone(bench):
    shutil.rmtree(bench.models)
    for _ in range(3):
        await bench.repository.look()
    assert bench.shown == ["tiny:1"]
    assert [report.on_disk for report in await bench.repository.versions()] == [False]


async def test_a_look_tries_what_failed_again_only_once_it_has_changed(bench):
    folder = bench.put("2")
    bench.loader.faulty.add(folder)
    for _ in range(3):
        await bench.repository.look()
    (report,) = [each for each in await bench.repository.versions() if each.version == "2"]
    assert report.state is State.UNUSABLE
    assert "not finite" in report.fault
    bench.loader.faulty.clear()
    await bench.repository.look()
    assert bench.shown == ["tiny:1"]  # no file of it has changed
    (folder / "vision_tail.weights").write_bytes(b"whole now")
    await bench.repository.look()
    assert bench.shown == ["tiny:1", "tiny:2"]


async def test_a_look_does_not_load_what_an_operator_unloaded_until_the_operator_does(bench):
    bench.put("2")
    await bench.repository.look()
    await bench.repository.unload("tiny", "2")
    await bench.repository.look()
    assert bench.shown == ["tiny:1"]
    await bench.repository.load("tiny", "2")
    await bench.repository.look()
    assert bench.shown == ["tiny:1", "tiny:2"]


async def test_a_look_follows_aliases_that_another_server_has_written(bench, tiny_package):
    bench.put("2")
    await bench.repository.look()
    other = Bench(tiny_package, bench.models)
    other.repository.load_all()
    await other.repository.set_alias("tiny", "champion", "1")
    assert repr(bench.catalogue.find("tiny")) == "tiny:2"
    await bench.repository.look()
    assert repr(bench.catalogue.find("tiny")) == "tiny:1"
    (bench.models / "aliases.json").write_text("{")
    await bench.repository.look()
    assert repr(bench.catalogue.find("tiny")) == "tiny:1"


def test_boot_refuses_a_package_that_is_not_usable_unless_it_is_looked_at_again(tiny_package, tmp_path):
    for seconds in (0.0, 1.0):
        bench = Bench(tiny_package, tmp_path / str(seconds), poll_seconds=seconds)
        bench.put("1")
        bench.loader.faulty.add(bench.put("2"))
        if seconds:
            bench.repository.load_all()
            assert bench.shown == ["tiny:1"]
            bench.loader.faulty.add(bench.models / "tiny" / "1")
            with pytest.raises(PackageCorrupt):  # none at all is no server
                again = Bench(tiny_package, bench.models, poll_seconds=seconds)
                again.loader.faulty = bench.loader.faulty
                again.repository.load_all()
        else:
            with pytest.raises(PackageCorrupt):
                bench.repository.load_all()


async def test_aliases_stay_when_the_folder_with_their_file_is_gone(bench):
    bench.put("2")
    await bench.repository.load("tiny", "2")
    await bench.repository.set_alias("tiny", "champion", "1")
    bench.models.rename(bench.models.with_name("unmounted"))
    bench.models.mkdir()
    for _ in range(3):
        await bench.repository.look()
        assert repr(bench.catalogue.find("tiny")) == "tiny:1"


async def test_an_alias_whose_file_names_a_version_that_is_not_loaded_leads_where_it_led(bench):
    bench.put("2")
    await bench.repository.load("tiny", "2")
    await bench.repository.set_alias("tiny", "champion", "1")
    file = bench.models / "aliases.json"
    file.write_text(file.read_text().replace('"1"', '"3"'))
    await bench.repository.look()
    assert repr(bench.catalogue.find("tiny")) == "tiny:1"


async def test_every_alias_that_is_followed_is_logged_once_with_where_it_leads_now(bench, caplog):
    caplog.set_level(logging.INFO, "m2ib_server")
    bench.put("2")
    await bench.repository.load("tiny", "2")
    await bench.repository.set_alias("tiny", "champion", "1")
    await bench.repository.set_alias("tiny", "shadow", "1")
    AliasFile(bench.models / "aliases.json").write({"tiny": {"champion": "2", "canary": "1"}})
    for _ in range(2):
        await bench.repository.look()
    followed = [record.m2ib_fields for record in caplog.records if record.m2ib_event == "alias followed"]
    assert followed == [
        {"model": "tiny@canary", "version": "1"},
        {"model": "tiny@champion", "version": "2"},
        {"model": "tiny@shadow", "version": ""},
    ]


async def test_an_operators_last_word_is_kept_where_the_file_says_otherwise_than_the_server(bench):
    bench.put("2")
    await bench.repository.load("tiny", "2")
    await bench.repository.set_alias("tiny", "champion", "1")
    file = AliasFile(bench.models / "aliases.json")
    file.write({"tiny": {"champion": "3"}})
    await bench.repository.look()
    await bench.repository.set_alias("tiny", "champion", "1")
    assert file.read() == {"tiny": {"champion": "1"}}
    bench.put("3")
    await bench.repository.look()
    assert repr(bench.catalogue.find("tiny")) == "tiny:1"


async def test_an_alias_that_is_set_again_is_kept_again_where_its_file_has_gone(bench):
    await bench.repository.set_alias("tiny", "champion", "1")
    (bench.models / "aliases.json").unlink()
    await bench.repository.set_alias("tiny", "champion", "1")
    assert AliasFile(bench.models / "aliases.json").read() == {"tiny": {"champion": "1"}}


async def test_an_alias_that_only_the_file_knows_is_deleted_there(bench):
    file = AliasFile(bench.models / "aliases.json")
    file.write({"tiny": {"champion": "1"}})
    assert await bench.repository.delete_alias("tiny", "champion") == ""
    assert file.read() == {}


async def test_a_swap_keeps_its_aliases_where_the_file_says_otherwise(bench):
    await bench.repository.set_alias("tiny", "champion", "1")
    file = AliasFile(bench.models / "aliases.json")
    file.write({"tiny": {"champion": "3"}})
    await bench.repository.look()
    await bench.repository.swap("tiny", "1")
    assert file.read() == {"tiny": {"champion": "1"}}


async def test_where_no_alias_can_be_kept_a_model_without_one_is_swapped_and_none_is_deleted(make_bench, tmp_path):
    bench = make_bench(aliases_file=tmp_path / "gone" / "aliases.json")
    bench.put("2")
    await bench.repository.swap("tiny", "2")
    assert bench.shown == ["tiny:2"]
    assert await bench.repository.delete_alias("tiny", "champion") == ""


async def test_a_swap_of_a_model_without_aliases_leaves_the_file_to_the_next_look(bench):
    bench.put("2")
    file = AliasFile(bench.models / "aliases.json")
    file.write({"tiny": {"champion": "2"}, "other": {"champion": "1"}})
    await bench.repository.swap("tiny", "2")
    assert file.read() == {"tiny": {"champion": "2"}, "other": {"champion": "1"}}


async def test_the_last_alias_that_is_deleted_leaves_an_empty_file_for_other_servers_though_it_had_gone(bench):
    await bench.repository.set_alias("tiny", "champion", "1")
    (bench.models / "aliases.json").unlink()
    assert await bench.repository.delete_alias("tiny", "champion") == "1"
    assert AliasFile(bench.models / "aliases.json").read() == {}


def readers():
    """Count the threads that look at a folder or a file of aliases."""
    return sum(thread.name == "m2ib-models" for thread in threading.enumerate())


def hang(path):
    """Put a file in place that whoever opens it hangs in; return what lets go of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)

    def let_go():
        held = os.open(path, os.O_RDWR)  # both ends, so that no open waits any more
        path.unlink()
        os.close(held)

    return let_go


async def test_a_folder_that_hangs_holds_one_thread_and_no_change_for_ever(make_bench, tmp_path):
    bench = make_bench(patience_seconds=0.2, aliases_file=tmp_path / "aliases.json")
    before = readers()
    let_go = hang(bench.models / "hung" / "1" / "manifest.json")
    repository = bench.repository
    asked = [repository.look(), *(repository.versions() for _ in range(8)), repository.load("tiny", "2")]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(each) for each in outcomes} == {ModelsStalled}
    assert readers() == before + 1
    await repository.set_alias("tiny", "champion", "1")  # its file lies elsewhere
    let_go()
    bench.put("2")
    await settled(lambda: readers() == before)
    await repository.load("tiny", "2")
    assert states(await repository.versions()) == {"tiny:1": State.READY, "tiny:2": State.READY}


async def test_a_file_of_aliases_that_hangs_moves_none_and_a_change_given_up_is_not_made_later(make_bench):
    bench = make_bench(patience_seconds=0.2)
    before = readers()
    let_go = hang(bench.models / "aliases.json")
    for change in (bench.repository.look(), bench.repository.set_alias("tiny", "champion", "1")):
        with pytest.raises(ModelsStalled):
            await change
    assert readers() == before + 1
    bench.put("2")
    await bench.repository.load("tiny", "2")
    assert repr(bench.catalogue.find("tiny")) == "tiny:2"
    let_go()
    await settled(lambda: readers() == before)
    await bench.repository.look()
    assert not (bench.models / "aliases.json").exists()
    assert repr(bench.catalogue.find("tiny")) == "tiny:2"


async def test_who_asks_during_a_scan_is_told_of_what_was_there_before_the_asking(bench):
    let_go = hang(bench.models / "hung" / "1" / "manifest.json")
    early = asyncio.create_task(bench.repository.versions())
    await settled(readers)
    bench.put("2")
    late = [asyncio.create_task(bench.repository.versions()) for _ in range(8)]
    await asyncio.sleep(0)
    late.pop().cancel()  # who leaves takes nothing from the others
    let_go()
    await early
    assert all("tiny:2" in states(reports) for reports in await asyncio.gather(*late))


async def test_a_fault_that_nobody_foresaw_in_one_package_keeps_a_look_from_no_other(bench):
    bench.loader.broken.add(bench.put("2"))
    bench.put("3")
    AliasFile(bench.models / "aliases.json").write({"tiny": {"champion": "1"}})
    for _ in range(2):
        await bench.repository.look()
    assert bench.shown == ["tiny:1", "tiny:3"]
    assert repr(bench.catalogue.find("tiny")) == "tiny:1"
    assert states(await bench.repository.versions())["tiny:2"] is State.UNUSABLE
    assert bench.loader.broken_loads == 1  # not again before a file of it changes
